//! Runs cases on the host CPU, in a child process that lives inside its own signal handler.
//!
//! The child raises one breakpoint. The handler then loads the first case into the interrupted
//! context and returns: the kernel puts every register in place, the instruction runs, and the
//! breakpoint after it (or its fault) enters the handler again with the state that it left.
//!
//! CS and SS are part of that context, so 16-bit and 32-bit code runs in the same way, in segments
//! of a local descriptor table. The other segment registers are the handler's to load and to save.
#![expect(unsafe_code, reason = "executes generated machine code in a child process")]

use std::ptr;

use super::case::{CODE, CODE_ROOM, Case, DATA, DATA_LEN, Fault, Fx, Mode, RETIRED};
use super::segments;

/// Cases handed over at once.
pub(crate) const BATCH: usize = 256;
const PAGE: usize = 4096;
const CODE_PAGE: u64 = CODE & !0xfff;

/// What parent and child share.
#[repr(C)]
struct Exchange {
    count: usize,
    /// The case that runs: tells the parent which one killed the child.
    current: usize,
    cases: [Case; BATCH],
}

/// The child process and the memory shared with it.
pub(crate) struct Native {
    exchange: *mut Exchange,
    child: libc::pid_t,
    to_child: libc::c_int,
    from_child: libc::c_int,
    has_ldt: bool,
}

impl Native {
    /// Whether the kernel lets the child have segments of its own, which 16-bit and 32-bit code
    /// needs.
    pub(crate) fn has_ldt(&self) -> bool {
        self.has_ldt
    }

    /// Starts the child.
    pub(crate) fn start() -> Self {
        // SAFETY: a fresh shared mapping, pipes, and a fork whose child only uses them.
        unsafe {
            let exchange = libc::mmap(
                ptr::null_mut(),
                size_of::<Exchange>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(exchange, libc::MAP_FAILED, "mmap");
            let exchange = exchange.cast::<Exchange>();
            let (mut down, mut up) = ([0; 2], [0; 2]);
            assert_eq!(libc::pipe(down.as_mut_ptr()), 0, "pipe");
            assert_eq!(libc::pipe(up.as_mut_ptr()), 0, "pipe");
            // The child inherits it.
            let has_ldt = load_ldt();
            let child = libc::fork();
            assert!(child >= 0, "fork");
            if child == 0 {
                libc::close(down[1]);
                libc::close(up[0]);
                serve(exchange, down[0], up[1]);
            }
            libc::close(down[0]);
            libc::close(up[1]);
            Self { exchange, child, to_child: down[1], from_child: up[0], has_ldt }
        }
    }

    /// Runs cases (at most [`BATCH`]) and replaces each state by the one that it led to.
    ///
    /// # Errors
    ///
    /// The number of the case that killed the child; a new child has to be started.
    pub(crate) fn run(&mut self, cases: &mut [Case]) -> Result<(), usize> {
        // SAFETY: the child touches the exchange only between the two bytes below.
        unsafe {
            let exchange = &mut *self.exchange;
            exchange.count = cases.len();
            exchange.cases[..cases.len()].copy_from_slice(cases);
            let mut byte = 1u8;
            libc::write(self.to_child, ptr::from_ref(&byte).cast(), 1);
            if libc::read(self.from_child, ptr::from_mut(&mut byte).cast(), 1) != 1 {
                return Err(exchange.current);
            }
            cases.copy_from_slice(&exchange.cases[..cases.len()]);
        }
        Ok(())
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: our own descriptors, child and mapping.
        unsafe {
            libc::close(self.to_child);
            libc::close(self.from_child);
            libc::kill(self.child, libc::SIGKILL);
            libc::waitpid(self.child, ptr::null_mut(), 0);
            libc::munmap(self.exchange.cast(), size_of::<Exchange>());
        }
    }
}

/// Fills the local descriptor table: whether the kernel took every entry. A kernel may have no
/// `modify_ldt`, or may refuse 16-bit segments.
fn load_ldt() -> bool {
    segments::TABLE.iter().enumerate().all(|(number, entry)| {
        // `struct user_desc` of modify_ldt(2).
        let description = [number as u32, entry.base as u32, entry.limit, entry.user_desc_flags()];
        let size = size_of_val(&description);
        // SAFETY: the kernel reads the description.
        unsafe { libc::syscall(libc::SYS_modify_ldt, 0x11, &raw const description, size) == 0 }
    })
}

static mut EXCHANGE: *mut Exchange = ptr::null_mut();
/// The code page, writable.
static mut CODE_WINDOW: *mut u8 = ptr::null_mut();
static mut HOME: Option<Home> = None;

/// The child's own context, to return to after a batch.
struct Home {
    gregs: [i64; 23],
    fx: Fx,
    bases: Option<Bases>,
    /// The base of FS, for [`ARCH_SET_FS`] where there are no `bases`.
    fs_base: u64,
}

/// Codes of arch_prctl(2).
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;

fn kernel_fs_base() -> u64 {
    let mut base = 0u64;
    // SAFETY: the kernel writes the base.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_FS, &raw mut base) };
    base
}

/// The bases of FS and GS, which signals neither save nor restore.
#[derive(Clone, Copy)]
struct Bases {
    fs: u64,
    gs: u64,
}

impl Bases {
    /// The bases now, or `None` where user mode cannot set them.
    fn current() -> Option<Self> {
        // SAFETY: AT_HWCAP2 says whether CR4.FSGSBASE is set.
        unsafe {
            if libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE == 0 {
                return None;
            }
            let (fs, gs);
            std::arch::asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs, out(reg) gs);
            Some(Self { fs, gs })
        }
    }

