//! Which thread may do what.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fmt;
use std::os::fd::RawFd;

use cloister_devices::{Node, WorkThread};
use cloister_fs::ITSELF;
use libc::{c_int, c_long};
use rustix::fs::AtFlags;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op,
    SeccompCondition as Condition, SeccompFilter, SeccompRule, TargetArch,
};

use super::SandboxError;
use crate::accel::Ioctls;

/// What a thread is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadKind {
    /// Starts the others and waits for them; what it may not do, none of them may.
    Main,
    /// Runs a processor, and answers at the registers of its devices.
    Vcpu,
    /// Does the work of devices.
    Io,
    /// Is a device's own, of this name.
    Device(&'static str),
    /// Reads what is typed, or what the client of the console's socket sends.
    Console,
    /// Copies a stream of a command.
    Stream,
    /// Waits for signals.
    Signals,
    /// Serves a client of the monitor.
    Qmp,
    /// Serves a debugger.
    Gdb,
}

impl ThreadKind {
    /// Those of every process.
    const ALWAYS: [Self; 8] = [
        Self::Main,
        Self::Vcpu,
        Self::Io,
        Self::Console,
        Self::Stream,
        Self::Signals,
        Self::Qmp,
        Self::Gdb,
    ];

    /// Its name in messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Vcpu => "vcpu",
            Self::Io => "io",
            Self::Device(name) => name,
            Self::Console => "console",
            Self::Stream => "stream",
            Self::Signals => "signals",
            Self::Qmp => "qmp",
            Self::Gdb => "gdb",
        }
    }

    /// What it may do beyond [`EVERY_THREAD`].
    fn calls(self) -> Vec<&'static [c_long]> {
        match self {
            Self::Main => {
                vec![START_THREADS, DISKS, FILES, READ, NOTIFY, CLIENTS, HALVES, LEAVE_TERMINAL]
            }
            Self::Vcpu => vec![BARRIER],
            Self::Io => vec![READ],
            Self::Device(_) => vec![NOTIFY],
            Self::Console => vec![READ, NOTIFY, CLIENTS],
            Self::Stream => vec![READ, HALVES],
            Self::Signals => vec![READ, NOTIFY],
            Self::Qmp | Self::Gdb => vec![READ, NOTIFY, CLIENTS],
        }
    }
}

impl ThreadKind {
    /// The requests of the accelerator that it makes. Every thread may be at a device's registers, or have
    /// something for the guest, and so raise an interrupt.
    fn ioctls(self, of: &Ioctls) -> Vec<u64> {
        let own: &[&[u64]] = match self {
            Self::Main => &[of.setup, of.vcpu],
            Self::Vcpu => &[of.vcpu],
            Self::Io
            | Self::Device(_)
            | Self::Console
            | Self::Stream
            | Self::Signals
            | Self::Qmp
            | Self::Gdb => &[],
        };
        [own.concat(), of.every.to_vec()].concat()
    }
}

impl From<WorkThread> for ThreadKind {
    fn from(thread: WorkThread) -> Self {
        match thread {
            WorkThread::Io => Self::Io,
            WorkThread::Own(name) => Self::Device(name),
        }
    }
}

impl fmt::Display for ThreadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Memory, locks, time, the end of a thread, panics and log lines: what the standard library and
/// the C library do anywhere.
const EVERY_THREAD: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    // Before each write to what may not take it.
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_close,
];

/// Requests of disks, and imago's ways of doing them.
const DISKS: &[c_long] = &[
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
];

/// Other uses of open files, before a boot and between two.
const FILES: &[c_long] = &[libc::SYS_fstat, libc::SYS_lseek, libc::SYS_writev];

const READ: &[c_long] = &[libc::SYS_read, libc::SYS_readv];

/// Event counters, and stores that other processors have to see.
const NOTIFY: &[c_long] = &[libc::SYS_eventfd2, libc::SYS_membarrier];

/// Code that other processors may change while it is decoded.
const BARRIER: &[c_long] = &[libc::SYS_membarrier];

/// The end of a half of a stream.
const HALVES: &[c_long] = &[libc::SYS_shutdown];

/// Of a socket that listens already.
const CLIENTS: &[c_long] = &[libc::SYS_accept4];

/// Data on stream sockets that are connected, when they are ready, and connections that come from another
/// process. What is made for that is made by the thread that makes the devices, and no other needs to.
const SOCKETS: &[c_long] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
];

