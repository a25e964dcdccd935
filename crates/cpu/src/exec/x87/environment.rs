//! FNSTENV, FLDENV, FNSAVE and FRSTOR (SDM Vol. 1, 8.1.10 and figures 8-9 to 8-12).

use cloister_float::F80;
use cloister_x86::regs::{Cr0, Rflags};
use iced_x86::{Code, Instruction};

use super::report::{begin, begin_no_wait};
use crate::cpu::Cpu;
use crate::exec::table::{rewrite, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, Op};
use crate::state::x87::status;

/// Bytes of the environment in the 32-bit form.
const LONG: usize = 28;
/// Bytes of the environment in the 16-bit form.
const SHORT: usize = 14;
/// Bytes of the eight registers that follow it.
const REGISTERS: usize = 80;

rows! {
    Fnstenv => rewrite(|i, _, op| form(i, op, fnstenv)),
    Fldenv => rewrite(|i, _, op| form(i, op, fldenv)),
    Fnsave => rewrite(|i, _, op| form(i, op, fnsave)),
    Frstor => rewrite(|i, _, op| form(i, op, frstor)),
}

/// The size of the environment is kept in [`Op::extra`].
fn form(instruction: &Instruction, op: Op, run: Handler) -> Option<Op> {
    let size = match instruction.code() {
        Code::Fnstenv_m14byte
        | Code::Fldenv_m14byte
        | Code::Fnsave_m94byte
        | Code::Frstor_m94byte => SHORT,
        _ => LONG,
    };
    Some(Op { run, extra: size as u32, ..op })
}

/// Bytes of the environment.
const fn environment_size(op: &Op) -> usize {
    op.extra as usize
}

/// Real-address and virtual-8086 mode have linear pointers in the image, protected mode selectors,
/// which are zero (CPUID.(7,0):EBX.FCS_FDS_DEPRECATED).
fn is_real(cpu: &Cpu) -> bool {
    !cpu.arch.cr0.contains(Cr0::PE) || cpu.arch.system_flags.contains(Rflags::VM)
}

