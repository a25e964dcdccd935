//! Puts memory operands where they reach special cases.

use iced_x86::{Instruction, OpKind, Register};

use super::case::{DATA, DATA_LEN, Mode, State};
use super::random::Random;
use super::segments::{self, DATA_OFFSET};

/// Forms of 16-bit addressing (SDM Vol. 2A, table 2-1), but for the displacement alone.
const FORMS_16: [(Register, Register); 8] = [
    (Register::BX, Register::SI),
    (Register::BX, Register::DI),
    (Register::BP, Register::SI),
    (Register::BP, Register::DI),
    (Register::SI, Register::None),
    (Register::DI, Register::None),
    (Register::BP, Register::None),
    (Register::BX, Register::None),
];

/// Segment registers that a prefix names.
const PREFIXES: [Register; 6] =
    [Register::ES, Register::CS, Register::SS, Register::DS, Register::FS, Register::GS];

/// Where a memory operand lies: mostly inside the scratch pages and aligned, sometimes across
/// their border, across their end, or nowhere.
pub(crate) fn effective_address(random: &mut Random) -> u64 {
    let inside = DATA + 1024 + random.below(DATA_LEN as u64 - 2048);
    match random.below(40) {
        0 => DATA + 4096 - random.below(40),
        1 => DATA + DATA_LEN as u64 - random.below(40),
        2 => DATA - random.below(40),
        3 => 0x8000_0000_0000 + random.below(4096),
        4..20 => inside,
        20..25 => inside & !7,
        25..30 => inside & !63,
        _ => inside & !15,
    }
}

/// The address size of an instruction, in bits.
pub(crate) fn address_size(mode: Mode, random: &mut Random) -> u32 {
    match mode {
        Mode::Bits64 if random.one_in(12) => 32,
        Mode::Bits32 if random.one_in(4) => 16,
        Mode::Bits16 if random.one_in(3) => 32,
        _ => mode.bits(),
    }
}

/// An instruction that is being made.
pub(crate) struct Place<'a> {
    pub(crate) instruction: &'a mut Instruction,
    pub(crate) state: &'a mut State,
    pub(crate) mode: Mode,
    /// Bits of an address.
    pub(crate) size: u32,
}