/// Beside the clone(2) of a thread.
const START_THREADS: &[c_long] = &[libc::SYS_set_tid_address];

/// Standard input and outputs of a daemon.
#[cfg(target_arch = "x86_64")]
const LEAVE_TERMINAL: &[c_long] = &[libc::SYS_dup2, libc::SYS_dup3];
#[cfg(not(target_arch = "x86_64"))]
const LEAVE_TERMINAL: &[c_long] = &[libc::SYS_dup3];

/// System calls that take the name of a file.
const NAMES: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    // A backtrace's.
    libc::SYS_getcwd,
];

/// Those that only old architectures have.
#[cfg(target_arch = "x86_64")]
const OLD_NAMES: &[c_long] =
    &[libc::SYS_open, libc::SYS_access, libc::SYS_readlink, libc::SYS_stat, libc::SYS_lstat];
#[cfg(not(target_arch = "x86_64"))]
const OLD_NAMES: &[c_long] = &[];

/// System calls that are not there.
const OPAQUE: &[c_long] = &[libc::SYS_clone3];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The host's, if there are filters for it.
pub(super) fn architecture() -> Result<TargetArch, SandboxError> {
    ARCH.try_into().map_err(|_| SandboxError::Architecture)
}

/// Refuses what takes the name of a file, and allows all else.
pub(super) fn names(architecture: TargetArch) -> Result<BpfProgram, SandboxError> {
    let rules = NAMES.iter().chain(OLD_NAMES).map(|&call| (call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EACCES as u32);
    program(architecture, rules, SeccompAction::Allow, refused).map_err(failed(ThreadKind::Main))
}

/// Says of calls whose arguments no filter can judge, since they are in memory, that the kernel does
/// not have them: the C library then makes the older call.
pub(super) fn opaque(architecture: TargetArch) -> Result<BpfProgram, SandboxError> {
    let rules = OPAQUE.iter().map(|&call| (call, Vec::new())).collect();
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    program(architecture, rules, SeccompAction::Allow, missing).map_err(failed(ThreadKind::Main))
}

/// utimensat(2), of which a process beside the machine's may only have the form without a path: by that of
/// [`ITSELF`], whose place in memory cannot come to hold another.
pub(crate) const TIMES_OF_OPEN_FILES: c_long = libc::SYS_utimensat;

/// For a process beside the machine's, with one thread that works on no device's files: allows `calls` and
/// what every thread needs; anything else ends it.
pub(super) fn of_process(
    architecture: TargetArch,
    calls: &[c_long],
) -> Result<BpfProgram, BackendError> {
    let mut rules = conditional(&Files::default())?;
    rules.extend(calls.iter().chain(EVERY_THREAD).map(|&call| (call, Vec::new())));
    if let Some(times) = rules.get_mut(&TIMES_OF_OPEN_FILES) {
        let itself = ITSELF.as_ptr().expose_provenance() as u64;
        let by_descriptor = Condition::new(1, Len::Qword, Op::Eq, itself)?;
        let empty = AtFlags::EMPTY_PATH.bits().into();
        let of_itself = Condition::new(3, Len::Dword, Op::Eq, empty)?;
        times.push(SeccompRule::new(vec![by_descriptor, of_itself])?);
    }
    program(architecture, rules, SeccompAction::KillProcess, SeccompAction::Allow)
}

/// For a command that runs no machine: allows `calls`, what every thread needs, and the start of threads where
/// it is asked for; anything else ends it. What [`names`] and [`opaque`] judge is left to them.
pub(super) fn of_command(
    architecture: TargetArch,
    calls: &[c_long],
    starts_threads: bool,
) -> Result<BpfProgram, BackendError> {
    let mut rules = conditional(&Files::default())?;
    let lists = [calls, EVERY_THREAD, NAMES, OLD_NAMES, OPAQUE];
    rules.extend(lists.iter().copied().flatten().map(|&call| (call, Vec::new())));
    if starts_threads {
        rules.extend(start_threads()?);
        rules.extend(START_THREADS.iter().map(|&call| (call, Vec::new())));
    }
    program(architecture, rules, SeccompAction::KillProcess, SeccompAction::Allow)
}

/// For each kind of thread of a process whose machine has `devices`, allows what it needs; anything else
/// raises SIGSYS.
pub(super) fn by_kind<'a>(
    architecture: TargetArch,
    devices: impl IntoIterator<Item = &'a Node>,
    ioctls: &Ioctls,
) -> Result<Vec<(ThreadKind, BpfProgram)>, SandboxError> {
    let threads = threads(devices);
    let files = Files::of_all(&threads);
    let sockets = threads.iter().any(|(_, reach)| reach.sockets);
    let taps: Vec<RawFd> = threads.iter().flat_map(|(_, reach)| &reach.taps).copied().collect();
    let tap_queues: Vec<RawFd> =
        threads.iter().flat_map(|(_, reach)| &reach.tap_queues).copied().collect();
    let mut programs = Vec::with_capacity(threads.len());
    for (kind, mut own) in threads {
        // What it may not do, none of them may.
        if kind == ThreadKind::Main {
            own.sockets |= sockets;
            own.taps.clone_from(&taps);
            own.tap_queues.clone_from(&tap_queues);
        }
        let rules = rules(kind, &own, &files, ioctls).map_err(failed(kind))?;
        let program = program(architecture, rules, SeccompAction::Trap, SeccompAction::Allow);
        programs.push((kind, program.map_err(failed(kind))?));
    }
    Ok(programs)
}

