//! What a VMCS and the memory around it contain: something valid, changed in places.

use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::vmcs::{Field, Width};
use cloister_x86::vmx::{
    EntryControls, ExitControls, PinControls, ProcControls, SecondaryControls, interruption,
};
use cloister_x86::{Gpr, msr};

use super::hypervisor::{
    GUEST, PAGE, PD, PDPT, PML4, TABLE, VMCS, VMXON, enter_root, fill_region, map_all,
};
use super::root::OPERAND;
use crate::cpu::Cpu;
use crate::state::ArchState;
use crate::testing::{CODE, DATA, DEVICE, Guest, Numbers, RAM_SIZE, Start};
use crate::vmx::capability;
use crate::vmx::region::{REVISION, SHADOW};

/// The guest's gates, which lead to [`GUEST`], and its descriptors.
const IDT: u64 = 0x10_7000;
const GDT: u64 = 0x10_8000;
/// A shadow VMCS.
pub(super) const LINKED: u64 = 0x10_9000;
/// VMLAUNCH and VMRESUME, one after the other.
const ENTER: [u8; 6] = [0x0f, 0x01, 0xc2, 0x0f, 0x01, 0xc3];
pub(super) const ENTER_LENGTH: u64 = 3;
/// Where VMRESUME is.
pub(super) const RESUME: u64 = CODE + ENTER_LENGTH;
/// Bytes of guest code for each instruction of [`INSTRUCTION_BYTES`], the rest NOPs, and their number.
const SLOT: u64 = 8;
const SLOTS: u64 = 64;

/// Instructions that exit, change what exits, or fault.
const INSTRUCTION_BYTES: [&[u8]; 54] = [
    &[0x0f, 0xa2],                   // CPUID
    &[0xf4],                         // HLT
    &[0x0f, 0x31],                   // RDTSC
    &[0x0f, 0x01, 0xf9],             // RDTSCP
    &[0x0f, 0x32],                   // RDMSR
    &[0x0f, 0x30],                   // WRMSR
    &[0x0f, 0x20, 0xc0],             // MOV RAX, CR0
    &[0x0f, 0x22, 0xc0],             // MOV CR0, RAX
    &[0x0f, 0x22, 0xd8],             // MOV CR3, RAX
    &[0x0f, 0x22, 0xe0],             // MOV CR4, RAX
    &[0x44, 0x0f, 0x22, 0xc0],       // MOV CR8, RAX
    &[0x44, 0x0f, 0x20, 0xc0],       // MOV RAX, CR8
    &[0x0f, 0x23, 0xf8],             // MOV DR7, RAX
    &[0xe4, 0x70],                   // IN AL, 70H
    &[0xef],                         // OUT DX, EAX
    &[0xf3, 0x6e],                   // REP OUTSB
    &[0xf3, 0x6c],                   // REP INSB
    &[0xcd, 0x80],                   // INT 80H
    &[0xcc],                         // INT3
    &[0xf1],                         // INT1
    &[0x0f, 0x0b],                   // UD2
    &[0xfb],                         // STI
    &[0x8e, 0xd0],                   // MOV SS, AX
    &[0x9d],                         // POPF
    &[0x48, 0xcf],                   // IRETQ
    &[0x0f, 0x01, 0xc1],             // VMCALL
    &[0x0f, 0x01, 0xc2],             // VMLAUNCH
    &[0x0f, 0xc7, 0x30],             // VMPTRLD [RAX]
    &[0x0f, 0x78, 0xc8],             // VMREAD RAX, RCX
    &[0x0f, 0x79, 0xc8],             // VMWRITE RCX, RAX
    &[0x0f, 0x01, 0xd4],             // VMFUNC
    &[0x89, 0x80, 0x80, 0, 0, 0],    // MOV [RAX + 80H], EAX
    &[0x09, 0x80, 0x80, 0, 0, 0],    // OR [RAX + 80H], EAX
    &[0x89, 0x80, 0xb0, 0, 0, 0],    // MOV [RAX + 0B0H], EAX
    &[0x89, 0x80, 0, 0x03, 0, 0],    // MOV [RAX + 300H], EAX
    &[0x8b, 0x80, 0x70, 0x02, 0, 0], // MOV EAX, [RAX + 270H]
    &[0xf3, 0x90],                   // PAUSE
    &[0x0f, 0x01, 0x38],             // INVLPG [RAX]
    &[0x66, 0x0f, 0x38, 0x82, 0x00], // INVPCID RAX, [RAX]
    &[0x66, 0x0f, 0x38, 0x80, 0x00], // INVEPT RAX, [RAX]
    &[0x0f, 0x01, 0x10],             // LGDT [RAX]
    &[0x0f, 0x01, 0x08],             // SIDT [RAX]
    &[0x0f, 0x00, 0xd8],             // LTR AX
    &[0x0f, 0x00, 0xc8],             // STR AX
    &[0x0f, 0x09],                   // WBINVD
    &[0x0f, 0xc7, 0xf0],             // RDRAND EAX
    &[0x0f, 0x01, 0xd1],             // XSETBV
    &[0x0f, 0x06],                   // CLTS
    &[0x0f, 0x01, 0xf0],             // LMSW AX
    &[0x48, 0x89, 0x00],             // MOV [RAX], RAX
    &[0x48, 0x8b, 0x00],             // MOV RAX, [RAX]
    &[0xff, 0xe0],                   // JMP RAX
    &[0x0f, 0x34],                   // SYSENTER
    &[0x90],                         // NOP
];