impl Place<'_> {
    /// The offset that leads to a drawn linear address in the segment of an operand, which is
    /// `default` if no prefix names another.
    fn offset(&mut self, default: usize, random: &mut Random) -> u64 {
        let wanted = effective_address(random);
        wanted.wrapping_sub(self.segment(default, random))
    }

    /// Gives a memory operand a segment prefix now and then: the base to reckon with.
    pub(crate) fn segment(&mut self, default: usize, random: &mut Random) -> u64 {
        let rarely = if self.mode.is_64() { 10 } else { 5 };
        let segment = if random.one_in(rarely) {
            let prefix = if self.mode.is_64() {
                random.pick(&[Register::FS, Register::GS])
            } else {
                random.pick(&PREFIXES)
            };
            self.instruction.set_segment_prefix(prefix);
            prefix.number()
        } else {
            default
        };
        self.state.base(self.mode, segment)
    }

    /// An address register of the address size.
    fn register(&self, number: usize) -> Register {
        let first = match self.size {
            16 => Register::AX,
            32 => Register::EAX,
            _ => Register::RAX,
        };
        first + number as u32
    }

    /// Sets the part of a register that an address is made of.
    fn set(&mut self, number: usize, value: u64) {
        let kept = match self.size {
            16 => !0xffff,
            32 => !0xffff_ffff,
            _ => 0,
        };
        let slot = &mut self.state.gpr[number];
        *slot = *slot & kept | value & !kept;
    }

    /// A general memory operand.
    pub(crate) fn memory(&mut self, n: u32, random: &mut Random) {
        self.instruction.set_op_kind(n, OpKind::Memory);
        match self.size {
            16 => self.memory_16(random),
            _ => self.memory_wide(random),
        }
    }

    fn memory_16(&mut self, random: &mut Random) {
        self.instruction.set_memory_displ_size(2);
        if random.one_in(9) {
            let offset = self.offset(segments::DS, random);
            self.instruction.set_memory_displacement64(offset & 0xffff);
            return;
        }
        let (base, index) = random.pick(&FORMS_16);
        let stack = base == Register::BP;
        let offset = self.offset(if stack { segments::SS } else { segments::DS }, random);
        let displacement = displacement(random);
        self.instruction.set_memory_base(base);
        self.instruction.set_memory_index(index);
        self.instruction.set_memory_displacement64(displacement & 0xffff);
        let mut rest = offset.wrapping_sub(displacement);
        if index != Register::None {
            if !random.one_in(8) {
                self.set(index.number(), random.below(1 << 12));
            }
            rest = rest.wrapping_sub(self.state.gpr[index.number()]);
        }
        self.set(base.number(), rest);
    }

    fn memory_wide(&mut self, random: &mut Random) {
        self.instruction.set_memory_displ_size(self.size / 8);
        if random.one_in(16) {
            let offset = self.offset(segments::DS, random);
            if offset < 0x7000_0000 {
                self.instruction.set_memory_displacement64(offset);
                return;
            }
            self.instruction.set_segment_prefix(Register::None);
        }
        let count = self.mode.registers() as u64;
        let base = random.below(count) as usize;
        let default = if matches!(base, 4 | 5) { segments::SS } else { segments::DS };
        let offset = self.offset(default, random);
        let displacement = displacement(random);
        let cut = if self.size == 32 { 0xffff_ffff } else { u64::MAX };
        self.instruction.set_memory_base(self.register(base));
        self.instruction.set_memory_displacement64(displacement & cut);
        let mut rest = offset.wrapping_sub(displacement);
        if random.one_in(2) {
            let index = random.below(count) as usize;
            if index != base && index != 4 {
                let scale = 1 << random.below(4);
                self.instruction.set_memory_index(self.register(index));
                self.instruction.set_memory_index_scale(scale);
                // Small values keep the base canonical; others test the wrap.
                if !random.one_in(8) {
                    self.set(index, random.below(1 << 16));
                }
                let value = self.state.gpr[index];
                rest = rest.wrapping_sub(value.wrapping_mul(u64::from(scale)));
            }
        }
        self.set(base, rest);
    }

    /// The memory operand of a MOV that has an address and no ModRM byte.
    pub(crate) fn absolute(&mut self, n: u32, random: &mut Random) {
        self.instruction.set_op_kind(n, OpKind::Memory);
        self.instruction.set_memory_displ_size(self.size / 8);
        let offset = self.offset(segments::DS, random);
        let offset = match self.size {
            16 => offset & 0xffff,
            32 => offset & 0xffff_ffff,
            _ => offset,
        };
        self.instruction.set_memory_displacement64(offset);
    }

    /// The operand kind of a string instruction, of three for the address sizes.
    pub(crate) fn string(&mut self, n: u32, kinds: [OpKind; 3]) {
        let [narrow, middle, wide] = kinds;
        let kind = match self.size {
            16 => narrow,
            32 => middle,
            _ => wide,
        };
        self.instruction.set_op_kind(n, kind);
    }

    /// Moves RSI from DS to the segment that a prefix names.
    pub(crate) fn source_index(&mut self, random: &mut Random) {
        let default = self.state.base(self.mode, segments::DS);
        let base = self.segment(segments::DS, random);
        let at = self.state.gpr[6].wrapping_add(default).wrapping_sub(base);
        self.set(6, at);
    }

    /// Puts an address in RDI, in the segment that a prefix names or in DS.
    pub(crate) fn destination_index(&mut self, random: &mut Random) {
        let offset = self.offset(segments::DS, random);
        self.set(7, offset);
    }

    /// The table of XLAT.
    pub(crate) fn table(&mut self, n: u32, random: &mut Random) {
        self.instruction.set_op_kind(n, OpKind::Memory);
        self.instruction.set_memory_base(self.register(3));
        self.instruction.set_memory_index(Register::AL);
        let offset = self.offset(segments::DS, random);
        self.set(3, offset);
    }

    /// Memory with a vector of indices of `size` bytes, of which most stay in the scratch pages.
    pub(crate) fn vsib(&mut self, n: u32, first: Register, size: usize, random: &mut Random) {
        // There is none with 16-bit addresses.
        self.size = self.size.max(32);
        let wanted = DATA + DATA_LEN as u64 / 2;
        let index = random.below(self.mode.registers() as u64) as usize;
        let scale = 1 << random.below(4);
        let wild = if random.one_in(3) { 16 } else { u64::MAX };
        for i in 0..32 / size {
            let value = if random.one_in(wild) {
                random.next()
            } else {
                (random.below(900)).wrapping_sub(450)
            };
            let fx = &mut self.state.fx;
            let half = if i * size < 16 { &mut fx.xmm[index] } else { &mut self.state.high[index] };
            let at = i * size % 16;
            half[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        self.instruction.set_op_kind(n, OpKind::Memory);
        self.instruction.set_memory_displ_size(self.size / 8);
        self.instruction.set_memory_index(first + index as u32);
        self.instruction.set_memory_index_scale(scale);
        if random.one_in(8) {
            let offset = wanted.wrapping_sub(self.state.base(self.mode, segments::DS));
            self.instruction.set_memory_displacement64(offset);
            return;
        }
        let base = random.below(self.mode.registers() as u64) as usize;
        let default = if matches!(base, 4 | 5) { segments::SS } else { segments::DS };
        let segment = self.segment(default, random);
        let displacement = i64::from(random.next() as i8) as u64;
        let cut = if self.size == 32 { 0xffff_ffff } else { u64::MAX };
        self.instruction.set_memory_base(self.register(base));
        self.instruction.set_memory_displacement64(displacement & cut);
        self.set(base, wanted.wrapping_sub(segment).wrapping_sub(displacement));
    }
}

fn displacement(random: &mut Random) -> u64 {
    match random.below(3) {
        0 => 0,
        1 => i64::from(random.next() as i8) as u64,
        _ => i64::from(random.next() as i16) as u64,
    }
}

/// The offset in a 16-bit segment that scratch memory has.
pub(crate) fn data_offset(random: &mut Random) -> u64 {
    DATA_OFFSET + 64 + random.below(DATA_LEN as u64 - 128)
}
