//! A small assembler for the host: just the forms that translated code needs.

/// A general-purpose register of the host, by its number in encodings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reg(pub(crate) u8);

pub(crate) const RAX: Reg = Reg(0);
pub(crate) const RCX: Reg = Reg(1);
pub(crate) const RDX: Reg = Reg(2);
pub(crate) const RBX: Reg = Reg(3);
pub(crate) const RSP: Reg = Reg(4);
pub(crate) const RBP: Reg = Reg(5);
pub(crate) const RSI: Reg = Reg(6);
pub(crate) const RDI: Reg = Reg(7);
pub(crate) const R8: Reg = Reg(8);
pub(crate) const R9: Reg = Reg(9);
pub(crate) const R10: Reg = Reg(10);
pub(crate) const R11: Reg = Reg(11);
pub(crate) const R12: Reg = Reg(12);
pub(crate) const R13: Reg = Reg(13);
pub(crate) const R14: Reg = Reg(14);
pub(crate) const R15: Reg = Reg(15);

/// Numbers of binary operations in opcodes.
pub(crate) mod alu {
    pub(crate) const ADD: u8 = 0;
    pub(crate) const OR: u8 = 1;
    pub(crate) const ADC: u8 = 2;
    pub(crate) const SBB: u8 = 3;
    pub(crate) const AND: u8 = 4;
    pub(crate) const SUB: u8 = 5;
    pub(crate) const XOR: u8 = 6;
    pub(crate) const CMP: u8 = 7;
}

/// Numbers of shifts and rotations in opcodes.
pub(crate) mod shift {
    pub(crate) const ROL: u8 = 0;
    pub(crate) const ROR: u8 = 1;
    pub(crate) const RCL: u8 = 2;
    pub(crate) const RCR: u8 = 3;
    pub(crate) const SHL: u8 = 4;
    pub(crate) const SHR: u8 = 5;
    pub(crate) const SAR: u8 = 7;
}

/// Numbers of some conditions in opcodes.
pub(crate) mod condition {
    pub(crate) const NOT_BELOW: u8 = 3;
    pub(crate) const EQUAL: u8 = 4;
    pub(crate) const NOT_EQUAL: u8 = 5;
    pub(crate) const BELOW: u8 = 2;
    pub(crate) const NOT_ABOVE: u8 = 6;
    pub(crate) const NEGATIVE: u8 = 8;
}

/// What the ModRM byte's `rm` names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rm {
    /// A register.
    Reg(Reg),
    /// Memory at a register's value and a displacement.
    Mem(Reg, i32),
    /// Memory at `base + index << scale + displacement`.
    Index(Reg, Reg, u8, i32),
    /// Memory at `index << scale + displacement`.
    Scaled(Reg, u8, i32),
    /// Memory of the arena at an address, in an instruction without an immediate.
    At(u64),
}

impl From<Reg> for Rm {
    fn from(register: Reg) -> Self {
        Self::Reg(register)
    }
}

/// Operand size in bytes.
pub(crate) type Size = u8;

/// A place in the code that is not known yet: where a rel32 is, to be filled in.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Jump(usize);

/// Code under construction.
#[derive(Debug, Default)]
pub(crate) struct Asm {
    /// The bytes.
    pub(crate) code: Vec<u8>,
    /// Where the first byte will run.
    pub(crate) base: u64,
}

impl Asm {
    /// Begins anew at `base`.
    pub(crate) fn start(&mut self, base: u64) {
        self.code.clear();
        self.base = base;
    }

