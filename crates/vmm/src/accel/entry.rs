//! The state in which a machine's bootstrap processor begins.

use cloister_boot::EntryState;
use cloister_cpu::ArchState;
use cloister_x86::segment::seg;
use cloister_x86::{Gpr, Rights, Segment, TableRegister};

/// The state of the bootstrap processor where a boot protocol enters the kernel.
pub(super) fn at_entry(entry: &EntryState) -> ArchState {
    let mut state = ArchState::at_reset(true);
    state.rip = entry.rip;
    state.gpr[Gpr::Rbx] = entry.rbx;
    state.gpr[Gpr::Rsp] = entry.rsp;
    state.gpr[Gpr::Rsi] = entry.rsi;
    state.cr0 = entry.cr0;
    state.cr3 = entry.cr3;
    state.cr4 = entry.cr4;
    state.efer = entry.efer;
    state.segs[seg::CS] = entry.cs;
    for index in [seg::DS, seg::ES, seg::FS, seg::GS, seg::SS] {
        state.segs[index] = entry.data;
    }
    state.segs[seg::TR] = entry.tr;
    state.segs[seg::LDTR] = Segment { rights: Rights(Rights::UNUSABLE), ..Segment::default() };
    state.gdtr = TableRegister { base: entry.gdt_base, limit: entry.gdt_limit };
    state.idtr = TableRegister::default();
    state
}
