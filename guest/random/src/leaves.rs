//! Instructions under test, and what comes of them.

use core::arch::global_asm;

use crate::traps::{self, Context, RAX, RBX, RCX, RDX, RSP};

/// Leaves of ENCLS (SDM Vol. 3D, table 34-1).
pub(crate) mod encls {
    pub(crate) const ECREATE: u64 = 0;
    pub(crate) const EADD: u64 = 1;
    pub(crate) const EINIT: u64 = 2;
    pub(crate) const EREMOVE: u64 = 3;
    pub(crate) const EDBGRD: u64 = 4;
    pub(crate) const EDBGWR: u64 = 5;
    pub(crate) const ELDU: u64 = 8;
    pub(crate) const EBLOCK: u64 = 9;
    pub(crate) const EPA: u64 = 10;
    pub(crate) const EWB: u64 = 11;
    pub(crate) const ETRACK: u64 = 12;
    pub(crate) const EAUG: u64 = 13;
    pub(crate) const EMODPR: u64 = 14;
    pub(crate) const EMODT: u64 = 15;
}

/// Leaves of ENCLU (SDM Vol. 3D, table 34-2).
pub(crate) mod enclu {
    pub(crate) const EENTER: u64 = 2;
    pub(crate) const ERESUME: u64 = 3;
    pub(crate) const EEXIT: u64 = 4;
}

global_asm!(
    r#"
    .pushsection .text, "ax"
    .global encls_site
encls_site:
    .byte 0x0f, 0x01, 0xcf
    int 0x80
    .global rdmsr_site
rdmsr_site:
    rdmsr
    int 0x80
    .global wrmsr_site
wrmsr_site:
    wrmsr
    int 0x80
    .global load_site
load_site:
    mov rax, [rbx]
    int 0x80
    .global store_site
store_site:
    mov [rbx], rax
    int 0x80
    .popsection
    "#
);

unsafe extern "C" {
    static encls_site: u8;
    static rdmsr_site: u8;
    static wrmsr_site: u8;
    static load_site: u8;
    static store_site: u8;
}

/// What an instruction came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The vector of an exception, or that of the code's end.
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rax: u64,
    pub(crate) rbx: u64,
    pub(crate) flags: u64,
}

impl Outcome {
    /// Whether a leaf did what it is for.
    pub(crate) const fn is_done(self) -> bool {
        self.vector == traps::END && self.rax == 0
    }
}

/// Runs code of ring 0.
fn at(context: &mut Context, processor: u32, site: &u8, gpr: [u64; 4]) -> Outcome {
    context.gpr = [0; 16];
    (context.gpr[RAX], context.gpr[RBX]) = (gpr[0], gpr[1]);
    (context.gpr[RCX], context.gpr[RDX]) = (gpr[2], gpr[3]);
    context.gpr[RSP] = traps::stack_under_test(processor);
    (context.cs, context.ss, context.rflags) = (traps::CODE, traps::DATA, 2);
    context.rip = core::ptr::from_ref(site) as u64;
    context.run();
    Outcome {
        vector: context.vector,
        error: context.error,
        rax: context.gpr[RAX],
        rbx: context.gpr[RBX],
        flags: context.rflags & 0x8d5,
    }
}

/// A processor's way to instructions that may fault.
pub(crate) struct Attempts {
    pub(crate) context: Context,
    pub(crate) processor: u32,
}

impl Attempts {
    pub(crate) const fn new(processor: u32) -> Self {
        Self { context: Context::new(), processor }
    }

    /// ENCLS with a leaf and its operands.
    pub(crate) fn encls(&mut self, leaf: u64, rbx: u64, rcx: u64, rdx: u64) -> Outcome {
        // SAFETY: a place in the program's code.
        at(&mut self.context, self.processor, unsafe { &encls_site }, [leaf, rbx, rcx, rdx])
    }

    /// RDMSR; EDX is not told.
    pub(crate) fn rdmsr(&mut self, index: u64) -> Outcome {
        // SAFETY: as above.
        at(&mut self.context, self.processor, unsafe { &rdmsr_site }, [0, 0, index, 0])
    }

    /// WRMSR.
    pub(crate) fn wrmsr(&mut self, index: u64, value: u64) -> Outcome {
        let gpr = [value & 0xffff_ffff, 0, index, value >> 32];
        // SAFETY: as above.
        at(&mut self.context, self.processor, unsafe { &wrmsr_site }, gpr)
    }

    /// A load of 8 bytes in ring 0.
    pub(crate) fn load(&mut self, address: u64) -> Outcome {
        // SAFETY: as above.
        at(&mut self.context, self.processor, unsafe { &load_site }, [0, address, 0, 0])
    }

    /// A store of 8 bytes in ring 0.
    pub(crate) fn store(&mut self, address: u64, value: u64) -> Outcome {
        // SAFETY: as above.
        at(&mut self.context, self.processor, unsafe { &store_site }, [value, address, 0, 0])
    }

    /// Runs code of ring 3 at `rip` with the context's registers.
    pub(crate) fn user(&mut self, rip: u64) {
        let context = &mut self.context;
        (context.cs, context.ss) = (traps::USER_CODE, traps::USER_DATA);
        (context.rip, context.rflags) = (rip, context.rflags & 0x8d5 | 0x202);
        context.run();
    }
}
