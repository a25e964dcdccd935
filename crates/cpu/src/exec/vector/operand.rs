//! The registers that vector instructions name, and what must hold before one may touch them.

use cloister_x86::regs::{Cr0, Cr4, Xfeatures};
use cloister_x86::{Exception, Vector};

use super::lane::{Lane, Wide};
use crate::cpu::Cpu;
use crate::exit::{Exec, Stop};
use crate::op::{LEGACY, Op, VEX_256};
use crate::state::VectorState;
use crate::state::x87::status;

impl VectorState {
    /// Writes the result of an instruction of 128 bits or less: with a VEX prefix it clears the
    /// rest of the YMM register, without it keeps it.
    #[inline(always)]
    pub(crate) fn set_low<const FORM: u8>(&mut self, number: u8, value: Lane) {
        if FORM == LEGACY {
            self.set_xmm(number, value);
        } else {
            self.set_ymm(number, [value, [0; 2]]);
        }
    }
}

impl Cpu {
    /// [`VectorState::set_low`] of operand 0.
    #[inline(always)]
    pub(crate) fn set_vector_dst(&mut self, op: &Op, value: Lane) {
        if op.vex == LEGACY {
            self.arch.vector.set_xmm(op.dst, value);
        } else {
            self.arch.vector.set_ymm(op.dst, [value, [0; 2]]);
        }
    }

    /// What every SSE instruction checks first (SDM Vol. 2A, tables 2-17 and following; Vol. 3A,
    /// 13.1): CR0.EM and CR4.OSFXSR, then CR0.TS.
    ///
    /// # Errors
    ///
    /// #UD or #NM.
    #[inline(always)]
    pub(crate) fn check_sse(&mut self) -> Exec {
        if self.is_sse_barred() {
            return Err(self.refuse_sse());
        }
        Ok(())
    }

    /// Whether [`Cpu::check_sse`] refuses.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn is_sse_barred(&self) -> bool {
        self.arch.cr0.bits() & (Cr0::EM.bits() | Cr0::TS.bits())
            | !self.arch.cr4.bits() & Cr4::OSFXSR.bits()
            != 0
    }

    #[cold]
    #[inline(never)]
    fn refuse_sse(&mut self) -> Stop {
        if self.arch.cr0.contains(Cr0::EM) || !self.arch.cr4.contains(Cr4::OSFXSR) {
            return self.ud();
        }
        self.raise(Exception::new(Vector::Nm))
    }

    /// What every instruction with a VEX prefix that touches vector registers checks first (SDM
    /// Vol. 2A, tables 2-18 and following): CR4.OSXSAVE and XCR0, then CR0.TS. CR0.EM and
    /// CR4.OSFXSR do not count.
    ///
    /// # Errors
    ///
    /// #UD or #NM.
    #[inline(always)]
    pub(crate) fn check_avx(&mut self) -> Exec {
        if self.is_avx_barred() {
            return Err(self.refuse_avx());
        }
        Ok(())
    }

    /// Whether [`Cpu::check_avx`] refuses.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn is_avx_barred(&self) -> bool {
        const STATE: u64 = Xfeatures::SSE.union(Xfeatures::AVX).bits();
        self.arch.cr0.bits() & Cr0::TS.bits()
            | !self.arch.cr4.bits() & Cr4::OSXSAVE.bits()
            | !self.arch.xcr0.bits() & STATE
            != 0
    }

    #[cold]
    #[inline(never)]
    fn refuse_avx(&mut self) -> Stop {
        if !self.arch.cr4.contains(Cr4::OSXSAVE)
            || !self.arch.xcr0.contains(Xfeatures::SSE | Xfeatures::AVX)
        {
            return self.ud();
        }
        self.raise(Exception::new(Vector::Nm))
    }

    /// [`Cpu::check_sse`] or [`Cpu::check_avx`], as the form demands.
    ///
    /// # Errors
    ///
    /// #UD or #NM.
    #[inline(always)]
    pub(crate) fn check_form<const FORM: u8>(&mut self) -> Exec {
        if FORM == LEGACY { self.check_sse() } else { self.check_avx() }
    }

    /// [`Cpu::check_form`] of an op.
    ///
    /// # Errors
    ///
    /// #UD or #NM.
    #[inline(always)]
    pub(crate) fn check_vector(&mut self, op: &Op) -> Exec {
        if op.vex == LEGACY { self.check_sse() } else { self.check_avx() }
    }

    /// Reads a vector register as wide as the op's vectors are; what is above is zero.
    #[inline(always)]
    #[must_use]
    pub(crate) fn vector_register(&self, op: &Op, number: u8) -> Wide {
        let [low, high] = self.arch.vector.ymm(number);
        if op.vex == VEX_256 { [low, high] } else { [low, [0; 2]] }
    }

    /// What every instruction that touches MMX registers checks first (SDM Vol. 3A, 12.1 and
    /// 12.5): CR0.EM, CR0.TS, then an x87 exception that is still to be reported.
    ///
    /// # Errors
    ///
    /// #UD, #NM or #MF.
    #[inline(always)]
    pub(crate) fn check_mmx(&mut self) -> Exec {
        if self.arch.cr0.intersects(Cr0::EM | Cr0::TS) || self.arch.fpu.status & status::ES != 0 {
            return self.refuse_mmx();
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn refuse_mmx(&mut self) -> Exec {
        if self.arch.cr0.contains(Cr0::EM) {
            return Err(self.ud());
        }
        if self.arch.cr0.contains(Cr0::TS) {
            return Err(self.raise(Exception::new(Vector::Nm)));
        }
        if self.arch.cr0.contains(Cr0::NE) {
            return Err(self.raise(Exception::new(Vector::Mf)));
        }
        // As for x87 instructions: nobody listens to FERR#.
        Ok(())
    }

    /// Reads an MMX register.
    #[inline(always)]
    #[must_use]
    pub(crate) fn mmx(&self, number: u8) -> u64 {
        self.arch.fpu.regs[usize::from(number & 7)].mantissa
    }

    /// The change from x87 to MMX operation (SDM Vol. 3A, 12.2): TOP is 0 and every register valid.
    #[inline(always)]
    pub(crate) fn enter_mmx(&mut self) {
        self.arch.fpu.top = 0;
        self.arch.fpu.tags = 0xff;
    }

    /// Writes an MMX register; the exponent becomes all ones (SDM Vol. 3A, 12.2).
    #[inline(always)]
    pub(crate) fn set_mmx(&mut self, number: u8, value: u64) {
        self.enter_mmx();
        let register = &mut self.arch.fpu.regs[usize::from(number & 7)];
        register.mantissa = value;
        register.sign_exp = 0xffff;
    }
}
