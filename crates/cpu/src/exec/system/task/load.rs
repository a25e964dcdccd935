//! Loading a new task's segments: what comes after the switch is committed (SDM Vol. 3A, 7.3,
//! step 13).

use cloister_x86::segment::{Rights, Segment, seg};

use super::target::in_gdt;
use crate::cpu::Cpu;
use crate::exec::system::descriptor::{Descriptor, is_null, selector_code, system_type};
use crate::exec::system::virtual_8086;
use crate::exit::Exec;

/// A register that holds a selector whose descriptor is not loaded yet.
#[must_use]
pub(crate) const fn selector_only(selector: u16) -> Segment {
    Segment { selector, base: 0, limit: 0, rights: Rights(Rights::UNUSABLE) }
}

/// Loads LDTR and the segment registers by the selectors that are in them, with the checks of
/// SDM Vol. 3A, table 7-1, in its order. What follows a selector that fails stays unusable.
///
/// # Errors
///
/// #TS, #NP, #SS and #PF, all in the new task.
pub(crate) fn segments(cpu: &mut Cpu, ext: u32) -> Exec {
    let outcome = load_all(cpu, ext);
    // Of what was loaded, even if not all was: a fault is delivered on the new stack.
    cpu.update_mode();
    outcome
}

fn load_all(cpu: &mut Cpu, ext: u32) -> Exec {
    load_ldt(cpu, ext)?;
    if cpu.run.mode.is_real() {
        let selectors = std::array::from_fn(|n| cpu.arch.segs[n].selector);
        virtual_8086::set_segments(cpu, selectors);
        check_ldt_present(cpu, ext)?;
    } else {
        load_code_and_stack(cpu, ext)?;
        for index in [seg::DS, seg::ES, seg::FS, seg::GS] {
            load_data(cpu, index, ext)?;
        }
    }
    Ok(())
}

/// Loads LDTR, but for the present bit: that is looked at later.
fn load_ldt(cpu: &mut Cpu, ext: u32) -> Exec {
    let selector = cpu.arch.segs[seg::LDTR].selector;
    if is_null(selector) {
        return Ok(());
    }
    let found = in_gdt(cpu, selector)?.filter(|descriptor| descriptor.kind() == system_type::LDT);
    let Some(descriptor) = found else {
        return Err(cpu.ts(selector_code(selector) | ext));
    };
    cpu.arch.segs[seg::LDTR] = descriptor.segment(selector);
    Ok(())
}

fn check_ldt_present(cpu: &mut Cpu, ext: u32) -> Exec {
    let ldt = cpu.arch.segs[seg::LDTR];
    if ldt.rights.unusable() || ldt.rights.present() {
        return Ok(());
    }
    cpu.arch.segs[seg::LDTR] = selector_only(ldt.selector);
    Err(cpu.ts(selector_code(ldt.selector) | ext))
}

fn load_code_and_stack(cpu: &mut Cpu, ext: u32) -> Exec {
    let [cs, ss] = [seg::CS, seg::SS].map(|index| cpu.arch.segs[index].selector);
    let (code, stack) = (selector_code(cs) | ext, selector_code(ss) | ext);
    let code_segment = find(cpu, cs)?.filter(|descriptor| descriptor.rights().is_code());
    if code_segment.is_some_and(|descriptor| wrong_level(descriptor, cpu.arch.cpl)) {
        return Err(cpu.ts(code));
    }
    let stack_segment = find(cpu, ss)?.filter(|descriptor| descriptor.rights().writable());
    let Some(mut stack_segment) = stack_segment else {
        return Err(cpu.ts(stack));
    };
    if !stack_segment.rights().present() {
        return Err(cpu.ss(stack));
    }
    if stack_segment.rights().dpl() != cpu.arch.cpl {
        return Err(cpu.ts(stack));
    }
    check_ldt_present(cpu, ext)?;
    let Some(mut code_segment) = code_segment else {
        return Err(cpu.ts(code));
    };
    if !code_segment.rights().present() {
        return Err(cpu.np(code));
    }
    if (ss & 3) as u8 != cpu.arch.cpl {
        return Err(cpu.ts(stack));
    }
    cpu.mark_accessed(&mut code_segment)?;
    cpu.arch.segs[seg::CS] = code_segment.segment(cs);
    cpu.mark_accessed(&mut stack_segment)?;
    cpu.arch.segs[seg::SS] = stack_segment.segment(ss);
    Ok(())
}

/// Whether a code segment may not run at privilege level `cpl`.
fn wrong_level(descriptor: Descriptor, cpl: u8) -> bool {
    let rights = descriptor.rights();
    if rights.bit_ec() { rights.dpl() > cpl } else { rights.dpl() != cpl }
}

fn load_data(cpu: &mut Cpu, index: usize, ext: u32) -> Exec {
    let selector = cpu.arch.segs[index].selector;
    if is_null(selector) {
        return Ok(());
    }
    let code = selector_code(selector) | ext;
    let readable = find(cpu, selector)?.filter(|descriptor| descriptor.rights().readable());
    let Some(mut descriptor) = readable else {
        return Err(cpu.ts(code));
    };
    let rights = descriptor.rights();
    if !rights.present() {
        return Err(cpu.np(code));
    }
    let conforming = rights.is_code() && rights.bit_ec();
    if !conforming && rights.dpl() < cpu.arch.cpl.max((selector & 3) as u8) {
        return Err(cpu.ts(code));
    }
    cpu.mark_accessed(&mut descriptor)?;
    cpu.arch.segs[index] = descriptor.segment(selector);
    Ok(())
}

/// The descriptor of a selector; `None` for a null one and beyond its table.
fn find(cpu: &mut Cpu, selector: u16) -> Exec<Option<Descriptor>> {
    if is_null(selector) { Ok(None) } else { cpu.descriptor(selector) }
}
