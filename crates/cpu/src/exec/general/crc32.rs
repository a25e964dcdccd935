//! CRC32 (SDM Vol. 2A): polynomial 11EDC6F41H (Castagnoli), bits reflected.

use iced_x86::{Instruction, OpKind};

use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::op::{Handler, NO_MEMORY, Op};

/// Remainders of the 256 bytes.
static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            // 82F63B78H is the polynomial with its bits reversed.
            let out = remainder & 1;
            remainder = (remainder >> 1) ^ (0x82f6_3b78 * out);
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

rows! {
    Crc32 => choose(form),
}

fn form(instruction: &Instruction, op: &Op) -> Handler {
    let memory = op.mem_operand != NO_MEMORY;
    let size = if instruction.op1_kind() == OpKind::Register {
        instruction.op1_register().size()
    } else {
        instruction.memory_size().size()
    };
    match (size, memory) {
        (1, false) => crc32::<u8, false>,
        (1, true) => crc32::<u8, true>,
        (2, false) => crc32::<u16, false>,
        (2, true) => crc32::<u16, true>,
        (4, false) => crc32::<u32, false>,
        (4, true) => crc32::<u32, true>,
        (_, false) => crc32::<u64, false>,
        (_, true) => crc32::<u64, true>,
    }
}

extern "C" fn crc32<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let source = cpu.source::<T, MEMORY>(op)?.zext();
    let mut remainder = cpu.dst::<u32>(op);
    for byte in &source.to_le_bytes()[..T::SIZE] {
        remainder = TABLE[usize::from(remainder as u8 ^ byte)] ^ remainder >> 8;
    }
    cpu.set_dst(op, remainder);
    Ok(())
}
