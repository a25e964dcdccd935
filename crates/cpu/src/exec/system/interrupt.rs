//! INT n, INT3, INTO and INT1 (SDM Vol. 2A, INT n).

use cloister_x86::{Exception, Vector};

use crate::cpu::Cpu;
use crate::event::{Event, Kind, attempt, debug, deliver_exception};
use crate::exec::table::{always, rows};
use crate::exit::{Exec, Stop};
use crate::op::Op;
use crate::vmx::event::{Origin, Vectoring};
use crate::vmx::{self, VmExit};

rows! {
    Int => always(int).leaves().illegal_in_enclave(),
    Int3 => always(int3).leaves(),
    Into => always(into).leaves().illegal_in_enclave(),
    Int1 => always(int1).leaves(),
}

/// On an error the engine puts `rip` back to this instruction, as the fault of INT n reports it.
fn software(cpu: &mut Cpu, op: &Op, vector: u8, kind: Kind) -> Exec {
    let event = Event::plain(vector, kind);
    if let Some(exit) = vmx::event::intercepted(cpu, &event) {
        return Err(cpu.vm_exit(VmExit { length: op.len.into(), ..exit }));
    }
    cpu.arch.rip = cpu.next_rip(op);
    if cpu.guest_controls().is_some() {
        cpu.run.vectoring = Vectoring::of(cpu, &event, op.len.into(), Origin::Outside);
    }
    let outcome = attempt(cpu, event);
    if !matches!(outcome, Err(Stop::FAULT | Stop::VM_EXIT)) {
        cpu.run.vectoring = Vectoring::default();
    }
    match outcome? {
        None => Ok(()),
        // The instruction is over: what faults is the task that it switched to.
        Some(fault) => deliver_exception(cpu, fault).map_err(|exit| cpu.exit_with(exit)),
    }
}

extern "C" fn int(cpu: &mut Cpu, op: &Op) -> Exec {
    if super::virtual_8086::redirect(cpu, op.imm as u8, cpu.next_rip(op))? {
        return Ok(());
    }
    software(cpu, op, op.imm as u8, Kind::SoftwareInterrupt)
}

/// INT1 and INT3 in an enclave are faults: #UD after an entry that is opted out of debugging, else
/// what they are outside, but before the instruction and whatever the gate's DPL
/// (SDM Vol. 3D, 40.4.1).
fn check_enclave(cpu: &mut Cpu, vector: Vector) -> Exec {
    if cpu.enclave.debug_opt_out() {
        return Err(cpu.ud());
    }
    if cpu.enclave.in_enclave() {
        return Err(cpu.raise(Exception::new(vector)));
    }
    Ok(())
}

extern "C" fn int3(cpu: &mut Cpu, op: &Op) -> Exec {
    check_enclave(cpu, Vector::Bp)?;
    software(cpu, op, 3, Kind::SoftwareException)
}

extern "C" fn into(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.arch.flags.of() {
        cpu.arch.rip = cpu.next_rip(op);
        return Ok(());
    }
    software(cpu, op, 4, Kind::SoftwareException)
}

extern "C" fn int1(cpu: &mut Cpu, op: &Op) -> Exec {
    check_enclave(cpu, Vector::Db)?;
    let breakpoints = debug::overtake(cpu);
    software(cpu, op, 1, Kind::PrivilegedSoftware)?;
    debug::record(cpu, breakpoints);
    Ok(())
}
