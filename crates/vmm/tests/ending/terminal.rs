//! Ctrl-A x, on a terminal.
#![expect(unsafe_code, reason = "the C library makes terminals")]

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::process::Stdio;
use std::time::Instant;

use crate::guests::{DEAF, DOTS, prints_gigabytes};
use crate::process::{Folder, LIMIT, Running, machine};

/// The two ends of a terminal: the user's and the program's.
fn terminal() -> (File, File) {
    // SAFETY: it takes integers, and the descriptor is checked.
    let user = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    assert!(user >= 0);
    // SAFETY: the descriptor is new, and nobody else has it.
    let user = unsafe { File::from_raw_fd(user) };
    let mut name = [0; 64];
    // SAFETY: the descriptor is that of a terminal, and the name has room for its length.
    let done = unsafe {
        libc::grantpt(user.as_raw_fd())
            | libc::unlockpt(user.as_raw_fd())
            | libc::ptsname_r(user.as_raw_fd(), name.as_mut_ptr(), name.len())
    };
    assert_eq!(done, 0);
    // SAFETY: the C library has put a string there.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_str().unwrap();
    let program = File::options().read(true).write(true).open(name).unwrap();
    (user, program)
}

/// Starts a machine on a terminal and returns the user's end, when its first dot has come.
fn on_terminal(folder: &Folder, code: &[u8]) -> (Running, File) {
    let (mut user, program) = terminal();
    let mut command = machine(folder, code);
    command
        .stdin(Stdio::from(program.try_clone().unwrap()))
        .stdout(Stdio::from(program))
        .stderr(Stdio::null());
    let running = Running::start(folder, &mut command);
    user.read_exact(&mut [0]).unwrap();
    (running, user)
}

#[test]
fn ctrl_a_x_ends_a_machine_whose_output_nobody_reads() {
    for code in [DOTS.to_vec(), prints_gigabytes()] {
        let folder = Folder::new("terminal");
        let (mut running, mut user) = on_terminal(&folder, &code);

        let start = Instant::now();
        // Help that has no room either comes before.
        user.write_all(b"\x01h\x01x").unwrap();
        let (took, status) = running.wait(start);

        assert_eq!(status.code(), Some(0));
        assert!(took < LIMIT, "{took:?}");
    }
}

#[test]
fn ctrl_a_x_ends_a_machine_behind_input_that_the_guest_does_not_read() {
    let folder = Folder::new("typed");
    let (mut running, mut user) = on_terminal(&folder, DEAF);
    user.write_all(&vec![b'y'; 300 << 10]).unwrap();

    let start = Instant::now();
    user.write_all(b"\x01x").unwrap();
    let (took, status) = running.wait(start);

    assert_eq!(status.code(), Some(0));
    assert!(took < LIMIT, "{took:?}");
}