    /// Sets the bases: no thread-local storage until the old ones are back.
    unsafe fn set(self) {
        // SAFETY: only called where `current` succeeded.
        unsafe { std::arch::asm!("wrfsbase {}", "wrgsbase {}", in(reg) self.fs, in(reg) self.gs) }
    }
}

/// ES, CS, SS, DS, FS and GS, but for CS and SS, which the kernel saves.
fn data_selectors() -> [u16; 6] {
    let (es, ds, fs, gs): (u16, u16, u16, u16);
    // SAFETY: reads registers.
    unsafe {
        std::arch::asm!("mov {:x}, es", "mov {:x}, ds", "mov {:x}, fs", "mov {:x}, gs",
            out(reg) es, out(reg) ds, out(reg) fs, out(reg) gs, options(nomem, nostack));
    }
    [es, 0, 0, ds, fs, gs]
}

/// Loads ES, DS, FS and GS: no thread-local storage until the bases are back.
unsafe fn set_data_selectors(selectors: [u16; 6]) {
    let [es, _, _, ds, fs, gs] = selectors;
    // SAFETY: 64-bit code does not use ES and DS, and the caller sees to FS and GS.
    unsafe {
        std::arch::asm!("mov es, {:x}", "mov ds, {:x}", "mov fs, {:x}", "mov gs, {:x}",
            in(reg) es, in(reg) ds, in(reg) fs, in(reg) gs, options(nostack));
    }
}

/// Linux sets this bit of AT_HWCAP2 where user mode may use RDFSBASE and its relatives.
pub(crate) const HWCAP2_FSGSBASE: u64 = 2;

