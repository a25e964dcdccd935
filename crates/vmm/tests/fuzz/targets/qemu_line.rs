//! Lines of QEMU's options, and the machines that they ask for.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use cloister_vmm::cli::RunWording;
use cloister_vmm::complaint::Wording as _;
use cloister_vmm::qemu::{QemuWording, Request, parse};

/// A line whose words are separated by line feeds.
pub(crate) fn qemu_line(data: &[u8]) {
    let words = || data.split(|&byte| byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    match parse(words()) {
        Ok(request) => {
            assert_eq!(parse(words()).ok().as_ref(), Some(&request), "two readings differ");
            if let Request::Run(invocation) = request
                && let Err(error) = invocation.machine.layout()
            {
                one_line(&QemuWording.line(&error.complaint()));
                one_line(&RunWording.line(&error.complaint()));
            }
        }
        Err(error) => one_line(&error.to_string()),
    }
}

fn one_line(message: &str) {
    assert!(!message.is_empty());
    assert!(!message.chars().any(char::is_control), "not one line: {message:?}");
}