/// The environment in one of its four layouts; `size` bytes count.
fn image(cpu: &Cpu, size: usize) -> [u8; LONG] {
    let fpu = &cpu.arch.fpu;
    let (ip, dp) = (fpu.fip as u32, fpu.fdp as u32);
    let fop = u32::from(fpu.fop);
    let words = [fpu.control, fpu.status_word(), fpu.tag_word()];
    let mut bytes = [0; LONG];
    if size == SHORT {
        let (ip_high, dp_high) = if is_real(cpu) {
            ((ip >> 16 & 0xf) << 12 | fop, (dp >> 16 & 0xf) << 12)
        } else {
            (0, 0)
        };
        let rest = [ip, ip_high, dp, dp_high].map(|word| word as u16);
        for (chunk, word) in bytes.chunks_exact_mut(2).zip(words.into_iter().chain(rest)) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        return bytes;
    }
    // Reserved halves read as ones.
    let reserved = 0xffff_0000;
    let rest = if is_real(cpu) {
        [reserved | ip & 0xffff, (ip >> 16) << 12 | fop, reserved | dp & 0xffff, (dp >> 16) << 12]
    } else {
        [ip, fop << 16, dp, reserved]
    };
    let words = words.map(|word| reserved | u32::from(word));
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(words.into_iter().chain(rest)) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Takes the environment from its image.
fn set_image(cpu: &mut Cpu, bytes: &[u8]) {
    let real = is_real(cpu);
    let word = |n: usize| {
        let stride = bytes.len() / 7;
        let mut word = [0; 4];
        word[..stride].copy_from_slice(&bytes[n * stride..(n + 1) * stride]);
        u32::from_le_bytes(word)
    };
    let (ip, ip_high, dp, dp_high) = (word(3), word(4), word(5), word(6));
    let fpu = &mut cpu.arch.fpu;
    let fop = match (bytes.len(), real) {
        (_, true) => {
            fpu.fip = u64::from(ip & 0xffff | (ip_high >> 12) << 16);
            fpu.fdp = u64::from(dp & 0xffff | (dp_high >> 12) << 16);
            Some(ip_high)
        }
        (SHORT, false) => {
            fpu.fip = u64::from(ip & 0xffff);
            fpu.fdp = u64::from(dp & 0xffff);
            None
        }
        (_, false) => {
            fpu.fip = u64::from(ip);
            fpu.fdp = u64::from(dp);
            Some(ip_high >> 16)
        }
    };
    fpu.fop = fop.map_or(0, |fop| fop as u16 & 0x7ff);
    fpu.set_tag_word(word(2) as u16);
    fpu.set_control_word(word(0) as u16);
    fpu.set_status_word(word(1) as u16);
}

/// What processors look at first: the control word, then the last byte of the image.
fn ends(cpu: &Cpu, la: u64, environment: usize, size: usize) -> [(u64, usize); 2] {
    [(la, environment / 7), (cpu.wrap_la(la.wrapping_add(size as u64 - 1)), 1)]
}

fn probe_write(cpu: &mut Cpu, la: u64, environment: usize, size: usize) -> Exec {
    ends(cpu, la, environment, size).into_iter().try_for_each(|(la, len)| cpu.probe_write(la, len))
}

fn probe_read(cpu: &mut Cpu, la: u64, environment: usize, size: usize) -> Exec {
    ends(cpu, la, environment, size).into_iter().try_for_each(|(la, len)| cpu.probe_read(la, len))
}

extern "C" fn fnstenv(cpu: &mut Cpu, op: &Op) -> Exec {
    begin_no_wait(cpu)?;
    let size = environment_size(op);
    let address = cpu.linear(op, size, AccessKind::Write)?;
    let bytes = image(cpu, size);
    let mode = cpu.run.mmu_mode;
    probe_write(cpu, address, size, size)?;
    cpu.write_bytes(address, &bytes[..size], mode)?;
    let masked = cpu.arch.fpu.control | status::EXCEPTIONS;
    cpu.arch.fpu.set_control_word(masked);
    Ok(())
}

extern "C" fn fldenv(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let size = environment_size(op);
    let address = cpu.linear(op, size, AccessKind::Read)?;
    let mut bytes = [0; LONG];
    let mode = cpu.run.mmu_mode;
    probe_read(cpu, address, size, size)?;
    cpu.read_bytes(address, &mut bytes[..size], mode)?;
    set_image(cpu, &bytes[..size]);
    Ok(())
}

extern "C" fn fnsave(cpu: &mut Cpu, op: &Op) -> Exec {
    begin_no_wait(cpu)?;
    let size = environment_size(op);
    let address = cpu.linear(op, size + REGISTERS, AccessKind::Write)?;
    let mut bytes = [0; LONG + REGISTERS];
    bytes[..size].copy_from_slice(&image(cpu, size)[..size]);
    for (i, chunk) in bytes[size..size + REGISTERS].chunks_exact_mut(10).enumerate() {
        chunk.copy_from_slice(&cpu.arch.fpu.st(i as u8).to_bytes());
    }
    let mode = cpu.run.mmu_mode;
    probe_write(cpu, address, size, size + REGISTERS)?;
    cpu.write_bytes(address, &bytes[..size + REGISTERS], mode)?;
    cpu.arch.fpu.init();
    Ok(())
}

extern "C" fn frstor(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let size = environment_size(op);
    let address = cpu.linear(op, size + REGISTERS, AccessKind::Read)?;
    let mut bytes = [0; LONG + REGISTERS];
    let mode = cpu.run.mmu_mode;
    probe_read(cpu, address, size, size + REGISTERS)?;
    cpu.read_bytes(address, &mut bytes[..size + REGISTERS], mode)?;
    set_image(cpu, &bytes[..size]);
    for (i, chunk) in bytes[size..size + REGISTERS].chunks_exact(10).enumerate() {
        let mut value = [0; 10];
        value.copy_from_slice(chunk);
        let physical = cpu.arch.fpu.physical(i as u8);
        cpu.arch.fpu.regs[physical] = F80::from_bytes(value);
    }
    Ok(())
}