    /// Address of the next instruction.
    pub(crate) fn here(&self) -> u64 {
        self.base + self.code.len() as u64
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    fn imm32(&mut self, value: i32) {
        self.bytes(&value.to_le_bytes());
    }

    fn imm(&mut self, size: Size, value: i32) {
        match size {
            1 => self.bytes(&[value as u8]),
            2 => self.bytes(&(value as u16).to_le_bytes()),
            _ => self.imm32(value),
        }
    }

    /// An instruction with prefixes, opcode and ModRM. `size` 2 gives 66H, 8 REX.W; with `byte` the
    /// registers are byte registers, of which those from 4 on need a REX prefix to be SPL to DIL.
    fn form(&mut self, size: Size, byte: (bool, bool), opcode: &[u8], reg: u8, rm: Rm) {
        if size == 2 {
            self.code.push(0x66);
        }
        // A mandatory prefix comes before REX.
        let opcode = match opcode {
            [prefix @ (0xf2 | 0xf3 | 0x66), rest @ ..] => {
                self.code.push(*prefix);
                rest
            }
            _ => opcode,
        };
        let (index, base) = match rm {
            Rm::Reg(Reg(rm)) | Rm::Mem(Reg(rm), _) => (0, rm),
            Rm::Index(Reg(base), Reg(index), ..) => (index, base),
            Rm::Scaled(Reg(index), ..) => (index, 0),
            Rm::At(_) => (0, 0),
        };
        let rex = u8::from(size == 8) << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;
        let low = byte.0 && (4..8).contains(&reg) || byte.1 && matches!(rm, Rm::Reg(Reg(4..8)));
        if rex != 0 || low {
            self.code.push(0x40 | rex);
        }
        self.bytes(opcode);
        let reg = (reg & 7) << 3;
        match rm {
            Rm::Reg(Reg(rm)) => self.code.push(0xc0 | reg | rm & 7),
            Rm::Mem(Reg(base), disp) => {
                let (mode, sib) = (Self::disp_mode(base, disp), base & 7 == 4);
                self.code.push(mode << 6 | reg | base & 7);
                if sib {
                    self.code.push(0x24);
                }
                self.disp(mode, disp);
            }
            Rm::Index(Reg(base), Reg(index), scale, disp) => {
                debug_assert_ne!(index, 4, "RSP is not an index");
                let mode = Self::disp_mode(base, disp);
                self.code.push(mode << 6 | reg | 4);
                self.code.push(scale << 6 | (index & 7) << 3 | base & 7);
                self.disp(mode, disp);
            }
            Rm::Scaled(Reg(index), scale, disp) => {
                self.code.push(reg | 4);
                self.code.push(scale << 6 | (index & 7) << 3 | 5);
                self.imm32(disp);
            }
            Rm::At(target) => {
                self.code.push(reg | 5);
                self.rel32(target);
            }
        }
    }

    fn disp_mode(base: u8, disp: i32) -> u8 {
        match i8::try_from(disp) {
            Ok(0) if base & 7 != 5 => 0,
            Ok(_) => 1,
            Err(_) => 2,
        }
    }

    fn disp(&mut self, mode: u8, disp: i32) {
        match mode {
            0 => {}
            1 => self.code.push(disp as u8),
            _ => self.imm32(disp),
        }
    }

    /// `OPCODE reg, rm` of an instruction whose opcode is that of the byte form, one more for the
    /// others.
    pub(crate) fn op(&mut self, size: Size, opcode: u8, reg: Reg, rm: impl Into<Rm>) {
        let opcode = if size == 1 { opcode } else { opcode | 1 };
        self.form(size, (size == 1, size == 1), &[opcode], reg.0, rm.into());
    }

    /// As [`Asm::op`], with an opcode extension for the register.
    pub(crate) fn ext(&mut self, size: Size, opcode: u8, extension: u8, rm: impl Into<Rm>) {
        let opcode = if size == 1 { opcode } else { opcode | 1 };
        self.form(size, (false, size == 1), &[opcode], extension, rm.into());
    }

    /// `OPCODE reg, rm` with the opcode as it is.
    pub(crate) fn raw(&mut self, size: Size, opcode: &[u8], reg: Reg, rm: impl Into<Rm>) {
        self.form(size, (false, false), opcode, reg.0, rm.into());
    }

    /// As [`Asm::raw`], with `rm` a byte.
    pub(crate) fn raw_byte(&mut self, size: Size, opcode: &[u8], reg: Reg, rm: impl Into<Rm>) {
        self.form(size, (false, true), opcode, reg.0, rm.into());
    }

    /// As [`Asm::raw`], with byte registers where `size` is 1.
    pub(crate) fn byte_form(&mut self, size: Size, opcode: &[u8], reg: Reg, rm: impl Into<Rm>) {
        self.form(size, (size == 1, size == 1), opcode, reg.0, rm.into());
    }

    /// IMUL of 32 or 64 bits by an immediate into a register.
    pub(crate) fn mul_imm(&mut self, size: Size, reg: Reg, rm: impl Into<Rm>, value: i32) {
        self.raw(size, &[0x69], reg, rm);
        self.imm32(value);
    }

    /// BSWAP of 32 or 64 bits.
    pub(crate) fn bswap(&mut self, size: Size, register: Reg) {
        let rex = 0x40 | u8::from(size == 8) << 3 | register.0 >> 3;
        self.bytes(&[rex, 0x0f, 0xc8 | register.0 & 7]);
    }

    /// MOV to a register.
    pub(crate) fn mov(&mut self, size: Size, to: Reg, from: impl Into<Rm>) {
        self.op(size, 0x8a, to, from);
    }

    /// MOV to memory.
    pub(crate) fn store(&mut self, size: Size, to: impl Into<Rm>, from: Reg) {
        self.op(size, 0x88, from, to);
    }

    /// MOV of an immediate to a register, as short as it can be, without a change of flags.
    pub(crate) fn mov_imm(&mut self, to: Reg, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            self.short(0xb8, to);
            self.bytes(&value.to_le_bytes());
        } else if let Ok(value) = i32::try_from(value as i64) {
            self.ext(8, 0xc6, 0, to);
            self.imm32(value);
        } else {
            self.bytes(&[0x48 | to.0 >> 3, 0xb8 | to.0 & 7]);
            self.bytes(&value.to_le_bytes());
        }
    }

