//! The table against the decoder's lists.

use std::collections::BTreeMap;

use iced_x86::{Code, FlowControl, Instruction, Mnemonic};

use super::{Flow, Holds, Row, Rows, TABLE};
use crate::controls::Features;
use crate::mode::Mode;
use crate::op::{NO_MEMORY, Op};

/// Every encoding of a mnemonic that has a row.
fn claimed() -> impl Iterator<Item = (Code, &'static Row)> {
    Code::values().filter_map(|code| {
        let row = TABLE.get(code.mnemonic() as usize).copied().flatten()?;
        Some((code, row))
    })
}

#[test]
fn a_mnemonic_is_claimed_once_and_found_under_its_number() {
    let mut rows = Rows::new();
    let mut claims: BTreeMap<Mnemonic, Vec<*const Row>> = BTreeMap::new();

    while let Some((row, mnemonic)) = rows.next() {
        claims.entry(mnemonic).or_default().push(std::ptr::from_ref(row));
    }

    for (mnemonic, rows) in &claims {
        let found = TABLE[*mnemonic as usize].map(std::ptr::from_ref);
        assert_eq!(*rows, found.into_iter().collect::<Vec<_>>(), "{mnemonic:?}");
    }
    assert_eq!(TABLE.iter().flatten().count(), claims.len());
}

#[test]
fn branches_and_what_writes_rip_are_those_of_the_decoder() {
    for (code, row) in claimed() {
        let expected = match code.flow_control() {
            FlowControl::Next => Flow::Next,
            FlowControl::ConditionalBranch => Flow::Branch,
            _ => Flow::Leaves,
        };
        let expected = match code.mnemonic() {
            // ENCLU may enter or leave an enclave; HLT retires when it ends.
            Mnemonic::Enclu | Mnemonic::Hlt => Flow::Leaves,
            _ => expected,
        };

        assert_eq!(row.flow, expected, "{code:?}");
    }
}

/// The op of one instruction, and how its block goes on.
fn lowered(bytes: &[u8], mode: Mode) -> (Op, usize) {
    let mut ops = Vec::new();
    crate::lower::lower(bytes, mode, &Features::default(), false, &mut ops);
    (ops[0], ops.len())
}

#[test]
fn an_op_has_the_name_of_what_it_executes() {
    let names = |bytes, mode| {
        let (op, _) = lowered(bytes, mode);
        (op.mnemonic, format!("{op:?}").contains(&format!("{:?}", op.mnemonic)))
    };
    let code64 = Mode::code64();

    assert_eq!(names(&[0x01, 0xd8], code64), (Mnemonic::Add, true));
    assert_eq!(names(&[0x66, 0x0f, 0x38, 0xdc, 0xc1], code64), (Mnemonic::Aesenc, true));
    assert_eq!(names(&[0x0f, 0x0b], code64), (Mnemonic::Ud2, true));
    // VMCALL, and CPUID in an enclave.
    assert_eq!(names(&[0x0f, 0x01, 0xc1], code64).0, Mnemonic::INVALID);
    assert_eq!(names(&[0x0f, 0xa2], code64).0, Mnemonic::Cpuid);
    assert_eq!(names(&[0x0f, 0xa2], code64.with_enclave(true)).0, Mnemonic::INVALID);
}

#[test]
fn a_shared_mnemonic_has_the_operands_of_the_form_that_it_is() {
    let code64 = Mode::code64();
    let string = lowered(&[0xa5], code64).0;
    let vector = lowered(&[0xf2, 0x0f, 0x10, 0xd1], code64).0;
    let compare = lowered(&[0xf2, 0x0f, 0xc2, 0xd1, 0xff], code64).0;

    assert_eq!((string.mnemonic, string.size, string.third), (Mnemonic::Movsd, 4, 0));
    // MOVSD XMM2, XMM1 has the destination as its first source, too.
    let registers = |op: Op| (op.mnemonic, op.dst, op.third, op.src, op.mem_operand);
    assert_eq!(registers(vector), (Mnemonic::Movsd, 2, 2, 1, NO_MEMORY));
    assert_eq!(registers(compare), (Mnemonic::Cmpsd, 2, 2, 1, NO_MEMORY));
    assert_eq!(compare.imm, 7, "eight predicates without a VEX prefix");
}

#[test]
fn a_block_ends_at_a_move_to_a_system_register_alone() {
    // Behind the instruction come NOPs to the end, and what ends the block.
    let goes_on = |bytes: &[u8]| lowered(&[bytes, &[0x90, 0x90]].concat(), Mode::code64()).1 > 2;

    assert!(goes_on(&[0x48, 0x89, 0xd8]), "MOV RAX, RBX");
    assert!(goes_on(&[0x8c, 0xd8]), "MOV EAX, DS");
    assert!(!goes_on(&[0x8e, 0xd8]), "MOV DS, EAX");
    assert!(goes_on(&[0x0f, 0x20, 0xc0]), "MOV RAX, CR0");
    assert!(!goes_on(&[0x0f, 0x22, 0xc0]), "MOV CR0, RAX");
    assert!(goes_on(&[0x0f, 0x21, 0xf8]), "MOV RAX, DR7");
    assert!(!goes_on(&[0x0f, 0x23, 0xf8]), "MOV DR7, RAX");
    assert!(goes_on(&[0x58]), "POP RAX");
    assert!(!goes_on(&[0x0f, 0xa1]), "POP FS");
    assert!(!goes_on(&[0xc5, 0xf8, 0xae, 0x28]), "what the processor does not have");
}

