//! The guest's vector registers in translated code.
//!
//! From the first block on that has vector instructions, each of them is in the host's register of the
//! same number; from the first with instructions under MXCSR on the host's is the guest's, unless it
//! unmasks an exception. So vector instructions are emitted as they are, and do to the upper halves what
//! they do to the guest's. Before a call of Rust code, or the way back to it, all goes to memory.
//! [`layout::BARRED`] tells where it is.

use cloister_cpu::native::{MXCSR_DEFAULT, MXCSR_MASK, barred, layout, vectors};
use iced_x86::{Code, CpuidFeature, Instruction, MemoryOperand, Register};

use crate::asm::alu::{AND, CMP};
use crate::asm::condition::{EQUAL, NOT_EQUAL};
use crate::asm::{Asm, RAX, RSP, Reg, Rm};
use crate::encode::Encoder;
use crate::host::HostFeatures;
use crate::registers::{CPU, TEMP, field};
use crate::stubs::{call_rust, load_guest, store_guest};

/// Vector registers of 64-bit mode.
const COUNT: u32 = 16;

/// A field of the processor, for the encoder.
fn memory(offset: usize) -> MemoryOperand {
    MemoryOperand::with_base_displ_size(Register::RAX + u32::from(CPU.0), offset as i64, 8)
}

/// What the stubs for vector registers are made with.
pub(crate) struct VectorStubs<'a> {
    pub(crate) asm: &'a mut Asm,
    pub(crate) encoder: &'a mut Encoder,
    pub(crate) host: HostFeatures,
}

impl VectorStubs<'_> {
    fn emit(&mut self, instruction: Result<Instruction, iced_x86::IcedError>) {
        let encoded =
            instruction.is_ok_and(|instruction| self.encoder.encode(self.asm, &instruction));
        debug_assert!(encoded, "it has an encoding");
    }

    fn has_avx(&self) -> bool {
        self.host.has(CpuidFeature::AVX)
    }

    /// `CODE register, [register's home + offset]` for all registers.
    fn load_all(&mut self, code: Code, first: Register) {
        for n in 0..COUNT {
            let home = memory(layout::YMM + 32 * n as usize);
            self.emit(Instruction::with2(code, first + n, home));
        }
    }

    fn store_all(&mut self, code: Code, first: Register) {
        for n in 0..COUNT {
            let home = memory(layout::YMM + 32 * n as usize);
            self.emit(Instruction::with2(code, home, first + n));
        }
    }

    /// Called: the guest's vector registers come into the host's, unless they are there. Flags are
    /// saved; overwrites `TEMP`.
    pub(crate) fn load(&mut self) {
        self.asm.alu_imm(1, CMP, field(layout::BARRED), i32::from(vectors::ALL));
        let loaded = self.asm.jcc(NOT_EQUAL);
        store_guest(self.asm);
        call_rust(self.asm, barred as *const () as u64, &[CPU]);
        self.asm.mov(8, TEMP, RAX);
        load_guest(self.asm);
        self.asm.store(1, field(layout::BARRED), TEMP);
        if self.has_avx() {
            // What is zero above is not loaded: instructions without a VEX prefix, which keep it, are
            // faster on a register whose upper half is in its initial state.
            self.emit(Instruction::with2(
                Code::VEX_Vmovdqu_xmm_xmmm128,
                Register::XMM0,
                memory(layout::YMM + 16),
            ));
            for n in 1..COUNT {
                self.emit(Instruction::with3(
                    Code::VEX_Vpor_xmm_xmm_xmmm128,
                    Register::XMM0,
                    Register::XMM0,
                    memory(layout::YMM + 32 * n as usize + 16),
                ));
            }
            self.emit(Instruction::with2(
                Code::VEX_Vptest_xmm_xmmm128,
                Register::XMM0,
                Register::XMM0,
            ));
            let wide = self.asm.jcc(NOT_EQUAL);
            self.load_all(Code::VEX_Vmovdqu_xmm_xmmm128, Register::XMM0);
            let narrow = self.asm.jmp();
            self.asm.land(wide);
            self.load_all(Code::VEX_Vmovdqu_ymm_ymmm256, Register::YMM0);
            self.asm.land(narrow);
        } else {
            self.load_all(Code::Movups_xmm_xmmm128, Register::XMM0);
        }
        self.asm.land(loaded);
        self.asm.ret();
    }

    /// Called: as the stub at `load`, and MXCSR comes too if all exceptions are masked.
    pub(crate) fn load_with_mxcsr(&mut self, load: u64) {
        self.asm.call(load);
        self.asm.test_imm(1, field(layout::BARRED), i32::from(vectors::MXCSR));
        let loaded = self.asm.jcc(EQUAL);
        self.asm.mov(4, TEMP, field(layout::MXCSR));
        self.asm.alu_imm(4, AND, TEMP, (MXCSR_DEFAULT | !MXCSR_MASK) as i32);
        self.asm.alu_imm(4, CMP, TEMP, MXCSR_DEFAULT as i32);
        let unmasked = self.asm.jcc(NOT_EQUAL);
        self.mxcsr(LOAD, field(layout::MXCSR));
        self.asm.alu_imm(1, AND, field(layout::BARRED), !i32::from(vectors::MXCSR));
        self.asm.land(unmasked);
        self.asm.land(loaded);
        self.asm.ret();
    }

    /// Called: they go from the host's registers to memory. Flags are saved.
    pub(crate) fn store(&mut self) {
        if self.has_avx() {
            self.store_all(Code::VEX_Vmovdqu_ymmm256_ymm, Register::YMM0);
            self.emit(Ok(Instruction::with(Code::VEX_Vzeroupper)));
        } else {
            self.store_all(Code::Movups_xmmm128_xmm, Register::XMM0);
        }
        self.asm.test_imm(1, field(layout::BARRED), i32::from(vectors::MXCSR));
        let elsewhere = self.asm.jcc(NOT_EQUAL);
        self.mxcsr(STORE, field(layout::MXCSR));
        // That of Rust code is the default.
        self.asm.push_imm(MXCSR_DEFAULT as i32);
        self.mxcsr(LOAD, Rm::Mem(RSP, 0));
        self.asm.lea(8, RSP, Rm::Mem(RSP, 8));
        self.asm.land(elsewhere);
        self.asm.store_imm(1, field(layout::BARRED), i32::from(vectors::ALL));
        self.asm.ret();
    }

    /// LDMXCSR or STMXCSR.
    fn mxcsr(&mut self, extension: Reg, memory: Rm) {
        self.asm.raw(4, &[0x0f, 0xae], extension, memory);
    }
}

/// Opcode extensions of LDMXCSR and STMXCSR.
const LOAD: Reg = Reg(2);
const STORE: Reg = Reg(3);
