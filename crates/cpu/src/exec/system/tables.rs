//! LGDT, LIDT, SGDT, SIDT, LLDT, SLDT, LTR and STR (SDM Vol. 2; Vol. 3A, 2.4).

use cloister_x86::addr::is_canonical;
use cloister_x86::regs::Cr4;
use cloister_x86::segment::{Rights, Segment, TableRegister, seg};
use cloister_x86::vmx::ExitReason;
use iced_x86::{Code, Instruction};

use super::descriptor::{is_null, selector_code, system_type};
use super::task;
use crate::cpu::Cpu;
use crate::exec::table::{always, rewrite, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::mode::Mode;
use crate::op::{Handler, NO_MEMORY, Op};

rows! {
    Lgdt => rewrite(|i, mode, op| form(i, mode, op, lgdt)).ends_block(),
    Lidt => rewrite(|i, mode, op| form(i, mode, op, lidt)).ends_block(),
    Sgdt => rewrite(|i, mode, op| form(i, mode, op, sgdt)).illegal_in_enclave(),
    Sidt => rewrite(|i, mode, op| form(i, mode, op, sidt)).illegal_in_enclave(),
    Lldt => always(lldt).ends_block(),
    Ltr => always(ltr).ends_block(),
    Sldt => always(store_selector::<{ seg::LDTR }>).illegal_in_enclave(),
    Str => always(store_selector::<{ seg::TR }>).illegal_in_enclave(),
}

/// An instruction with a pseudo-descriptor: the bytes of its base are kept in [`Op::extra`].
fn form(instruction: &Instruction, mode: Mode, op: Op, run: Handler) -> Option<Op> {
    let extra = match instruction.code() {
        // With a 16-bit operand size LGDT and LIDT load 24 bits of base.
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => 2,
        _ if mode.is_64() => 8,
        _ => 4,
    };
    Some(Op { run, extra, ..op })
}

/// What of a pseudo-descriptor's base is loaded or stored: 2 (24 bits), 4 or 8 bytes.
const fn base_size(op: &Op) -> u32 {
    op.extra
}

impl Cpu {
    /// #GP(0) above privilege level 0.
    ///
    /// # Errors
    ///
    /// #GP(0).
    pub(crate) fn require_cpl0(&mut self) -> Exec {
        if self.arch.cpl == 0 { Ok(()) } else { Err(self.gp(0)) }
    }

    /// #GP(0) where user-mode instruction prevention forbids the instruction
    /// (SDM Vol. 3A, 2.5, CR4.UMIP).
    ///
    /// # Errors
    ///
    /// #GP(0).
    pub(crate) fn check_umip(&mut self) -> Exec {
        if self.arch.cpl > 0 && self.arch.cr4.contains(Cr4::UMIP) {
            Err(self.gp(0))
        } else {
            Ok(())
        }
    }

    /// #UD in real-address and virtual-8086 mode.
    ///
    /// # Errors
    ///
    /// #UD.
    pub(crate) fn require_protected(&mut self) -> Exec {
        if self.run.mode.is_real() { Err(self.ud()) } else { Ok(()) }
    }
}

/// LGDT and SGDT, LIDT and SIDT in instruction information: which, and the operand size.
fn intercept_table(cpu: &mut Cpu, op: &Op, identity: u32) -> Exec {
    let size = if base_size(op) == 2 { 0 } else { 1 << 11 };
    cpu.intercept_descriptor(op, ExitReason::GdtrOrIdtr, identity, size)
}

fn load_table(cpu: &mut Cpu, op: &Op, identity: u32) -> Exec<TableRegister> {
    cpu.require_cpl0()?;
    intercept_table(cpu, op, identity)?;
    let wide = base_size(op) == 8;
    let la = cpu.linear(op, if wide { 10 } else { 6 }, AccessKind::Read)?;
    let limit = cpu.load::<u16>(la)?;
    let at = cpu.system_linear(la.wrapping_add(2));
    let base = match base_size(op) {
        8 => cpu.load::<u64>(at)?,
        4 => u64::from(cpu.load::<u32>(at)?),
        _ => u64::from(cpu.load::<u32>(at)? & 0xff_ffff),
    };
    if wide && !is_canonical(base) {
        return Err(cpu.gp(0));
    }
    Ok(TableRegister { base, limit })
}

extern "C" fn lgdt(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.arch.gdtr = load_table(cpu, op, 2)?;
    Ok(())
}

extern "C" fn lidt(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.arch.idtr = load_table(cpu, op, 3)?;
    Ok(())
}

fn store_table(cpu: &mut Cpu, op: &Op, table: TableRegister, identity: u32) -> Exec {
    cpu.check_umip()?;
    intercept_table(cpu, op, identity)?;
    let size = if base_size(op) == 8 { 10 } else { 6 };
    let la = cpu.linear(op, size, AccessKind::Write)?;
    // Limit and base are aligned each for itself (SDM Vol. 3A, 3.5.1).
    cpu.check_alignment(la, 2)?;
    cpu.check_alignment(la.wrapping_add(2), size as u64 - 2)?;
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&table.limit.to_le_bytes());
    bytes[2..].copy_from_slice(&table.base.to_le_bytes());
    cpu.write_bytes(la, &bytes[..size], cpu.run.mmu_mode)
}