/// The mnemonics in whose row a column says yes whatever the operands are, in order.
fn always(column: impl Fn(&Row) -> Holds) -> Vec<String> {
    let nothing = Instruction::default();
    let rows = TABLE.iter().zip(Mnemonic::values());
    let mut names: Vec<String> = rows
        .filter(|(row, _)| row.is_some_and(|row| column(row).of(&nothing)))
        .map(|(_, mnemonic)| format!("{mnemonic:?}"))
        .collect();
    names.sort();
    names
}

fn sorted(names: &str) -> Vec<&str> {
    let mut names: Vec<&str> = names.split_whitespace().collect();
    names.sort_unstable();
    names
}

#[test]
fn blocks_end_at_what_changes_the_code_after_it_or_needs_a_look_at_events() {
    let segments = "Lds Les Lfs Lgs Lss";
    let control = "Clts Lgdt Lidt Lldt Lmsw Ltr Xsetbv Rdmsr Wrmsr Cpuid";
    let translations = "Invd Invlpg Invpcid Wbinvd Vmfunc";
    let interrupts = "Sti Popf Popfd Popfq";
    let ports = "In Insb Insd Insw Out Outsb Outsd Outsw";
    let enclaves = "Encls Enclv";
    let mxcsr = "Ldmxcsr Vldmxcsr Fxrstor Fxrstor64 Xrstor Xrstor64 Xrstors Xrstors64";

    let all = [segments, control, translations, interrupts, ports, enclaves, mxcsr].join(" ");
    assert_eq!(always(|row| row.ends_block), sorted(&all));
}

#[test]
fn enclaves_forbid_what_exits_ports_and_changes_of_segments() {
    let exiting = "Cpuid Rdpmc Sgdt Sidt Sldt Str Smsw Vmcall Vmfunc";
    let ports = "In Insb Insd Insw Out Outsb Outsd Outsw";
    let transfers =
        "Retf Iret Iretd Iretq Int Into Syscall Sysenter Sysret Sysretq Sysexit Sysexitq";
    let segments = "Lds Les Lfs Lgs Lss";

    let all = [exiting, ports, transfers, segments].join(" ");
    assert_eq!(always(|row| row.illegal_in_enclave), sorted(&all));
}

#[test]
fn a_serializing_instruction_is_the_last_of_its_block() {
    // SDM Vol. 3A, 8.3. Moves to control and debug registers depend on their operands: see above.
    // VMX instructions and RSM have no row.
    let privileged = "Invd Invlpg Lgdt Lidt Lldt Ltr Wbinvd Wrmsr";
    let others = "Cpuid Iret Iretd Iretq";

    let ends = always(|row| row.ends_block);
    let leaves = always(|row| if row.flow == Flow::Leaves { Holds::Always } else { Holds::Never });
    for name in privileged.split_whitespace().chain(others.split_whitespace()) {
        let name = name.to_owned();
        assert!(ends.contains(&name) || leaves.contains(&name), "{name}");
    }
}

/// The rows of mnemonics that differ in the size of the operand alone, as FXSAVE and FXSAVE64, or
/// INSB, INSW and INSD: by what they have in common.
fn sizes_of_one_instruction() -> BTreeMap<String, Vec<(Mnemonic, &'static Row)>> {
    let mut families: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (row, mnemonic) in TABLE.iter().zip(Mnemonic::values()) {
        // MOVD and MOVQ are other instructions than MOV.
        let Some(row) = row.filter(|_| mnemonic != Mnemonic::Mov) else { continue };
        let name = format!("{mnemonic:?}");
        let suffixes = ["64", "b", "w", "d", "q"];
        let stem = suffixes.into_iter().find_map(|suffix| name.strip_suffix(suffix));
        families.entry(stem.unwrap_or(&name).to_owned()).or_default().push((mnemonic, row));
    }
    families.retain(|_, rows| rows.len() > 1);
    families
}

#[test]
fn an_instruction_has_the_same_columns_in_each_size() {
    let families = sizes_of_one_instruction();

    for (stem, rows) in &families {
        let columns = |row: &Row| {
            let sometimes = |holds: Holds| format!("{:?}", std::mem::discriminant(&holds));
            (row.flow, sometimes(row.ends_block), sometimes(row.illegal_in_enclave))
        };
        let (_, first) = rows[0];
        for (mnemonic, row) in rows {
            assert_eq!(columns(row), columns(first), "{mnemonic:?}, a size of {stem}");
        }
    }
    let found = "Ins Iret Popf Sysexit Sysret Xrstor Xsave";
    assert!(found.split_whitespace().all(|stem| families.contains_key(stem)), "{families:?}");
}