    /// MOV of an immediate (sign-extended to 8 bytes) to memory.
    pub(crate) fn store_imm(&mut self, size: Size, to: impl Into<Rm>, value: i32) {
        self.ext(size, 0xc6, 0, to);
        self.imm(size, value);
    }

    /// A binary operation ([`alu`]) with an immediate.
    pub(crate) fn alu_imm(&mut self, size: Size, operation: u8, rm: impl Into<Rm>, value: i32) {
        let rm = rm.into();
        if size > 1 && i8::try_from(value).is_ok() {
            self.form(size, (false, false), &[0x83], operation, rm);
            self.code.push(value as u8);
        } else {
            self.ext(size, 0x80, operation, rm);
            self.imm(size, value);
        }
    }

    /// A binary operation ([`alu`]): `reg OP= rm`.
    pub(crate) fn alu(&mut self, size: Size, operation: u8, reg: Reg, rm: impl Into<Rm>) {
        self.op(size, operation << 3 | 2, reg, rm);
    }

    /// A binary operation ([`alu`]): `rm OP= reg`.
    pub(crate) fn alu_to(&mut self, size: Size, operation: u8, rm: impl Into<Rm>, reg: Reg) {
        self.op(size, operation << 3, reg, rm);
    }

    /// TEST of a register with a register or memory.
    pub(crate) fn test(&mut self, size: Size, reg: Reg, rm: impl Into<Rm>) {
        self.op(size, 0x84, reg, rm);
    }

    /// TEST with an immediate.
    pub(crate) fn test_imm(&mut self, size: Size, rm: impl Into<Rm>, value: i32) {
        self.ext(size, 0xf6, 0, rm);
        self.imm(size, value);
    }

    /// LEA.
    pub(crate) fn lea(&mut self, size: Size, to: Reg, from: Rm) {
        self.form(size, (false, false), &[0x8d], to.0, from);
    }

    /// A shift or rotation ([`shift`]) by an immediate.
    pub(crate) fn shift_imm(&mut self, size: Size, operation: u8, rm: impl Into<Rm>, count: u8) {
        self.ext(size, 0xc0, operation, rm);
        self.code.push(count);
    }

    /// An instruction of one opcode byte with the register in it.
    fn short(&mut self, opcode: u8, register: Reg) {
        if register.0 >= 8 {
            self.code.push(0x41);
        }
        self.code.push(opcode | register.0 & 7);
    }

    /// PUSH of 64 bits.
    pub(crate) fn push(&mut self, register: Reg) {
        self.short(0x50, register);
    }

    /// PUSH of an immediate.
    pub(crate) fn push_imm(&mut self, value: i32) {
        self.code.push(0x68);
        self.imm32(value);
    }

    /// POP of 64 bits.
    pub(crate) fn pop(&mut self, register: Reg) {
        self.short(0x58, register);
    }

    /// RET.
    pub(crate) fn ret(&mut self) {
        self.code.push(0xc3);
    }

    /// A jump to the address in a register or in memory.
    pub(crate) fn jmp_indirect(&mut self, to: impl Into<Rm>) {
        self.form(4, (false, false), &[0xff], 4, to.into());
    }