/// A number that may be on one side or the other of a check.
fn value(numbers: &mut Numbers, field: Field, now: u64) -> u64 {
    let bits = match field.width() {
        Width::Bits16 => 16,
        Width::Bits32 => 32,
        Width::Bits64 | Width::Natural => 64,
    };
    match numbers.below(8) {
        0 => numbers.one_of(&[0, 0xfff, 0xffff, 0xffff_ffff, u64::MAX, 1 << 47, !0 << 47, 1 << 52]),
        1 => address(numbers) | numbers.one_of(&[0, 0, 0, 8, 0xfff]),
        2 | 3 => now ^ 1 << numbers.below(bits),
        4 => now.wrapping_add(numbers.one_of(&[1, u64::MAX])),
        5 => numbers.below(16),
        6 => numbers.draw() & 0xfff | u64::from(interruption::VALID),
        _ => numbers.draw() >> numbers.below(64),
    }
}

/// 32 bits, of which one in four is set.
fn few_bits(numbers: &mut Numbers) -> u32 {
    let drawn = numbers.draw();
    (drawn & drawn >> 32) as u32
}

/// Somewhere in memory, at its end or where there is none.
pub(super) fn address(numbers: &mut Numbers) -> u64 {
    numbers.one_of(&[PAGE, DATA, GUEST, DEVICE, PML4, RAM_SIZE - 8, RAM_SIZE, 0xfee0_0000])
}