extern "C" fn sgdt(cpu: &mut Cpu, op: &Op) -> Exec {
    store_table(cpu, op, cpu.arch.gdtr, 0)
}

extern "C" fn sidt(cpu: &mut Cpu, op: &Op) -> Exec {
    store_table(cpu, op, cpu.arch.idtr, 1)
}

fn selector_operand(cpu: &mut Cpu, op: &Op) -> Exec<u16> {
    if op.mem_operand == NO_MEMORY { Ok(cpu.dst(op)) } else { cpu.load_operand(op) }
}

/// A 16-byte system descriptor in IA-32e mode, an 8-byte one elsewhere, as a segment.
fn system_segment(
    cpu: &mut Cpu,
    selector: u16,
    accepts: impl Fn(u32) -> bool,
) -> Exec<(super::descriptor::Descriptor, Segment)> {
    let code = selector_code(selector);
    let long = cpu.long_mode();
    let size = if long { 16 } else { 8 };
    let found = if selector & 4 == 0 { cpu.descriptor_of_size(selector, size)? } else { None };
    let Some(descriptor) = found else {
        return Err(cpu.gp(code));
    };
    if !accepts(descriptor.kind()) {
        return Err(cpu.gp(code));
    }
    if !descriptor.rights().present() {
        return Err(cpu.np(code));
    }
    let mut segment = descriptor.segment(selector);
    if long {
        let high = cpu.read_system::<8>(descriptor.address.wrapping_add(8))?;
        segment.base |= high << 32;
        // The upper doubleword's type field must be zero (SDM Vol. 3A, figure 7-4).
        if !is_canonical(segment.base) || high >> 40 & 0x1f != 0 {
            return Err(cpu.gp(code));
        }
    }
    Ok((descriptor, segment))
}

extern "C" fn lldt(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    cpu.intercept_descriptor(op, ExitReason::LdtrOrTr, 2, 0)?;
    let selector = selector_operand(cpu, op)?;
    cpu.arch.segs[seg::LDTR] = if is_null(selector) {
        Segment { selector, base: 0, limit: 0, rights: Rights(Rights::UNUSABLE) }
    } else {
        system_segment(cpu, selector, |kind| kind == system_type::LDT)?.1
    };
    Ok(())
}

extern "C" fn ltr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    cpu.intercept_descriptor(op, ExitReason::LdtrOrTr, 3, 0)?;
    let selector = selector_operand(cpu, op)?;
    if is_null(selector) {
        return Err(cpu.gp(0));
    }
    let long = cpu.long_mode();
    let (descriptor, mut segment) = system_segment(cpu, selector, |kind| {
        kind == system_type::TSS_AVAILABLE || (!long && kind == system_type::TSS16_AVAILABLE)
    })?;
    if !task::busy::take(cpu, descriptor)? {
        return Err(cpu.gp(selector_code(selector)));
    }
    segment.rights.0 |= 2;
    cpu.arch.segs[seg::TR] = segment;
    Ok(())
}

extern "C" fn store_selector<const SEGMENT: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    cpu.check_umip()?;
    let identity = if SEGMENT == seg::LDTR { 0 } else { 1 };
    cpu.intercept_descriptor(op, ExitReason::LdtrOrTr, identity, 0)?;
    let selector = cpu.arch.segs[SEGMENT].selector;
    if op.mem_operand != NO_MEMORY {
        return cpu.store_operand(op, selector);
    }
    match op.size {
        2 => cpu.set_dst(op, selector),
        _ => cpu.set_dst(op, u64::from(selector)),
    }
    Ok(())
}