/// What of the host the devices' work is on.
#[derive(Default)]
struct Reach {
    files: Files,
    /// Stream sockets.
    sockets: bool,
    /// Interfaces of the host.
    taps: Vec<RawFd>,
    /// Further queues of them.
    tap_queues: Vec<RawFd>,
}

/// The kinds of threads, and what of the host the devices reach there.
fn threads<'a>(devices: impl IntoIterator<Item = &'a Node>) -> Vec<(ThreadKind, Reach)> {
    let mut threads = Vec::from(ThreadKind::ALWAYS.map(|kind| (kind, Reach::default())));
    for work in devices.into_iter().filter_map(|node| node.work.as_ref()) {
        let kind = work.thread.into();
        let known = threads.iter().position(|&(known, _)| known == kind);
        let at = known.unwrap_or_else(|| {
            threads.push((kind, Reach::default()));
            threads.len() - 1
        });
        let reach = &mut threads[at].1;
        reach.files.0.extend(&work.files);
        reach.sockets |= work.sockets;
        reach.taps.extend(&work.taps);
        reach.tap_queues.extend(&work.tap_queues);
    }
    threads
}

/// Open files of devices.
#[derive(Default)]
struct Files(Vec<RawFd>);

impl Files {
    fn of_all(threads: &[(ThreadKind, Reach)]) -> Self {
        Self(threads.iter().flat_map(|(_, reach)| &reach.files.0).copied().collect())
    }

    /// A rule for each file: that argument `number` is its descriptor.
    fn named_by(&self, number: u8) -> Result<Vec<SeccompRule>, BackendError> {
        let named = |&file: &RawFd| SeccompRule::new(vec![is(number, Op::Eq, file as u64)?]);
        self.0.iter().map(named).collect()
    }

    /// A rule: that argument `number` is the descriptor of none, and what `also` says.
    fn not_named_by(
        &self,
        number: u8,
        also: Vec<Condition>,
    ) -> Result<Vec<SeccompRule>, BackendError> {
        let other = self.0.iter().map(|&file| is(number, Op::Ne, file as u64));
        let conditions = other.chain(also.into_iter().map(Ok)).collect::<Result<Vec<_>, _>>()?;
        // No rule allows everything, and no rule may be empty.
        if conditions.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![SeccompRule::new(conditions)?])
    }
}

/// Compares the low 32 bits of an argument: what the kernel takes of a descriptor or an option.
fn is(number: u8, op: Op, value: u64) -> Result<Condition, BackendError> {
    Condition::new(number, Len::Dword, op, value & u64::from(u32::MAX))
}

fn failed(kind: ThreadKind) -> impl Fn(BackendError) -> SandboxError {
    move |reason| SandboxError::Filter { kind, reason }
}

fn program(
    architecture: TargetArch,
    rules: Rules,
    mismatch: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, mismatch, matched, architecture)?.try_into()
}