/// Fills the region at `at`: guest and host as the processor is, any controls that are allowed, and
/// now and then a guest in real-address mode or with PAE paging, an event, or lists of MSRs.
fn fill(cpu: &Cpu, at: u64, numbers: &mut Numbers) {
    let vmcs = cpu.vmcs(at);
    // Nothing stays of what was there.
    for &field in Field::ALL {
        vmcs.write(field, 0);
    }
    fill_region(cpu, at);
    let set = |field, bits: u32| vmcs.write(field, vmcs.read(field) | u64::from(bits));
    for (field, index) in [
        (Field::PIN_CONTROLS, msr::VMX_TRUE_PINBASED_CTLS),
        (Field::PROC_CONTROLS, msr::VMX_TRUE_PROCBASED_CTLS),
        (Field::SECONDARY_CONTROLS, msr::VMX_PROCBASED_CTLS2),
        (Field::EXIT_CONTROLS, msr::VMX_TRUE_EXIT_CTLS),
        (Field::ENTRY_CONTROLS, msr::VMX_TRUE_ENTRY_CTLS),
    ] {
        let permitted = capability::read(index, &cpu.ctl.features).unwrap_or(0) >> 32;
        set(field, permitted as u32 & few_bits(numbers));
    }
    let ia32e = EntryControls::IA32E.bits();
    set(Field::ENTRY_CONTROLS, ia32e);
    let second = SecondaryControls::from_bits_truncate(vmcs.read_32(Field::SECONDARY_CONTROLS));
    if second.contains(SecondaryControls::UNRESTRICTED_GUEST) {
        set(Field::SECONDARY_CONTROLS, SecondaryControls::EPT.bits());
    }
    virtual_apic(cpu, at, second, numbers);
    let activated = vmcs.read_32(Field::PROC_CONTROLS) & ProcControls::SECONDARY.bits() != 0;
    if activated && second.contains(SecondaryControls::VMCS_SHADOWING) {
        cpu.physical_page(LINKED).write(0, (REVISION | SHADOW).into());
        vmcs.write(Field::LINK_POINTER, LINKED);
    }
    let timer = numbers.one_of(&[0, 1, u64::from(u32::MAX)]);
    let pat = cpu.arch.msrs.pat;
    for (field, value) in [
        (Field::IO_BITMAP_A, PAGE),
        (Field::IO_BITMAP_B, PAGE + 0x1000),
        (Field::MSR_BITMAP, PAGE),
        (Field::VMREAD_BITMAP, PAGE),
        (Field::VMWRITE_BITMAP, PAGE + 0x1000),
        (Field::VM_FUNCTION_CONTROLS, u64::from(second.contains(SecondaryControls::EPT))),
        (Field::EPTP_LIST, PAGE),
        (Field::VPID, 1),
        (Field::EPTP, PML4 | numbers.below(2) << 6 | 3 << 3 | 6),
        (Field::PREEMPTION_TIMER, timer),
        (Field::EXCEPTION_BITMAP, few_bits(numbers).into()),
        (Field::GUEST_PAT, pat),
        (Field::HOST_PAT, pat),
        (Field::GUEST_RIP, GUEST + SLOT * numbers.below(SLOTS)),
        (Field::GUEST_GDTR_BASE, GDT),
        (Field::GUEST_GDTR_LIMIT, 0x1f),
        (Field::GUEST_IDTR_BASE, IDT),
        (Field::GUEST_IDTR_LIMIT, 0xfff),
    ] {
        vmcs.write(field, value);
    }
    match numbers.below(8) {
        0 => real_address_mode(cpu, at),
        1 => {
            vmcs.write(Field::ENTRY_CONTROLS, vmcs.read(Field::ENTRY_CONTROLS) & !u64::from(ia32e));
            vmcs.write(Field::GUEST_EFER, 0);
            vmcs.write(Field::GUEST_CS_RIGHTS, 0xc09b);
            vmcs.write(Field::GUEST_CR3, PAGE);
        }
        2 => {
            let kind = numbers.one_of(&[0, 2, 3, 4, 5, 6]);
            let vector = if kind == 2 { 2 } else { numbers.one_of(&[1, 3, 6, 13, 14, 0x80]) };
            let code = u64::from(kind == 3 && matches!(vector, 13 | 14)) << 11;
            let valid = u64::from(interruption::VALID);
            vmcs.write(Field::ENTRY_INTERRUPTION, valid | kind << 8 | code | vector);
            set(Field::GUEST_RFLAGS, Rflags::IF.bits() as u32);
        }
        3 => {
            for (address, count) in [
                (Field::EXIT_MSR_STORE_ADDRESS, Field::EXIT_MSR_STORE_COUNT),
                (Field::EXIT_MSR_LOAD_ADDRESS, Field::EXIT_MSR_LOAD_COUNT),
                (Field::ENTRY_MSR_LOAD_ADDRESS, Field::ENTRY_MSR_LOAD_COUNT),
            ] {
                vmcs.write(address, PAGE + 0x800 + 16 * numbers.below(8));
                vmcs.write(count, numbers.below(3));
            }
        }
        _ => {}
    }
}

