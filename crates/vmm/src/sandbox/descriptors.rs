//! Open files that the process got from the one that started it.
#![expect(unsafe_code, reason = "deals with descriptors by their numbers")]

use std::ffi::OsStr;
use std::io;
use std::os::fd::RawFd;

use libc::{SYS_close_range, c_uint, syscall};

/// Standard input and outputs.
const STANDARD: [RawFd; 3] = [0, 1, 2];
/// How a command line names a descriptor of the process.
const NAMED_BY: [&str; 3] = ["/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"];

/// Descriptors that the command line names, still open.
#[derive(Debug, Default)]
pub struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Closes all that the process was started with but its standard input and outputs, and what
    /// `words` name by `/dev/fd/N`. To be called before the process opens anything.
    ///
    /// # Errors
    ///
    /// The host has no call for it.
    pub fn close<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> io::Result<Self> {
        let named = words.into_iter().flat_map(|word| named(&word.to_string_lossy())).collect();
        let this = Self(named);
        close_all_but(&[&STANDARD[..], &this.0].concat())?;
        for &descriptor in &this.0 {
            // No program that is run beside the machine gets it. One that is not open is refused by its name.
            // SAFETY: it takes integers alone.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        Ok(this)
    }

    /// Closes those that were named too, once what they name was opened by its name.
    pub fn close_named(self) {
        for descriptor in self.0 {
            close_range(descriptor as c_uint, descriptor as c_uint);
        }
    }
}

/// The descriptors that a word names.
fn named(word: &str) -> Vec<RawFd> {
    let after = NAMED_BY.iter().flat_map(|start| word.split(start).skip(1));
    let number = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok().filter(|number| !STANDARD.contains(number))
    };
    after.filter_map(number).collect()
}

/// Closes every descriptor of the process but these. No other may be in use.
pub(crate) fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<c_uint> = kept.iter().map(|&descriptor| descriptor as c_uint).collect();
    kept.sort_unstable();
    let mut first = 0;
    for descriptor in kept {
        if first < descriptor && !close_range(first, descriptor - 1) {
            return Err(io::Error::last_os_error());
        }
        first = first.max(descriptor + 1);
    }
    if close_range(first, c_uint::MAX) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn close_range(first: c_uint, last: c_uint) -> bool {
    // SAFETY: it takes integers alone, and nothing in this process owns a descriptor of the range: by
    // the contract of the callers all there are were there when the process began.
    unsafe { syscall(SYS_close_range, first, last, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_descriptors_as_the_shell_does() {
        for (word, descriptors) in [
            ("/dev/fd/63", &[63][..]),
            ("file=/dev/fd/5,if=virtio", &[5]),
            ("unix:/proc/self/fd/7/../8", &[7]),
            ("/dev/fd/1", &[]),
            ("/dev/fd/", &[]),
            ("/dev/fd/99999999999", &[]),
            ("/dev/null", &[]),
        ] {
            assert_eq!(named(word), descriptors, "{word}");
        }
    }
}