/// The child: never returns.
unsafe fn serve(exchange: *mut Exchange, from: libc::c_int, to: libc::c_int) -> ! {
    // SAFETY: the child has this process for itself.
    unsafe {
        EXCHANGE = exchange;
        let fixed = |address: u64, len: usize, prot, flags, file| {
            let at = libc::mmap(address as *mut _, len, prot, flags, file, 0);
            assert_eq!(at as u64, address, "mmap");
        };
        // The code page is written through another mapping, so that no case changes it.
        let memory = libc::memfd_create(c"code".as_ptr(), 0);
        assert!(memory >= 0 && libc::ftruncate(memory, PAGE as libc::off_t) == 0, "memfd");
        let writable = libc::mmap(
            ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            memory,
            0,
        );
        assert_ne!(writable, libc::MAP_FAILED, "mmap");
        CODE_WINDOW = writable.cast();
        ptr::write_bytes(CODE_WINDOW, 0xcc, PAGE);
        fixed(
            CODE_PAGE,
            PAGE,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE,
            memory,
        );
        fixed(
            DATA,
            DATA_LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
        );
        let stack_len = 1 << 17;
        let stack =
            libc::stack_t { ss_sp: libc::malloc(stack_len), ss_flags: 0, ss_size: stack_len };
        libc::sigaltstack(&raw const stack, ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGBUS] {
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
        let mut byte = 0u8;
        while libc::read(from, ptr::from_mut(&mut byte).cast(), 1) == 1 {
            (*exchange).current = 0;
            // An instruction that never ends kills the child; the parent names the case.
            libc::alarm(10);
            std::arch::asm!("int3");
            libc::alarm(0);
            libc::write(to, ptr::from_ref(&byte).cast(), 1);
        }
        libc::_exit(0);
    }
}

/// Order of general-purpose registers in `gregs`, for RAX to R15.
const GREG: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn on_signal(
    _signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid context; the exchange is mapped; only this thread runs. The
    // assembly changes NT, AC and ID alone.
    unsafe {
        // The kernel leaves NT and ID of this handler in force when it loads the next case: a POPF
        // of the last one must not reach it.
        std::arch::asm!("pushfq", "and qword ptr [rsp], {}", "popfq", const !0x24_4000_i32);
        let exchange = &mut *EXCHANGE;
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        let fx = &mut *machine.fpregs.cast::<Fx>();
        #[expect(static_mut_refs, reason = "the child has one thread")]
        if let Some(home) = &HOME {
            let ended = &mut exchange.cases[exchange.current];
            if ended.mode != Mode::Bits64 {
                ended.state.selectors = data_selectors();
                set_data_selectors([0; 6]);
                if home.bases.is_none() {
                    libc::syscall(libc::SYS_arch_prctl, ARCH_SET_FS, home.fs_base);
                }
            }
            if let Some(bases) = home.bases {
                let mut case_bases = bases;
                std::arch::asm!("rdfsbase {}", "rdgsbase {}",
                    out(reg) case_bases.fs, out(reg) case_bases.gs);
                bases.set();
                let state = &mut exchange.cases[exchange.current].state;
                if exchange.cases[exchange.current].mode == Mode::Bits64 {
                    (state.fs_base, state.gs_base) = (case_bases.fs, case_bases.gs);
                }
            }
            collect(&mut exchange.cases[exchange.current], machine, fx);
            exchange.current += 1;
            if exchange.current == exchange.count {
                machine.gregs.copy_from_slice(&home.gregs);
                *fx = home.fx;
                HOME = None;
                return;
            }
        } else {
            HOME = Some(Home {
                gregs: machine.gregs,
                fx: *fx,
                bases: Bases::current(),
                fs_base: kernel_fs_base(),
            });
        }
        let case = &exchange.cases[exchange.current];
        install(case, machine, fx);
        #[expect(static_mut_refs, reason = "the child has one thread")]
        let Some(home) = &HOME else { return };
        let segments = &mut machine.gregs[libc::REG_CSGSFS as usize];
        if case.mode == Mode::Bits64 {
            *segments = home.gregs[libc::REG_CSGSFS as usize];
            if home.bases.is_some() {
                Bases { fs: case.state.fs_base, gs: case.state.gs_base }.set();
            }
        } else {
            let selectors = case.state.selectors;
            *segments =
                i64::from(selectors[segments::CS]) | i64::from(selectors[segments::SS]) << 48;
            set_data_selectors(selectors);
        }
    }
}

/// Bit of the component that has the upper halves of the YMM registers.
const AVX_STATE: u64 = 4;
/// The kernel's magic number in the part of the image that is software's: an XSAVE header follows.
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;

/// Whether the kernel's image has an XSAVE header.
fn has_header(fx: &Fx) -> bool {
    fx.rest[48..52] == FP_XSTATE_MAGIC1.to_le_bytes()
}

/// XSTATE_BV of the image.
unsafe fn xsave_header(fx: *mut Fx) -> *mut u64 {
    // SAFETY: the header follows the 512 bytes that are always there.
    unsafe { fx.cast::<u8>().add(512).cast() }
}

/// XSTATE_BV of the image and the upper halves of the YMM registers, if it has them.
unsafe fn avx_state<'a>(fx: *mut Fx) -> Option<(&'a mut u64, &'a mut [[u8; 16]; 16])> {
    // SAFETY: the kernel says after its magic number which components the image has, in the
    // standard format, in which CPUID says where they are.
    unsafe {
        if !has_header(&*fx) || (*fx).rest[56] & AVX_STATE as u8 == 0 {
            return None;
        }
        let offset = std::arch::x86_64::__cpuid_count(0xd, 2).ebx as usize;
        Some((&mut *xsave_header(fx), &mut *fx.cast::<u8>().add(offset).cast()))
    }
}