/// What a kind of thread may do that works on `own` of the devices' `files`, with an accelerator that takes
/// these requests.
fn rules(
    kind: ThreadKind,
    own: &Reach,
    files: &Files,
    ioctls: &Ioctls,
) -> Result<Rules, BackendError> {
    // The main thread reads the disk that is booted, in any way.
    let guarded = if kind == ThreadKind::Main { &Files::default() } else { files };
    let mut rules = conditional(guarded)?;
    if kind == ThreadKind::Main {
        rules.extend(start_threads()?);
    }
    if !own.files.0.is_empty() {
        for &call in DISKS {
            rules.insert(call, own.files.named_by(0)?);
        }
    }
    // imago lets an image grow so. The main thread's list bounds all others, and no other file changes its size.
    let growing = if kind == ThreadKind::Main { files } else { &own.files };
    if !growing.0.is_empty() {
        rules.insert(libc::SYS_ftruncate, growing.named_by(0)?);
    }
    if own.sockets {
        rules.extend(SOCKETS.iter().chain(CLIENTS).chain(HALVES).map(|&call| (call, Vec::new())));
        // To the other end of a connection alone, and never to a name.
        let connected = Condition::new(4, Len::Qword, Op::Eq, 0)?;
        rules.insert(libc::SYS_sendto, vec![SeccompRule::new(vec![connected])?]);
    }
    let requests = rules.entry(libc::SYS_ioctl).or_default();
    let of_taps = own.taps.iter().map(|&tap| (tap, libc::TUNSETOFFLOAD));
    for (tap, request) in of_taps.chain(own.tap_queues.iter().map(|&tap| (tap, libc::TUNSETQUEUE)))
    {
        let (one, request) = (is(0, Op::Eq, tap as u64)?, is(1, Op::Eq, request)?);
        requests.push(SeccompRule::new(vec![one, request])?);
    }
    for request in kind.ioctls(ioctls) {
        requests.push(SeccompRule::new(vec![is(1, Op::Eq, request)?])?);
    }
    let lists = kind.calls().into_iter().chain([EVERY_THREAD, NAMES, OLD_NAMES, OPAQUE]);
    rules.extend(lists.flatten().map(|&call| (call, Vec::new())));
    Ok(rules)
}

