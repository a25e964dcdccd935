//! SYSCALL, SYSRET, SYSENTER and SYSEXIT (SDM Vol. 2B; Vol. 3A, 5.8.7 and 5.8.8).

use cloister_x86::Gpr;
use cloister_x86::addr::is_canonical;
use cloister_x86::regs::{Cr0, Efer, Rflags};
use cloister_x86::segment::{Rights, Segment, seg};

use crate::cpu::Cpu;
use crate::exec::table::{rewrite, rows};
use crate::exit::Exec;
use crate::op::{Handler, Op};

// Of instructions that are illegal in an enclave the manual names SYSCALL and SYSENTER, for they load
// segment registers and may change the privilege level. SYSRET and SYSEXIT do the same.
rows! {
    Syscall => rewrite(|_, _, op| form(op, syscall, 4)).leaves().illegal_in_enclave(),
    Sysret => rewrite(|_, _, op| form(op, sysret, 4)).leaves().illegal_in_enclave(),
    Sysretq => rewrite(|_, _, op| form(op, sysret, 8)).leaves().illegal_in_enclave(),
    Sysenter => rewrite(|_, _, op| form(op, sysenter, 4)).leaves().illegal_in_enclave(),
    Sysexit => rewrite(|_, _, op| form(op, sysexit, 4)).leaves().illegal_in_enclave(),
    Sysexitq => rewrite(|_, _, op| form(op, sysexit, 8)).leaves().illegal_in_enclave(),
}

fn form(op: Op, run: Handler, size: u8) -> Option<Op> {
    Some(Op { run, size, ..op })
}

/// Accessed, readable code; present; 4 GiB.
const CODE: u32 = 0x809b;
/// Accessed, writable data; present; 4 GiB, 32-bit.
const DATA: u32 = 0xc093;
const L: u32 = 1 << 13;
const D: u32 = 1 << 14;

/// Loads CS and SS with the fixed flat segments of these instructions.
fn flat_segments(cpu: &mut Cpu, cs: u16, ss: u16, cpl: u8, width: u32) {
    let dpl = u32::from(cpl) << 5;
    let flat = |selector: u16, rights: u32| Segment {
        selector: selector & !3 | u16::from(cpl),
        base: 0,
        limit: 0xffff_ffff,
        rights: Rights(rights | dpl),
    };
    cpu.arch.segs[seg::CS] = flat(cs, CODE | width);
    cpu.arch.segs[seg::SS] = flat(ss, DATA);
    cpu.arch.cpl = cpl;
}

extern "C" fn syscall(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.arch.efer.contains(Efer::SCE) || !cpu.run.mode.is_64() {
        return Err(cpu.ud());
    }
    let flags = cpu.rflags() & !Rflags::RF.bits();
    cpu.arch.gpr[Gpr::Rcx] = cpu.next_rip(op);
    cpu.arch.gpr[Gpr::R11] = flags;
    cpu.arch.rip = cpu.arch.msrs.lstar;
    let cs = (cpu.arch.msrs.star >> 32) as u16;
    flat_segments(cpu, cs, cs.wrapping_add(8), 0, L);
    cpu.set_rflags(flags & !cpu.arch.msrs.fmask);
    // A mask that clears TF takes effect at once.
    cpu.run.single_step &= cpu.arch.system_flags.contains(Rflags::TF);
    Ok(())
}

extern "C" fn sysret(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.arch.efer.contains(Efer::SCE) || !cpu.run.mode.is_64() {
        return Err(cpu.ud());
    }
    let rip = cpu.arch.gpr[Gpr::Rcx];
    if cpu.arch.cpl != 0 || (op.size == 8 && !is_canonical(rip)) {
        return Err(cpu.gp(0));
    }
    let base = (cpu.arch.msrs.star >> 48) as u16;
    if op.size == 8 {
        cpu.arch.rip = rip;
        flat_segments(cpu, base.wrapping_add(16), base.wrapping_add(8), 3, L);
    } else {
        cpu.arch.rip = rip & 0xffff_ffff;
        flat_segments(cpu, base, base.wrapping_add(8), 3, D);
    }
    // RF and VM are not restored (SDM Vol. 2B, SYSRET).
    cpu.set_rflags(cpu.arch.gpr[Gpr::R11] & 0x003c_7fd7);
    if cpu.arch.system_flags.contains(Rflags::TF) {
        // Unlike IRET: TF loaded by SYSRET traps before the first instruction of the user.
        crate::event::debug::pend_single_step(cpu);
    }
    Ok(())
}

extern "C" fn sysenter(cpu: &mut Cpu, _op: &Op) -> Exec {
    let cs = cpu.arch.msrs.sysenter_cs as u16;
    if !cpu.arch.cr0.contains(Cr0::PE) || cs & 0xfffc == 0 {
        return Err(cpu.gp(0));
    }
    let long = cpu.long_mode();
    let truncate = |value: u64| if long { value } else { value & 0xffff_ffff };
    cpu.arch.gpr[Gpr::Rsp] = truncate(cpu.arch.msrs.sysenter_esp);
    cpu.arch.rip = truncate(cpu.arch.msrs.sysenter_eip);
    flat_segments(cpu, cs, cs.wrapping_add(8), 0, if long { L } else { D });
    cpu.arch.system_flags.remove(Rflags::VM | Rflags::IF | Rflags::RF);
    cpu.update_mode();
    Ok(())
}

extern "C" fn sysexit(cpu: &mut Cpu, op: &Op) -> Exec {
    let cs = cpu.arch.msrs.sysenter_cs as u16;
    if !cpu.arch.cr0.contains(Cr0::PE) || cs & 0xfffc == 0 || cpu.arch.cpl != 0 {
        return Err(cpu.gp(0));
    }
    let (rsp, rip) = (cpu.arch.gpr[Gpr::Rcx], cpu.arch.gpr[Gpr::Rdx]);
    if op.size == 8 {
        if !is_canonical(rsp) || !is_canonical(rip) {
            return Err(cpu.gp(0));
        }
        (cpu.arch.gpr[Gpr::Rsp], cpu.arch.rip) = (rsp, rip);
        flat_segments(cpu, cs.wrapping_add(32), cs.wrapping_add(40), 3, L);
    } else {
        (cpu.arch.gpr[Gpr::Rsp], cpu.arch.rip) = (rsp & 0xffff_ffff, rip & 0xffff_ffff);
        flat_segments(cpu, cs.wrapping_add(16), cs.wrapping_add(24), 3, D);
    }
    cpu.update_mode();
    Ok(())
}
