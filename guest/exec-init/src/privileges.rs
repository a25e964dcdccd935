//! What a container's process may do: limits, capabilities(7), and no more by any program that it runs.
#![expect(unsafe_code, reason = "std has no form of these calls")]

use std::io::{Error, Result};

use libc::{c_int, c_ulong};

use crate::settings::Container;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION_3: u32 = 0x2008_0522;
/// Numbers of capabilities that a set has room for.
const NUMBERS: u32 = 64;

/// All of it, ready for a child that may allocate nothing.
#[derive(Debug)]
pub(crate) struct Rights {
    limits: Vec<(u32, u64, u64)>,
    /// Bounding, effective, permitted, inheritable, ambient.
    capabilities: [u64; 5],
    no_new_privileges: bool,
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// `struct __user_cap_data_struct`, of which there are two: one for each half.
#[repr(C)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Rights {
    pub(crate) fn of(container: &Container) -> Self {
        Self {
            limits: container.limits.clone(),
            capabilities: container.capabilities,
            no_new_privileges: container.no_new_privileges,
        }
    }

    /// Gives the calling process these rights and no others, and in between has it become its user.
    pub(crate) fn take(&self, become_user: impl Fn() -> Result<()>) -> Result<()> {
        let [bounding, effective, permitted, inheritable, ambient] = self.capabilities;
        for &(which, soft, hard) in &self.limits {
            let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
            // SAFETY: the kernel reads a limit.
            check(unsafe { libc::setrlimit(which, &raw const limit) })?;
        }
        for number in (0..NUMBERS).filter(|number| bounding & 1 << number == 0) {
            // A kernel that does not know the number has nothing to drop.
            let _ = process_control(libc::PR_CAPBSET_DROP, number.into(), 0);
        }
        process_control(libc::PR_SET_KEEPCAPS, 1, 0)?;
        become_user()?;
        let half = |shift: u32| Half {
            effective: (effective >> shift) as u32,
            permitted: (permitted >> shift) as u32,
            inheritable: (inheritable >> shift) as u32,
        };
        let halves = [half(0), half(32)];
        let header = Header { version: VERSION_3, pid: 0 };
        // SAFETY: the kernel reads a header and two halves.
        let status = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
        check(status as c_int)?;
        for number in (0..NUMBERS).filter(|number| ambient & 1 << number != 0) {
            process_control(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE as c_ulong,
                number.into(),
            )?;
        }
        if self.no_new_privileges {
            process_control(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
        }
        Ok(())
    }
}

fn check(status: c_int) -> Result<()> {
    if status < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// prctl(2).
fn process_control(what: c_int, first: c_ulong, second: c_ulong) -> Result<()> {
    // SAFETY: what is asked for here takes integers alone.
    check(unsafe { libc::prctl(what, first, second, 0 as c_ulong, 0 as c_ulong) })
}
