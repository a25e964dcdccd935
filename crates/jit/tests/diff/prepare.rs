//! What certain instructions need in order not to fault every time.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::address::{address_of, stack_top};
use super::case::{DATA, Mode, State};
use super::place::data_offset;
use super::random::Random;
use super::segments;

/// Makes a drawn state fit its instruction.
pub(crate) fn prepare(
    instruction: &Instruction,
    mode: Mode,
    state: &mut State,
    random: &mut Random,
) {
    let address_of =
        |instruction: &Instruction, state: &State| address_of(instruction, mode, state);
    let at_address = |state: &mut State, address: u64, bytes: &[u8]| {
        let offset = address.wrapping_sub(DATA) as usize;
        if let Some(slot) = state.data.get_mut(offset..offset.saturating_add(bytes.len())) {
            slot.copy_from_slice(bytes);
        }
    };
    match instruction.mnemonic() {
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => {
            // No trap flag and no alignment checks: they act on what follows.
            let flags = random.next() & !0x4_0100;
            let sp = stack_top(mode, state);
            at_address(state, sp, &flags.to_le_bytes());
        }
        Mnemonic::Ldmxcsr | Mnemonic::Stmxcsr | Mnemonic::Vldmxcsr | Mnemonic::Vstmxcsr
            if !random.one_in(8) =>
        {
            let mxcsr = random.next() as u32 & 0xffff;
            let at = address_of(instruction, state);
            at_address(state, at, &mxcsr.to_le_bytes());
        }
        Mnemonic::Call | Mnemonic::Jmp | Mnemonic::Ret => {
            // Targets that exist.
            let target = (state.rip + 20 + random.below(90)).to_le_bytes();
            let at = if instruction.mnemonic() == Mnemonic::Ret {
                stack_top(mode, state)
            } else if instruction.op0_kind() == OpKind::Memory {
                address_of(instruction, state)
            } else {
                if instruction.op0_kind() == OpKind::Register && !random.one_in(8) {
                    state.gpr[instruction.op0_register().number()] = u64::from_le_bytes(target);
                }
                return;
            };
            if !random.one_in(8) {
                at_address(state, at, &target);
            }
        }
        Mnemonic::Div | Mnemonic::Idiv if !random.one_in(4) => {
            // Quotients that fit.
            state.gpr[2] = if random.one_in(2) { 0 } else { random.below(200) };
            state.gpr[0] >>= random.below(64);
        }
        Mnemonic::Cmpxchg16b | Mnemonic::Cmpxchg8b if random.one_in(2) => {
            let at = address_of(instruction, state);
            let (rax, rdx) = (state.gpr[0], state.gpr[2]);
            if instruction.mnemonic() == Mnemonic::Cmpxchg16b {
                at_address(state, at, &rax.to_le_bytes());
                at_address(state, at.wrapping_add(8), &rdx.to_le_bytes());
            } else {
                at_address(state, at, &(rax as u32).to_le_bytes());
                at_address(state, at.wrapping_add(4), &(rdx as u32).to_le_bytes());
            }
        }
        Mnemonic::Mov | Mnemonic::Pop
            if instruction.op0_kind() == OpKind::Register
                && instruction.op0_register().is_segment_register() =>
        {
            let selector = segment_selector(random);
            if instruction.op_count() == 1 {
                let sp = stack_top(mode, state);
                at_address(state, sp, &selector.to_le_bytes());
            } else if instruction.op1_kind() == OpKind::Memory {
                let at = address_of(instruction, state);
                at_address(state, at, &selector.to_le_bytes());
            } else {
                let slot = &mut state.gpr[instruction.op1_register().number()];
                *slot = *slot & !0xffff | u64::from(selector);
            }
        }
        Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lss | Mnemonic::Lfs | Mnemonic::Lgs => {
            let offset = instruction.op0_register().size() as u64;
            let at = address_of(instruction, state).wrapping_add(offset);
            at_address(state, at, &segment_selector(random).to_le_bytes());
        }
        Mnemonic::Leave if !random.one_in(4) => {
            let kept = state.gpr[5] & !0xffff_ffff;
            let offset = state.gpr[4].wrapping_add(random.below(64)) & 0xffff_ffff;
            state.gpr[5] = if mode.is_64() { state.gpr[4] } else { kept | offset };
        }
        Mnemonic::Bound if !random.one_in(4) => {
            // Bounds around the index.
            let at = address_of(instruction, state);
            let size = instruction.op0_register().size() as u64;
            let number = instruction.op0_register().number();
            let index = state.gpr[number];
            let (low, high) =
                (index.wrapping_sub(random.below(3)), index.wrapping_add(random.below(3)));
            at_address(state, at.wrapping_add(size), &high.to_le_bytes()[..size as usize]);
            at_address(state, at, &low.to_le_bytes()[..size as usize]);
        }
        Mnemonic::Enter if !mode.is_64() && !random.one_in(4) => {
            state.gpr[5] = state.gpr[5] & !0xffff | data_offset(random);
        }
        Mnemonic::Lar | Mnemonic::Lsl | Mnemonic::Verr | Mnemonic::Verw => {
            let selector = selector(random);
            let operand = instruction.op_count() - 1;
            if instruction.op_kind(operand) == OpKind::Memory {
                let at = address_of(instruction, state);
                at_address(state, at, &selector.to_le_bytes());
            } else {
                let number = instruction.op_register(operand).number();
                state.gpr[number] = state.gpr[number] & !0xffff | u64::from(selector);
            }
        }
        Mnemonic::Fxrstor | Mnemonic::Fxrstor64 if !random.one_in(8) => {
            let at = address_of(instruction, state);
            at_address(state, at.wrapping_add(24), &valid_mxcsr(random));
        }
        Mnemonic::Xrstor | Mnemonic::Xrstor64 => {
            request_components(state, random);
            let at = address_of(instruction, state);
            if !random.one_in(8) {
                at_address(state, at.wrapping_add(24), &valid_mxcsr(random));
            }
            at_address(state, at.wrapping_add(512), &xsave_header(random));
        }
        Mnemonic::Xsave
        | Mnemonic::Xsave64
        | Mnemonic::Xsavec
        | Mnemonic::Xsavec64
        | Mnemonic::Xsaveopt
        | Mnemonic::Xsaveopt64 => request_components(state, random),
        // Not 1, which tells XCR0 & XINUSE where CPUID.(0DH,1):EAX says so.
        Mnemonic::Xgetbv => state.gpr[1] = random.pick(&[0, 0, 1 << 32, 2, 3, 0xffff_ffff]),
        Mnemonic::Wrfsbase | Mnemonic::Wrgsbase if !random.one_in(4) => {
            state.gpr[instruction.op0_register().number()] >>= 17;
        }
        _ => {}
    }
}

