//! From an image to what is loaded.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::error::DiskBootError;
use super::initrd;
use super::region::{ReadAt, Region};
use super::search::{Found, search};
use super::volumes::{Place, Volumes};
use crate::{BootSource, Initrd, KernelImage};

/// The largest kernel, as of a file of the host.
const MAX_KERNEL: u64 = 1 << 30;
/// What a command line names that says where the kernel's messages go.
const CONSOLE: &str = "console=";
/// The only console that is there from the start.
const SERIAL_CONSOLE: &str = "console=ttyS0";
/// How long a hostile file system may keep its reader busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads from a disk of `len` bytes what its boot loader would boot. `low_ram` bounds the initial RAM
/// disks. A reader that is too slow may go on reading for a while after this has returned.
///
/// # Errors
///
/// [`DiskBootError`] when there is no kernel, or none that boots here.
pub fn find(disk: Arc<dyn ReadAt>, len: u64, low_ram: u64) -> Result<BootSource, DiskBootError> {
    let disk = Region::whole(disk, len);
    // On a thread of its own: a file system that refers to itself a million times ends, but not
    // soon, and the machine's user gets an error instead of silence.
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("boot".into())
        .spawn(move || {
            // Err: it took too long, and nobody waits any more.
            let _ = sender.send(read(&disk, low_ram));
        })
        .map_err(DiskBootError::Read)?;
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|error| {
        Err(match error {
            mpsc::RecvTimeoutError::Timeout => DiskBootError::TooSlow(PATIENCE.as_secs()),
            mpsc::RecvTimeoutError::Disconnected => DiskBootError::Failed,
        })
    })
}

/// As [`find`], on this thread.
pub(super) fn read(disk: &Region, low_ram: u64) -> Result<BootSource, DiskBootError> {
    let volumes = Volumes::open(disk);
    let Found { choice, by, given_up } = search(&volumes)?;
    for reason in given_up {
        tracing::warn!("given up for {by}: {reason}");
    }
    let file = |place: &Place, limit| {
        volumes.read(place, limit).map_err(|reason| DiskBootError::File {
            file: volumes.describe(place),
            by: by.clone(),
            reason: reason.to_string(),
        })
    };
    let kernel = KernelImage::from_bytes(file(&choice.kernel, MAX_KERNEL.min(low_ram))?);
    let kernel = kernel.map_err(|reason| DiskBootError::Kernel {
        file: volumes.describe(&choice.kernel),
        by: by.clone(),
        reason,
    })?;

    let initrd = initrd::assemble(&choice.initrds, low_ram, file)?;
    let cmdline = with_console(choice.cmdline);
    tracing::info!(
        by,
        title = choice.title,
        kernel = volumes.describe(&choice.kernel),
        initrds = choice.initrds.len(),
        cmdline,
        "booting from the disk"
    );
    let initrd = (!initrd.is_empty()).then(|| Initrd::from_bytes(initrd));
    Ok(BootSource { kernel, initrd, cmdline })
}

/// The command line, with the serial port as console if it names none: there is no screen on which
/// the kernel's own default could be seen.
fn with_console(cmdline: String) -> String {
    if cmdline.split_whitespace().any(|word| word.starts_with(CONSOLE)) {
        return cmdline;
    }
    tracing::info!("the boot entry names no console: {SERIAL_CONSOLE} is added");
    format!("{cmdline} {SERIAL_CONSOLE}").trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::with_console;

    #[test]
    fn a_console_is_added_where_none_is_named() {
        for (cmdline, expected) in [
            ("root=/dev/vda1 quiet", "root=/dev/vda1 quiet console=ttyS0"),
            ("", "console=ttyS0"),
            ("console=hvc0 ro", "console=hvc0 ro"),
            ("noconsole=1", "noconsole=1 console=ttyS0"),
        ] {
            assert_eq!(with_console(cmdline.into()), expected);
        }
    }
}