/// System calls that depend on their arguments, in threads whose lists do not have them. None of them
/// reaches the `files` of devices.
fn conditional(files: &Files) -> Result<Rules, BackendError> {
    let argument = |number: u8, op: Op, value: u64| SeccompRule::new(vec![is(number, op, value)?]);
    let executable = Op::MaskedEq(libc::PROT_EXEC as u64);
    let by_descriptor = Op::MaskedEq(libc::AT_EMPTY_PATH as u64);
    let descriptor = libc::AT_EMPTY_PATH as u64;
    let this_process = u64::from(std::process::id());
    let one_of = |number: u8, values: &[u64]| {
        values.iter().map(|&value| argument(number, Op::Eq, value)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Rules::from([
        (libc::SYS_write, files.not_named_by(0, Vec::new())?),
        // No thread makes code.
        (libc::SYS_mmap, files.not_named_by(4, vec![is(2, executable.clone(), 0)?])?),
        (libc::SYS_mprotect, vec![argument(2, executable, 0)?]),
        // A panic that aborts.
        (libc::SYS_tgkill, vec![argument(0, Op::Eq, this_process)?]),
        (libc::SYS_newfstatat, vec![argument(3, by_descriptor.clone(), descriptor)?]),
        (libc::SYS_statx, vec![argument(2, by_descriptor, descriptor)?]),
        // A terminal is looked at, and given its settings back.
        (libc::SYS_ioctl, one_of(1, TERMINAL)?),
        (libc::SYS_prctl, one_of(0, THREAD_SETTINGS)?),
        // Whether a descriptor is open, which builds with checks ask before they close it, and another
        // of the same file.
        (libc::SYS_fcntl, {
            let mut rules = vec![argument(1, Op::Eq, libc::F_GETFD as u64)?];
            let copy = is(1, Op::Eq, libc::F_DUPFD_CLOEXEC as u64)?;
            rules.extend(files.not_named_by(0, vec![copy])?);
            rules
        }),
        // Filters are added, never taken away, and report to nobody.
        (
            libc::SYS_seccomp,
            vec![SeccompRule::new(vec![
                Condition::new(0, Len::Dword, Op::Eq, libc::SECCOMP_SET_MODE_FILTER.into())?,
                Condition::new(1, Len::Qword, Op::Eq, 0)?,
            ])?],
        ),
    ]))
}

/// What starts a thread, and neither a process nor a namespace; and the look at a limit of this process,
/// which the C library takes for the size of a stack.
fn start_threads() -> Result<Rules, BackendError> {
    let of_a_thread = |flags: c_int| {
        Condition::new(0, Len::Qword, Op::Eq, flags as u64)
            .and_then(|one| SeccompRule::new(vec![one]))
    };
    Ok(Rules::from([
        (
            libc::SYS_clone,
            // musl says besides that nobody waits for it.
            vec![of_a_thread(THREAD)?, of_a_thread(THREAD | libc::CLONE_DETACHED)?],
        ),
        (
            libc::SYS_prlimit64,
            vec![SeccompRule::new(vec![
                Condition::new(0, Len::Dword, Op::Eq, 0)?,
                // No new limit.
                Condition::new(2, Len::Qword, Op::Eq, 0)?,
            ])?],
        ),
    ]))
}

/// The flags of clone(2) that C libraries start a thread with.
const THREAD: c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;

/// Requests of ioctl(2).
const TERMINAL: &[u64] =
    &[libc::TCGETS, libc::TCSETS, libc::TCGETS2, libc::TCSETS2, libc::TIOCGWINSZ];

/// Options of prctl(2): a thread's name, and what a filter begins with.
const THREAD_SETTINGS: &[u64] =
    &[libc::PR_SET_NAME as u64, libc::PR_SET_NO_NEW_PRIVS as u64, PR_SET_VMA];

/// Names of memory, which some allocators set.
const PR_SET_VMA: u64 = 0x5356_4d41;

#[cfg(test)]
mod tests {
    use cloister_devices::Rtc;
    use cloister_devices::virtio::MmioTransport;

    use super::*;

    #[test]
    fn the_list_of_devices_says_which_threads_there_are_and_which_of_them_reach_disks() {
        let slot = |index| MmioTransport::node(index, "device", 0xd000_0000, 12);
        let bare = [slot(0)];
        let full = [slot(0).with_file(7), Rtc::node(), slot(1).with_file(8)];
        let of = |devices: &[Node], kind| {
            let threads = threads(devices);
            let found = threads.into_iter().find(|&(known, _)| known == kind);
            found.map(|(_, reach)| rules(kind, &reach, &reach.files, &Ioctls::default()).unwrap())
        };

        let (without, with) = (of(&bare, ThreadKind::Io), of(&full, ThreadKind::Io));

        assert!(!without.unwrap().contains_key(&libc::SYS_pread64));
        // A rule for each of them.
        assert_eq!(with.unwrap()[&libc::SYS_pread64].len(), 2);
        for (devices, count) in [(&bare[..], None), (&full, Some(2))] {
            let all = Files::of_all(&threads(devices));
            let main =
                rules(ThreadKind::Main, &Reach::default(), &all, &Ioctls::default()).unwrap();
            assert_eq!(main.get(&libc::SYS_ftruncate).map(Vec::len), count);
        }
        let connected = [slot(0).with_sockets()];
        for (kind, calls) in [(ThreadKind::Io, true), (ThreadKind::Vcpu, false)] {
            assert!(!of(&bare, kind).unwrap().contains_key(&libc::SYS_recvmsg));
            assert_eq!(of(&connected, kind).unwrap().contains_key(&libc::SYS_recvmsg), calls);
        }
        // Beside those of terminals.
        for (queues, calls) in [(&[9][..], 1), (&[9, 10, 11], 3)] {
            let tapped = [slot(0).with_tap(queues)];
            for (kind, calls) in [(ThreadKind::Io, calls), (ThreadKind::Vcpu, 0)] {
                let rules = of(&tapped, kind).unwrap();
                assert_eq!(rules[&libc::SYS_ioctl].len(), TERMINAL.len() + calls);
            }
        }
        let ioctls = Ioctls { setup: &[1], vcpu: &[2, 3], every: &[4] };
        let none = (Reach::default(), Files::default());
        for (kind, count) in [
            (ThreadKind::Main, 4),
            (ThreadKind::Vcpu, 3),
            (ThreadKind::Io, 1),
            (ThreadKind::Qmp, 1),
        ] {
            let rules = rules(kind, &none.0, &none.1, &ioctls).unwrap();
            assert_eq!(rules[&libc::SYS_ioctl].len(), TERMINAL.len() + count, "{kind}");
        }
        assert!(of(&bare, ThreadKind::Device("rtc")).is_none());
        assert!(of(&full, ThreadKind::Device("rtc")).is_some());
    }
}
