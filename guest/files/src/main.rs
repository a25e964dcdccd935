//! Random operations on a folder that several systems share, in guests and on the host.
//!
//! Usage: `guest-files FOLDER NAME STEPS OTHER...`. It changes what is in `FOLDER/NAME` so many times, knows what should
//! be there, and looks after each step at what the step concerned. Then it leaves a digest of all in `FOLDER/NAME.digest`,
//! waits for those of the others, and compares them with what it finds in their folders.

mod model;
mod tree;

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use model::Model;

/// How long to wait for the others.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let [folder, name, steps, others @ ..] = &words[..] else {
        eprintln!("usage: guest-files FOLDER NAME STEPS OTHER...");
        return ExitCode::FAILURE;
    };
    match run(Path::new(folder), name, steps, others) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("files: {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path, name: &str, steps: &str, others: &[String]) -> Result<(), String> {
    let steps: u32 = steps.parse().map_err(|_| format!("{steps} is no number of steps"))?;
    let own = folder.join(name);
    fs::create_dir(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    let mut model = Model::new(&own, name);
    for step in 0..steps {
        model.step().map_err(|error| format!("step {step}: {error}"))?;
    }
    model.check_all()?;
    let digest = tree::digest(&own)?;
    let draft = folder.join(format!("{name}.draft"));
    fs::write(&draft, &digest)
        .and_then(|()| fs::rename(&draft, folder.join(format!("{name}.digest"))))
        .map_err(|error| format!("{name}.digest: {error}"))?;
    println!("files: {name}: {steps} steps, {} entries, {digest}", model.entries());
    for other in others {
        let expected = await_digest(&folder.join(format!("{other}.digest")))?;
        let found = tree::digest(&folder.join(other))?;
        if found != expected {
            return Err(format!("{other} has {found} here and {expected} there"));
        }
        println!("files: {name}: {other} is as it says");
    }
    Ok(())
}

fn await_digest(path: &Path) -> Result<String, String> {
    let start = Instant::now();
    loop {
        match fs::read_to_string(path) {
            Ok(text) => return Ok(text),
            Err(error) if start.elapsed() > PATIENCE => {
                return Err(format!("{}: {error}", path.display()));
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}