/// Whether an exception has an error code (SDM Vol. 3A, table 6-1).
pub(crate) fn has_error_code(vector: u64) -> bool {
    matches!(vector, 8 | 10..=14 | 17)
}

unsafe fn collect(case: &mut Case, machine: &libc::mcontext_t, fx: &Fx) {
    let entry = case.entry();
    let greg = |n: i32| machine.gregs[n as usize] as u64;
    for (value, n) in case.state.gpr.iter_mut().zip(GREG) {
        *value = greg(n);
    }
    case.state.rip = greg(libc::REG_RIP);
    case.state.rflags = greg(libc::REG_EFL);
    if case.mode != Mode::Bits64 {
        let segments = greg(libc::REG_CSGSFS);
        case.state.selectors[segments::CS] = segments as u16;
        case.state.selectors[segments::SS] = (segments >> 48) as u16;
    }
    let vector = greg(libc::REG_TRAPNO);
    case.fault = Fault {
        vector,
        code: if has_error_code(vector) { greg(libc::REG_ERR) } else { 0 },
        address: if vector == 14 { greg(libc::REG_CR2) } else { 0 },
    };
    if vector == 3 && (!case.bytes().contains(&0xcc) || case.state.rip != entry + 1) {
        case.fault.vector = RETIRED;
        case.state.rip -= 1;
    }
    if vector == 14 && case.fault.code & 0x10 != 0 && case.state.rip != entry {
        // A branch to where there is no code has retired; the fetch after it faults.
        case.fault = Fault { vector: RETIRED, code: 0, address: 0 };
    }
    let rest = case.state.fx.rest;
    case.state.fx = *fx;
    case.state.fx.rest = rest;
    // SAFETY: the kernel's image.
    if let Some((header, high)) = unsafe { avx_state(ptr::from_ref(fx).cast_mut()) } {
        // A component in its initial configuration is not in the image.
        case.state.high = if *header & AVX_STATE != 0 { *high } else { [[0; 16]; 16] };
    }
    // SAFETY: mapped in `serve`.
    unsafe {
        ptr::copy_nonoverlapping(DATA as *const u8, case.state.data.as_mut_ptr(), DATA_LEN);
        let at = CODE_WINDOW.add((CODE & 0xfff) as usize);
        if case.writes_code {
            ptr::copy_nonoverlapping(at, case.code.as_mut_ptr(), CODE_ROOM);
            ptr::write_bytes(CODE_WINDOW, 0xcc, PAGE);
            let rights = libc::PROT_READ | libc::PROT_EXEC;
            assert_eq!(libc::mprotect(CODE_PAGE as *mut _, PAGE, rights), 0, "mprotect");
        } else {
            ptr::write_bytes(at, 0xcc, case.code_len);
        }
    }
}

unsafe fn install(case: &Case, machine: &mut libc::mcontext_t, fx: &mut Fx) {
    for (value, n) in case.state.gpr.iter().zip(GREG) {
        machine.gregs[n as usize] = *value as i64;
    }
    machine.gregs[libc::REG_RIP as usize] = case.entry() as i64;
    machine.gregs[libc::REG_EFL as usize] = case.state.rflags as i64;
    // The tail of the image says which extended state follows: keep the kernel's, but say that
    // x87 and SSE state are not in their initial configuration.
    let rest = fx.rest;
    *fx = case.state.fx;
    fx.rest = rest;
    // SAFETY: mapped in `serve`, and the kernel's image.
    unsafe {
        if has_header(fx) {
            *xsave_header(fx) |= 3;
        }
        if let Some((header, high)) = avx_state(fx) {
            *header |= AVX_STATE;
            *high = case.state.high;
        }
        ptr::copy_nonoverlapping(case.state.data.as_ptr(), DATA as *mut u8, DATA_LEN);
        let at = CODE_WINDOW.add((CODE & 0xfff) as usize);
        ptr::copy_nonoverlapping(case.code.as_ptr(), at, case.code_len);
        if case.writes_code {
            let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            assert_eq!(libc::mprotect(CODE_PAGE as *mut _, PAGE, rights), 0, "mprotect");
        }
    }
}
