//! Which task a switch goes to, and whether it may (SDM Vol. 3A, 7.3, steps 1 to 4; Vol. 2, CALL,
//! JMP, INT n and IRET).

use cloister_x86::segment::seg;

use crate::cpu::Cpu;
use crate::exec::system::descriptor::{Descriptor, selector_code, system_type};
use crate::exit::Exec;

/// A task by its TSS, of which all is checked but the limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The TSS descriptor.
    pub(crate) descriptor: Descriptor,
    /// The selector that names it.
    pub(crate) selector: u16,
}

/// The task that a far CALL or JMP leads to by the descriptor that `selector` names; `None` if
/// that is neither a TSS nor a task gate, or where there are no task switches.
///
/// # Errors
///
/// #GP and #NP.
pub(crate) fn of_branch(
    cpu: &mut Cpu,
    descriptor: Descriptor,
    selector: u16,
) -> Exec<Option<Target>> {
    let kind = descriptor.kind();
    let gate = kind == system_type::TASK_GATE;
    if cpu.long_mode() || !(gate || is_available(kind) || is_busy(kind)) {
        return Ok(None);
    }
    let code = selector_code(selector);
    let rights = descriptor.rights();
    let level = cpu.arch.cpl.max((selector & 3) as u8);
    // A TSS descriptor is one in the GDT only.
    if rights.dpl() < level || (!gate && (selector & 4 != 0 || is_busy(kind))) {
        return Err(cpu.gp(code));
    }
    if !rights.present() {
        return Err(cpu.np(code));
    }
    let target = if gate { of_gate(cpu, descriptor, 0)? } else { Target { descriptor, selector } };
    Ok(Some(target))
}

/// The task that a task gate leads to. The gate's own rights are checked already; the DPL of the
/// TSS and the RPL in the gate do not matter (SDM Vol. 3A, 7.2.5).
///
/// # Errors
///
/// #GP and #NP with EXT as given.
pub(crate) fn of_gate(cpu: &mut Cpu, gate: Descriptor, ext: u32) -> Exec<Target> {
    let selector = gate.gate_selector();
    let code = selector_code(selector) | ext;
    let found = in_gdt(cpu, selector)?.filter(|descriptor| is_available(descriptor.kind()));
    let Some(descriptor) = found else {
        return Err(cpu.gp(code));
    };
    if !descriptor.rights().present() {
        return Err(cpu.np(code));
    }
    Ok(Target { descriptor, selector })
}

/// The task that the link in the current TSS names, for IRET.
///
/// # Errors
///
/// #TS and #NP.
pub(crate) fn of_return(cpu: &mut Cpu) -> Exec<Target> {
    let current = cpu.arch.segs[seg::TR];
    if current.limit < 1 {
        return Err(cpu.ts(selector_code(current.selector)));
    }
    let selector = cpu.read_system::<2>(current.base)? as u16;
    let code = selector_code(selector);
    let found = in_gdt(cpu, selector)?.filter(|descriptor| is_busy(descriptor.kind()));
    let Some(descriptor) = found else {
        return Err(cpu.ts(code));
    };
    if !descriptor.rights().present() {
        return Err(cpu.np(code));
    }
    Ok(Target { descriptor, selector })
}

/// The descriptor of a selector without TI; a null selector does not name a TSS. `None` beyond the
/// GDT's limit.
///
/// # Errors
///
/// As [`Cpu::descriptor`].
pub(crate) fn in_gdt(cpu: &mut Cpu, selector: u16) -> Exec<Option<Descriptor>> {
    if selector & 0xfffc == 0 || selector & 4 != 0 { Ok(None) } else { cpu.descriptor(selector) }
}

fn is_available(kind: u32) -> bool {
    matches!(kind, system_type::TSS_AVAILABLE | system_type::TSS16_AVAILABLE)
}

fn is_busy(kind: u32) -> bool {
    matches!(kind, system_type::TSS_BUSY | system_type::TSS16_BUSY)
}
