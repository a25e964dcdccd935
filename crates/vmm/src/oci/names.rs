//! Names in config.json and on the command line, and their numbers: signals (signal(7)), capabilities
//! (capabilities(7)), limits (getrlimit(2)).

/// Signals from 1 on.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// Signals of real time, as programs see them, and the highest.
const REAL_TIME: (i32, i32) = (34, 64);

/// Capabilities from 0 on.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Limits from 0 on.
const LIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// The number of a signal: of `15`, `TERM`, `SIGTERM` or `RTMIN+3`.
pub(super) fn signal(text: &str) -> Result<i32, String> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let (lowest, highest) = REAL_TIME;
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse().ok() };
    let number = match name.parse() {
        Ok(number) => Some(number),
        Err(_) => match SIGNALS.iter().position(|known| *known == name) {
            Some(at) => i32::try_from(at + 1).ok(),
            None => match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
                (Some(more), _) => offset(more).and_then(|more: i32| lowest.checked_add(more)),
                (_, Some(less)) => offset(less).and_then(|less: i32| highest.checked_add(less)),
                _ => None,
            },
        },
    };
    let number = number.filter(|number| (1..=highest).contains(number));
    number.ok_or_else(|| {
        format!(
            "unknown signal {text:?}: write a number from 1 to {highest}, or a name such as TERM"
        )
    })
}

/// The set of capabilities with these names. Those that this program does not know are ignored, as runc does.
pub(super) fn capabilities(names: &[String]) -> u64 {
    let numbers = names.iter().filter_map(|name| {
        let name = name.strip_prefix("CAP_").unwrap_or(name);
        CAPABILITIES.iter().position(|known| *known == name)
    });
    numbers.fold(0, |set, number| set | 1 << number)
}

/// Names of all capabilities.
pub(super) fn capability_names() -> Vec<String> {
    CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect()
}

/// The number of a limit.
pub(super) fn limit(name: &str) -> Option<u32> {
    let name = name.strip_prefix("RLIMIT_")?;
    LIMITS.iter().position(|known| *known == name).and_then(|at| u32::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigusr1", libc::SIGUSR1),
            ("KILL", libc::SIGKILL),
            ("SIGSYS", libc::SIGSYS),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "SIG", "TERMS", "RTMIN+31", "RTMAX+1", "RTMIN-34"] {
            assert!(signal(text).unwrap_err().starts_with("unknown signal"), "{text}");
        }
    }

    #[test]
    fn capabilities_and_limits_have_the_kernels_numbers() {
        let names = ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE", "CAP_OF_TOMORROW"];

        assert_eq!(capabilities(&names.map(str::to_owned)), 1 | 1 << 21 | 1 << 40);
        assert_eq!(limit("RLIMIT_NOFILE"), Some(libc::RLIMIT_NOFILE));
        assert_eq!(limit("RLIMIT_RTTIME"), Some(libc::RLIMIT_RTTIME));
        assert_eq!(limit("RLIMIT_PATIENCE"), None);
    }
}