fn valid_mxcsr(random: &mut Random) -> [u8; 4] {
    (random.next() as u32 & 0xffff).to_le_bytes()
}

/// EDX:EAX of an XSAVE instruction: x87, SSE and AVX state, and components that no processor has.
/// The host has others that the interpreter does not have here.
fn request_components(state: &mut State, random: &mut Random) {
    state.gpr[0] = random.next() & !0xffff_ffff | random.below(8);
    state.gpr[2] = random.next() & !0x4000_0000;
}

/// An XSAVE header, valid mostly (SDM Vol. 1, 13.4.2).
fn xsave_header(random: &mut Random) -> [u8; 64] {
    let mut header = [0; 64];
    let mut bitmap = random.below(8);
    if random.one_in(16) {
        // No processor has this component.
        bitmap |= 1 << 61;
    }
    let compaction = if random.one_in(3) { 1 << 63 | random.below(8) } else { 0 };
    header[..8].copy_from_slice(&bitmap.to_le_bytes());
    header[8..16].copy_from_slice(&compaction.to_le_bytes());
    if random.one_in(16) {
        header[16 + random.below(48) as usize] = 1;
    }
    header
}

/// A selector for a segment register: mostly one that is good for data.
fn segment_selector(random: &mut Random) -> u16 {
    let entries = segments::TABLE.len() as u64;
    match random.below(10) {
        0 => 0,
        1 => segments::USER_DS,
        2 => (random.below(entries + 2) as u16 * 8) | 4 | random.below(4) as u16,
        3 => selector(random),
        _ => segments::selector(random.below(entries) as usize),
    }
}

/// A selector of which the host's descriptor is known: not those of thread-local storage and of
/// the processor's number.
fn selector(random: &mut Random) -> u16 {
    let index = match random.below(8) {
        0 => 16 + random.below(8000),
        _ => random.below(12),
    };
    // Requestor privilege level 3 mostly; sometimes the local descriptor table, which is empty.
    let rpl = if random.one_in(3) { random.below(4) } else { 3 };
    let table = if random.one_in(12) { 4 } else { 0 };
    (index << 3 | table | rpl) as u16
}
