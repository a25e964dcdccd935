//! Instructions without an effect on registers: NOP and hints, cache control, fences, UD.

use std::sync::atomic::{Ordering, fence};

use crate::cpu::Cpu;
use crate::exec::invalid;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::Op;

rows! {
    // The operand of the multi-byte NOP and of hints, prefetches among them, is not accessed.
    Nop | Reservednop => always(no_operation),
    Pause => always(pause),
    Clflush | Clflushopt | Clwb => always(flush_line),
    Lfence | Sfence => always(no_operation_fence),
    Mfence => always(full_fence),
    Ud0 | Ud1 | Ud2 => always(invalid).leaves(),
}

extern "C" fn no_operation(_cpu: &mut Cpu, _op: &Op) -> Exec {
    Ok(())
}

/// PAUSE: the guest waits for another processor, whose thread may need this one's core.
extern "C" fn pause(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.intercept_pause(op)?;
    cpu.package.crowd.pause(&mut cpu.run.patience);
    Ok(())
}

/// LFENCE and SFENCE order what the accesses of [`crate::mem::host`] order already.
extern "C" fn no_operation_fence(_cpu: &mut Cpu, _op: &Op) -> Exec {
    fence(Ordering::AcqRel);
    Ok(())
}

extern "C" fn full_fence(_cpu: &mut Cpu, _op: &Op) -> Exec {
    fence(Ordering::SeqCst);
    Ok(())
}

/// The caches of the host are coherent; what remains is the check of a load (SDM Vol. 2A,
/// CLFLUSH), for which data breakpoints watch.
extern "C" fn flush_line(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, 1, AccessKind::Execute)?;
    cpu.check_access(la, 1, AccessKind::Read, cpu.run.mmu_mode)?;
    cpu.translate(la, AccessKind::Read, cpu.run.mmu_mode).map(drop)
}
