//! The host's x87 unit, one instruction at a time.

use cloister_float::{F80, Flags};

/// What one instruction left behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct After {
    /// The status word.
    pub(super) status: u16,
    /// ST(0) to ST(7).
    pub(super) stack: [F80; 8],
    /// The memory operand.
    pub(super) memory: [u8; 16],
}

impl After {
    pub(super) fn flags(&self) -> Flags {
        Flags::from_bits_truncate(self.status as u8)
    }

    pub(super) fn c1(&self) -> bool {
        self.status & 1 << 9 != 0
    }
}

/// Memory for one run. FNSAVE neither waits nor faults, so that unmasked exceptions never become
/// #MF.
#[repr(C, align(16))]
pub(super) struct Frame {
    pub(super) st0: [u8; 16],
    pub(super) st1: [u8; 16],
    pub(super) memory: [u8; 16],
    pub(super) save: [u8; 112],
    pub(super) control: u16,
}

impl Frame {
    pub(super) fn new(control: u16, st0: F80, st1: F80, memory: [u8; 16]) -> Self {
        let widen = |x: F80| {
            let mut bytes = [0; 16];
            bytes[..10].copy_from_slice(&x.to_bytes());
            bytes
        };
        Self { st0: widen(st0), st1: widen(st1), memory, save: [0; 112], control }
    }

    pub(super) fn after(&self) -> After {
        let stack = core::array::from_fn(|i| {
            let at = 28 + 10 * i;
            let mut bytes = [0; 10];
            bytes.copy_from_slice(&self.save[at..at + 10]);
            F80::from_bytes(bytes)
        });
        After {
            status: u16::from_le_bytes([self.save[4], self.save[5]]),
            stack,
            memory: self.memory,
        }
    }
}

/// A function that runs the instruction with ST(0), ST(1) and a memory operand at [rdi].
macro_rules! x87 {
    ($instruction:literal) => {
        |control: u16, st0: F80, st1: F80, memory: [u8; 16]| -> After {
            let mut frame = Frame::new(control, st0, st1, memory);
            // SAFETY: the instruction touches the x87 stack and the frame's memory operand; FNSAVE
            // leaves the unit initialized and its stack empty.
            unsafe {
                core::arch::asm!(
                    "fninit",
                    "fld tbyte ptr [{st1}]",
                    "fld tbyte ptr [{st0}]",
                    "fldcw word ptr [{control}]",
                    $instruction,
                    "fnsave [{save}]",
                    st0 = in(reg) &raw const frame.st0,
                    st1 = in(reg) &raw const frame.st1,
                    control = in(reg) &raw const frame.control,
                    save = in(reg) &raw mut frame.save,
                    in("rdi") &raw mut frame.memory,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    options(nostack),
                );
            }
            frame.after()
        }
    };
}

pub(super) use x87;

/// Such a function.
pub(super) type Processor = fn(u16, F80, F80, [u8; 16]) -> After;