/// The controls of the virtual APIC that go together with the secondary ones of the region at `at`.
fn virtual_apic(cpu: &Cpu, at: u64, second: SecondaryControls, numbers: &mut Numbers) {
    use SecondaryControls as S;
    let vmcs = cpu.vmcs(at);
    let set = |field, bits: u32| vmcs.write(field, vmcs.read(field) | u64::from(bits));
    let clear = |field, bits: u32| vmcs.write(field, vmcs.read(field) & !u64::from(bits));
    if second.intersects(S::X2APIC | S::APIC_REGISTERS | S::VIRTUAL_INTERRUPTS) {
        set(Field::PROC_CONTROLS, ProcControls::TPR_SHADOW.bits());
    }
    if second.contains(S::X2APIC) {
        clear(Field::SECONDARY_CONTROLS, S::APIC_ACCESSES.bits());
    }
    if second.contains(S::VIRTUAL_INTERRUPTS) {
        set(Field::PIN_CONTROLS, PinControls::EXTERNAL_INTERRUPT.bits());
        set(Field::EXIT_CONTROLS, ExitControls::ACKNOWLEDGE_INTERRUPT.bits());
    } else {
        clear(Field::PIN_CONTROLS, PinControls::POSTED_INTERRUPTS.bits());
    }
    for (field, value) in [
        (Field::VIRTUAL_APIC, PAGE),
        (Field::APIC_ACCESS, DATA),
        (Field::POSTED_VECTOR, numbers.below(256)),
        (Field::POSTED_DESCRIPTOR, PAGE + 0x40),
        (Field::EOI_EXIT_BITMAP0, numbers.draw()),
        (Field::EOI_EXIT_BITMAP3, numbers.draw()),
        (Field::GUEST_INTERRUPT_STATUS, few_bits(numbers).into()),
    ] {
        vmcs.write(field, value);
    }
}

/// Makes the guest of the region at `at` one in real-address mode.
fn real_address_mode(cpu: &Cpu, at: u64) {
    let vmcs = cpu.vmcs(at);
    let set = |field, bits: u32| vmcs.write(field, vmcs.read(field) | u64::from(bits));
    set(Field::PROC_CONTROLS, ProcControls::SECONDARY.bits());
    let unrestricted = SecondaryControls::EPT | SecondaryControls::UNRESTRICTED_GUEST;
    set(Field::SECONDARY_CONTROLS, unrestricted.bits());
    let entry = vmcs.read(Field::ENTRY_CONTROLS) & !u64::from(EntryControls::IA32E.bits());
    vmcs.write(Field::ENTRY_CONTROLS, entry);
    vmcs.write(Field::GUEST_EFER, 0);
    vmcs.write(Field::GUEST_CR0, (Cr0::ET | Cr0::NE).bits());
    for n in 0..6 {
        vmcs.write(Field::GUEST_ES_RIGHTS.plus(n), if n == 1 { 0x9b } else { 0x93 });
        vmcs.write(Field::GUEST_ES_LIMIT.plus(n), 0xffff);
    }
    vmcs.write(Field::GUEST_CS_BASE, GUEST);
    vmcs.write(Field::GUEST_RIP, vmcs.read(Field::GUEST_RIP) - GUEST);
}

/// Writes other values into one to six fields, seldom into all.
fn change(cpu: &Cpu, at: u64, numbers: &mut Numbers) {
    let vmcs = cpu.vmcs(at);
    if numbers.below(64) == 0 {
        for &field in Field::ALL {
            vmcs.write(field, value(numbers, field, vmcs.read(field)));
        }
        return;
    }
    for _ in 0..numbers.below(7) {
        let field = numbers.one_of(Field::ALL);
        vmcs.write(field, value(numbers, field, vmcs.read(field)));
    }
}

/// Writes other values into one to three entries of the extended page tables.
fn change_tables(cpu: &Cpu, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(3) {
        let at = numbers.one_of(&[PML4, PDPT, PD, PD + 8, TABLE, TABLE, TABLE, TABLE]);
        let at = if at == TABLE { TABLE + 8 * numbers.below(512) } else { at };
        let entry = cpu.physical_page(at).read(at as usize);
        let value = match numbers.below(4) {
            0 => numbers.draw(),
            1 => address(numbers) | numbers.below(0x1000),
            _ => entry ^ 1 << numbers.below(64),
        };
        cpu.physical_page(at).write(at as usize, value);
    }
}

