//! Linux's selftests of the x86 architecture.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Setup;
use crate::console::Transcript;
use crate::image::Small;
use crate::machine::Boot;
use crate::sysroot::Bits;

/// What kselftest takes for a pass.
const PASS: i32 = 0;

/// A program that cannot pass, since it is about a feature that no machine announces.
struct Lacking {
    program: &'static str,
    code: i32,
    /// What it says then.
    line: &'static str,
}

/// AMX: 6.1's test takes a processor without it for a failure, and fails before it tests anything.
const LACKING: [Lacking; 1] =
    [Lacking { program: "amx_64", code: 1, line: "invalid tile data size/offset: 0/0" }];

/// On two processors: some of the programs go to the second. The others stay on the first, since one of
/// them stops and continues its children thousands of times. The stock kernel has no vsyscall page of
/// its own accord.
pub(super) fn on_64_bits(setup: &Setup) -> Result<()> {
    let image = Small::x86_selftests(Bits::B64)?;
    let boot = Boot { cpus: 2, ..boot(&image, "vsyscall=emulate", &["first-cpu"]) };

    let transcript = setup.boot_to_power_off(&boot)?;

    all_pass(&transcript, &image.programs)
}

/// The programs of 32 bits, among them those of 16-bit segments, which the stock kernel refuses.
pub(super) fn on_32_bits(setup: &Setup) -> Result<()> {
    let image = Small::x86_selftests(Bits::B32)?;
    // The kernel's tests of its own ciphers take a minute.
    let boot = boot(&image, "cryptomgr.notests", &[]);

    let transcript = setup.boot_to_power_off(&boot)?;

    super::setup::expect(&transcript, &format!("init: up, i686 {}", image.release))?;
    all_pass(&transcript, &image.programs)
}

/// A boot that runs some tasks, then all programs.
fn boot(image: &Small, append: &str, tasks: &[&str]) -> Boot {
    let programs = image.programs.iter().map(String::as_str);
    let tasks: Vec<&str> = tasks.iter().copied().chain(programs).collect();
    let append = format!("{append} cloister.run={}", tasks.join(","));
    Boot { limit: Duration::from_secs(600), ..Boot::new(&image.kernel, &image.initrd, &append) }
}

/// Each program ended as it must.
fn all_pass(transcript: &Transcript, programs: &[String]) -> Result<()> {
    let mut failed = Vec::new();
    for program in programs {
        let lacking = LACKING.iter().find(|lacking| lacking.program == program);
        let expected = lacking.map_or(PASS, |lacking| lacking.code);
        let output = output(&transcript.lines, program);
        let end = format!("init: end {program} ");
        let code = output.last().and_then(|line| line.strip_prefix(&*end));
        let said = lacking.is_none_or(|lacking| output.iter().any(|l| l.contains(lacking.line)));
        if code != Some(&*expected.to_string()) || !said {
            let complaints: Vec<_> =
                output.iter().filter(|line| line.starts_with("[FAIL]")).take(4).collect();
            let code = code.unwrap_or("missing");
            failed
                .push(format!("{program}: exit code {code} instead of {expected} {complaints:?}"));
        }
    }
    ensure!(failed.is_empty(), "of {} programs:\n{}", programs.len(), failed.join("\n"));
    Ok(())
}

/// The lines from a program's start to its end.
fn output<'a>(lines: &'a [String], program: &str) -> &'a [String] {
    let at = |text: String| lines.iter().position(|line| line.starts_with(&text));
    let begin = at(format!("init: begin {program}")).unwrap_or(lines.len());
    let end = at(format!("init: end {program} ")).map_or(lines.len(), |end| end + 1);
    lines.get(begin..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::all_pass;
    use crate::console::Transcript;

    fn transcript(text: &str) -> Transcript {
        Transcript {
            lines: text.lines().map(str::to_owned).collect(),
            stderr: String::new(),
            exit: Some(0),
            timed_out: false,
            peak_kib: 0,
        }
    }

    #[test]
    fn a_program_fails_with_any_exit_code_but_0_and_without_one() {
        let text =
            "init: begin a_64\ninit: end a_64 0\ninit: begin b_64\n[FAIL] x\ninit: end b_64 4";
        let programs = ["a_64", "b_64", "c_64"].map(str::to_owned);

        let error = all_pass(&transcript(text), &programs).unwrap_err().to_string();

        assert_eq!(
            error,
            "of 3 programs:\nb_64: exit code 4 instead of 0 [\"[FAIL] x\"]\n\
             c_64: exit code missing instead of 0 []"
        );
    }

    #[test]
    fn a_program_of_a_feature_that_lacks_must_say_so() {
        let programs = ["amx_64".to_owned()];
        let said = "init: begin amx_64\namx_64: [FAIL]\txstate cpuid: invalid tile data \
                    size/offset: 0/0: Success\ninit: end amx_64 1";
        let silent = "init: begin amx_64\ninit: end amx_64 1";

        assert!(all_pass(&transcript(said), &programs).is_ok());
        assert!(all_pass(&transcript(silent), &programs).is_err());
    }
}
