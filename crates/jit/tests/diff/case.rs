//! What one case is, and how it ended.

use super::segments::{self, CS};

/// Linear address of the instruction under test.
pub(crate) const CODE: u64 = 0x1000_0000 + 0x800;
/// First byte of the scratch memory; the pages before and after it are not mapped.
pub(crate) const DATA: u64 = 0x2000_0000;
/// Bytes of scratch memory.
pub(crate) const DATA_LEN: usize = 8192;

/// Register and memory state before or after the instruction.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct State {
    /// RAX to R15 in encoding order.
    pub(crate) gpr: [u64; 16],
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    /// The base of FS in 64-bit mode; elsewhere its descriptor says it.
    pub(crate) fs_base: u64,
    /// The base of GS in 64-bit mode.
    pub(crate) gs_base: u64,
    /// ES, CS, SS, DS, FS, GS outside 64-bit mode, in encoding order.
    pub(crate) selectors: [u16; 6],
    /// FXSAVE image: x87, MXCSR, XMM.
    pub(crate) fx: Fx,
    /// Bits 255:128 of YMM0 to YMM15: zero, and not looked at, where the host has no AVX.
    pub(crate) high: [[u8; 16]; 16],
    /// Scratch memory at [`DATA`].
    pub(crate) data: [u8; DATA_LEN],
}

impl State {
    /// All zero, at [`CODE`], with no exception of floating point unmasked.
    pub(crate) const fn empty() -> Self {
        let fx = Fx {
            control: 0x37f,
            status: 0,
            tags: 0xff,
            reserved: 0,
            fop: 0,
            fip: 0,
            fdp: 0,
            mxcsr: 0x1f80,
            mxcsr_mask: 0,
            st: [[0; 16]; 8],
            xmm: [[0; 16]; 16],
            rest: [0; 96],
        };
        Self {
            gpr: [0; 16],
            rip: CODE,
            rflags: 2,
            fs_base: 0,
            gs_base: 0,
            selectors: [0; 6],
            fx,
            high: [[0; 16]; 16],
            data: [0; DATA_LEN],
        }
    }
}

/// The FXSAVE image of 64-bit mode (SDM Vol. 1, 10.5.1).
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Fx {
    pub(crate) control: u16,
    pub(crate) status: u16,
    pub(crate) tags: u8,
    pub(crate) reserved: u8,
    pub(crate) fop: u16,
    pub(crate) fip: u64,
    pub(crate) fdp: u64,
    pub(crate) mxcsr: u32,
    pub(crate) mxcsr_mask: u32,
    /// ST(0) to ST(7) or MM0 to MM7, 10 bytes each.
    pub(crate) st: [[u8; 16]; 8],
    pub(crate) xmm: [[u8; 16]; 16],
    pub(crate) rest: [u8; 96],
}

/// An exception: vector, error code, CR2 of page faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct Fault {
    pub(crate) vector: u64,
    pub(crate) code: u64,
    pub(crate) address: u64,
}

/// Vector of [`Fault`] when the instruction retired.
pub(crate) const RETIRED: u64 = u64::MAX;

/// Bytes that code may have: those of twelve instructions.
pub(crate) const CODE_ROOM: usize = 192;

/// Code, of one instruction or of several, with the state it starts from and, once run, the state
/// it ended in.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Case {
    pub(crate) mode: Mode,
    pub(crate) code: [u8; CODE_ROOM],
    pub(crate) code_len: usize,
    /// Whether it may store to its own page. What it then is, is in `code` at the end.
    pub(crate) writes_code: bool,
    pub(crate) state: State,
    pub(crate) fault: Fault,
}

/// What code the instruction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Mode {
    Bits16 = 16,
    Bits32 = 32,
    Bits64 = 64,
}

impl Mode {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Bits64, Self::Bits32, Self::Bits16];

    /// The width of code.
    pub(crate) const fn bits(self) -> u32 {
        self as u32
    }

    pub(crate) fn is_64(self) -> bool {
        self == Self::Bits64
    }

    /// General-purpose and vector registers that instructions can name.
    pub(crate) fn registers(self) -> usize {
        if self.is_64() { 16 } else { 8 }
    }

    /// The bits of a general-purpose register that the mode keeps: the upper halves are undefined
    /// outside 64-bit mode (SDM Vol. 1, 3.4.1.1).
    pub(crate) fn register_mask(self) -> u64 {
        if self.is_64() { u64::MAX } else { 0xffff_ffff }
    }
}

impl State {
    /// Base of a segment as the mode sees it.
    pub(crate) fn base(&self, mode: Mode, segment: usize) -> u64 {
        match (mode, segment) {
            (Mode::Bits64, segments::FS) => self.fs_base,
            (Mode::Bits64, segments::GS) => self.gs_base,
            (Mode::Bits64, _) => 0,
            _ => segments::find(self.selectors[segment]).map_or(0, |found| found.base),
        }
    }
}

impl Case {
    /// A case of some code that has not been run.
    pub(crate) fn new(mode: Mode, bytes: &[u8], state: State) -> Self {
        let mut code = [0xcc; CODE_ROOM];
        code[..bytes.len()].copy_from_slice(bytes);
        let fault = Fault { vector: RETIRED, code: 0, address: 0 };
        Self { mode, code, code_len: bytes.len(), writes_code: false, state, fault }
    }

    /// The instruction pointer that the case begins with.
    pub(crate) fn entry(&self) -> u64 {
        CODE - self.state.base(self.mode, CS)
    }

    /// The bytes of the code.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.code[..self.code_len]
    }
}
