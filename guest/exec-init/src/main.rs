//! PID 1 of the machines of `cloister exec`: makes a root of the host's folders, runs one command in it, and
//! tells the host how that ended.
//!
//! What to do is in `/exec.conf` of the initramfs ([`settings`]). The command's standard streams and a
//! control connection are streams of vsock(7) to the host ([`host`]).

mod aesm;
mod command;
mod container;
mod host;
mod network;
mod places;
mod privileges;
mod root;
mod settings;
mod system;

use std::io;
use std::process::ExitCode;

use command::Ending;
use host::Control;
use settings::Settings;

fn main() -> ExitCode {
    match run() {
        Ok(()) => {}
        // The console's last lines are what the host shows of a machine that says nothing else.
        Err(error) => println!("init: {error}"),
    }
    system::power_off();
    ExitCode::FAILURE
}

/// An error with what was being done.
fn doing<T>(what: &str, outcome: io::Result<T>) -> Result<T, String> {
    outcome.map_err(|error| format!("{what}: {error}"))
}

fn run() -> Result<(), String> {
    let settings = doing("read /exec.conf", std::fs::read("/exec.conf"))?;
    let settings = Settings::parse(&settings).ok_or("/exec.conf makes no sense")?;
    root::load_modules()?;
    root::make(&settings)?;
    network::set_up(&settings.networks)?;
    if settings.quoting {
        doing("serve the AESM socket", aesm::start())?;
    }
    let mut control = doing("reach the host", Control::connect())?;
    let ending = match command::run(&settings, &control)? {
        Ok(ending) => ending,
        Err(error) => Ending::NotStarted(error.raw_os_error().unwrap_or(libc::EIO)),
    };
    system::sync();
    doing("tell the host", control.tell(&ending))
}