    /// A call of the address in a register.
    pub(crate) fn call_register(&mut self, register: Reg) {
        self.form(4, (false, false), &[0xff], 2, register.into());
    }

    /// A jump on a condition (0 to 15).
    pub(crate) fn jcc(&mut self, condition: u8) -> Jump {
        self.bytes(&[0x0f, 0x80 | condition, 0, 0, 0, 0]);
        Jump(self.code.len())
    }

    /// A jump.
    pub(crate) fn jmp(&mut self) -> Jump {
        self.bytes(&[0xe9, 0, 0, 0, 0]);
        Jump(self.code.len())
    }

    /// Where the rel32 of a jump is.
    pub(crate) fn rel32_of(&self, jump: Jump) -> u64 {
        self.base + jump.0 as u64 - 4
    }

    /// Makes a jump lead to an address in the arena.
    pub(crate) fn lead(&mut self, jump: Jump, target: u64) {
        let distance = target.wrapping_sub(self.base + jump.0 as u64) as i32;
        self.code[jump.0 - 4..jump.0].copy_from_slice(&distance.to_le_bytes());
    }

    /// Makes a jump lead to the next instruction.
    pub(crate) fn land(&mut self, jump: Jump) {
        let distance = (self.code.len() - jump.0) as i32;
        self.code[jump.0 - 4..jump.0].copy_from_slice(&distance.to_le_bytes());
    }

    fn rel32(&mut self, target: u64) {
        let after = self.here() + 4;
        // All code is in one arena.
        self.imm32(target.wrapping_sub(after) as i32);
    }

    /// A jump to an address in the arena.
    pub(crate) fn jmp_to(&mut self, target: u64) {
        self.code.push(0xe9);
        self.rel32(target);
    }

    /// A jump on a condition to an address in the arena.
    pub(crate) fn jcc_to(&mut self, condition: u8, target: u64) {
        self.bytes(&[0x0f, 0x80 | condition]);
        self.rel32(target);
    }

    /// A call of an address in the arena.
    pub(crate) fn call(&mut self, target: u64) {
        self.code.push(0xe8);
        self.rel32(target);
    }
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions};

    use super::*;

    /// What a disassembler reads.
    fn text(emit: impl FnOnce(&mut Asm)) -> String {
        let mut asm = Asm::default();
        asm.start(0x1000);
        emit(&mut asm);
        let mut decoder = Decoder::with_ip(64, &asm.code, 0x1000, DecoderOptions::NONE);
        let lines: Vec<String> =
            decoder.iter().map(|i| format!("{:?} {}", i.code(), i.len())).collect();
        assert_eq!(decoder.position(), asm.code.len());
        lines.join("; ")
    }

    #[test]
    fn forms_are_read_as_they_were_meant() {
        assert_eq!(text(|a| a.mov(1, RSI, RAX)), "Mov_r8_rm8 3");
        assert_eq!(text(|a| a.mov(8, R12, Rm::Mem(R13, 0))), "Mov_r64_rm64 4");
        assert_eq!(text(|a| a.store(2, Rm::Mem(R12, 4), RAX)), "Mov_rm16_r16 6");
        assert_eq!(text(|a| a.mov_imm(R9, 7)), "Mov_r32_imm32 6");
        assert_eq!(text(|a| a.mov_imm(R9, u64::MAX)), "Mov_rm64_imm32 7");
        assert_eq!(text(|a| a.mov_imm(RAX, 1 << 40)), "Mov_r64_imm64 10");
        assert_eq!(text(|a| a.alu_imm(8, alu::SUB, R13, 1)), "Sub_rm64_imm8 4");
        assert_eq!(text(|a| a.jmp_indirect(R14)), "Jmp_rm64 3");
        assert_eq!(text(|a| a.call_register(RAX)), "Call_rm64 2");
        assert_eq!(text(|a| a.push(R15)), "Push_r64 2");
        assert_eq!(text(|a| a.test(1, RAX, RAX)), "Test_rm8_r8 2");
        assert_eq!(text(|a| a.alu_imm(4, 7, Rm::Mem(R15, 0x200), 0)), "Cmp_rm32_imm8 8");
        assert_eq!(text(|a| a.lea(8, R13, Rm::Index(RBP, RCX, 3, 0x12345))), "Lea_r64_m 8");
    }
}