/// A machine of `cpus` processors whose memory has the guest's code and tables, random bitmaps and lists.
pub(in crate::vmx) fn machine(cpus: usize, numbers: &mut Numbers) -> Guest {
    let mut guest = Guest::with_cpus(Start::Kernel64, cpus);
    enter_root(&mut guest);
    map_all(&mut guest);
    guest.write(CODE, &ENTER);
    for slot in 0..SLOTS {
        let mut code = [0x90; SLOT as usize];
        let instruction = numbers.one_of(&INSTRUCTION_BYTES);
        code[..instruction.len()].copy_from_slice(instruction);
        guest.write(GUEST + SLOT * slot, &code);
    }
    // Of bytes, few are spent on the bitmaps.
    let mut filling = Numbers::new(numbers.draw() | 1);
    for at in (PAGE..PAGE + 0x800).step_by(8) {
        guest.write_u64(at, filling.draw() & filling.draw());
    }
    for at in (PAGE + 0x800..PAGE + 0x900).step_by(16) {
        let known = [msr::STAR, msr::LSTAR, msr::KERNEL_GS_BASE, msr::PAT, msr::EFER, msr::FS_BASE];
        guest.write_u64(at, filling.one_of(&known).into());
        guest.write_u64(at + 8, filling.draw() >> filling.below(64));
    }
    let gate = GUEST & 0xffff | 8 << 16 | 0x8e00 << 32 | GUEST >> 16 << 48;
    for vector in 0..256 {
        guest.write_u64(IDT + 16 * vector, gate);
        guest.write_u64(IDT + 16 * vector + 8, 0);
    }
    for (n, descriptor) in (0..).zip([0, 0x00af_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff, 0]) {
        guest.write_u64(GDT + 8 * n, descriptor);
    }
    guest
}

/// Puts a processor in VMX root operation before VMLAUNCH or VMRESUME of the region at `at`, which it
/// fills.
pub(in crate::vmx) fn prepare(cpu: &mut Cpu, start: &ArchState, at: u64, numbers: &mut Numbers) {
    let mut state = start.clone();
    state.vmx.current = Some(at);
    cpu.set_state(state);
    fill(cpu, at, numbers);
    change(cpu, at, numbers);
    if numbers.below(8) == 7 {
        change_tables(cpu, numbers);
    }
    let launched = numbers.below(2) == 1;
    cpu.vmcs(at).set_launched(launched);
    cpu.arch.rip = if launched { RESUME } else { CODE };
    for register in [Gpr::Rax, Gpr::Rcx, Gpr::Rdx, Gpr::Rbx, Gpr::Rsi, Gpr::Rdi] {
        cpu.arch.gpr[register] = if numbers.below(2) == 0 {
            address(numbers)
        } else {
            numbers.draw() >> numbers.below(64)
        };
    }
}

/// Decides the registers and the operand in memory of an instruction of VMX root operation: an address
/// of a region or of anything in RAX and at [`OPERAND`], an encoding of a field or anything in RCX.
pub(super) fn operands(cpu: &mut Cpu, numbers: &mut Numbers) {
    let pointer = |numbers: &mut Numbers| match numbers.below(4) {
        0 => numbers.draw() >> numbers.below(64),
        1 => address(numbers),
        _ => numbers.one_of(&[VMCS, LINKED, VMXON, OPERAND]),
    };
    let (rax, operand) = (pointer(numbers), pointer(numbers));
    let encoding = numbers.one_of(Field::ALL).encoding() | u32::from(numbers.below(8) == 7);
    let rcx = if numbers.below(8) == 7 { numbers.draw() } else { encoding.into() };
    cpu.arch.gpr[Gpr::Rax] = if numbers.below(4) == 3 { rax } else { OPERAND };
    cpu.arch.gpr[Gpr::Rcx] = rcx;
    cpu.physical_page(OPERAND).write(OPERAND as usize, operand);
    cpu.physical_page(OPERAND).write(OPERAND as usize + 8, numbers.one_of(&[0, 0, DATA, u64::MAX]));
}
