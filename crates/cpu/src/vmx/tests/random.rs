//! Random VMCS contents: whatever a hypervisor writes, an entry is refused, fails, or lets the guest
//! run, and what the processor says of it holds.

mod contents;

use std::thread::{self, ScopedJoinHandle};

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::segment::{Rights, seg};
use cloister_x86::vmcs::{Field, Kind};
use cloister_x86::vmx::{EXIT_REASON_ENTRY_FAILURE, EntryControls, ExitReason, interruption};
use iced_x86::Mnemonic;
use iced_x86::code_asm::*;

use self::contents::{ENTER_LENGTH, machine, prepare};
use super::ept::PML4;
use super::machine::{PAGE, VMCS};
use crate::cpu::Cpu;
use crate::op::Op;
use crate::run_state::attention;
use crate::state::ArchState;
use crate::testing::Numbers;
use crate::vmx::event::Vectoring;
use crate::vmx::{VmExit, exit};
use crate::{Exit, Stop, Vcpu};

/// VM entries of the ordinary tests; the variable has another number.
const ENTRIES: u64 = 20_000;
const ENTRIES_VARIABLE: &str = "CLOISTER_VMCS_ENTRIES";
/// Entries by processors that share memory, each.
const SHARED_ENTRIES: u64 = 1_000;
/// Entries for which the same memory serves, whatever guests do to it.
const SESSION: u64 = 64;
/// Instructions of a guest before it is made to exit.
const INSTRUCTIONS: usize = 6;

/// Regions of processors that share memory, one page each, after the extended page tables.
const REGIONS: u64 = 0x20_8000;

/// What came of a VM entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// A flag and an error number.
    Refused,
    /// The exit of a failed entry.
    Failed,
    /// The guest ran, and an exit ended it.
    Exited,
    /// A VMX abort, or a processor that cannot go on: memory has to be made anew.
    Over,
}

/// One instruction of a guest, with what comes before it.
///
/// # Errors
///
/// The processor cannot go on.
fn step(vcpu: &mut Vcpu, numbers: &mut Numbers) -> Result<(), Exit> {
    vcpu.debug_step();
    match vcpu.run() {
        Exit::IoIn { .. } | Exit::IoOut { .. } | Exit::MmioRead { .. } | Exit::MmioWrite { .. } => {
            vcpu.complete(numbers.draw());
        }
        Exit::Rdmsr { .. } => vcpu.finish_rdmsr(0),
        Exit::Wrmsr { .. } => vcpu.skip(),
        Exit::Debug(_) | Exit::Hlt => {}
        exit => return Err(exit),
    }
    Ok(())
}

/// A processor's region before an entry, to be compared with what it is afterwards.
struct Before {
    arch: ArchState,
    fields: Vec<u64>,
    launched: bool,
}

impl Before {
    fn new(cpu: &Cpu) -> Self {
        let vmcs = cpu.vmcs(VMCS);
        Self {
            arch: cpu.arch.clone(),
            fields: Field::ALL.iter().map(|&field| vmcs.read(field)).collect(),
            launched: vmcs.is_launched(),
        }
    }

    fn field(&self, field: Field) -> u64 {
        self.fields[Field::ALL.binary_search(&field).expect("fields are in order")]
    }

    /// Whether the fields that `kept` names are as they were.
    fn assert_fields(&self, cpu: &Cpu, kept: impl Fn(Field) -> bool) {
        let vmcs = cpu.vmcs(VMCS);
        for (&field, &before) in Field::ALL.iter().zip(&self.fields) {
            assert!(!kept(field) || vmcs.read(field) == before, "{field:x?} was {before:#x}");
        }
    }

    /// Nothing but the flags, RIP and the error number has changed.
    fn assert_refused(&self, cpu: &Cpu) {
        let error = cpu.vmcs(VMCS).read(Field::INSTRUCTION_ERROR);
        assert!(matches!(error, 7 | 8), "{error}");
        assert_eq!(cpu.arch.rflags() & 0x8d5, 0x40);
        let mut expected = self.arch.clone();
        expected.rip += ENTER_LENGTH;
        expected.flags = cpu.arch.flags;
        assert_eq!(cpu.arch, expected);
        assert_eq!(cpu.vmcs(VMCS).is_launched(), self.launched);
        self.assert_fields(cpu, |field| field != Field::INSTRUCTION_ERROR);
    }

    /// Host state was loaded, and nothing saved.
    fn assert_failed(&self, cpu: &Cpu) {
        let reason = cpu.vmcs(VMCS).read_32(Field::EXIT_REASON) & !EXIT_REASON_ENTRY_FAILURE;
        assert!(matches!(reason, 33 | 34), "{reason}");
        assert_eq!(cpu.vmcs(VMCS).is_launched(), self.launched);
        self.assert_fields(cpu, |field| field.kind() != Kind::ExitInformation);
        self.assert_host(cpu);
    }

    /// The processor is where the VMCS says that an exit leads.
    fn assert_host(&self, cpu: &Cpu) {
        let arch = &cpu.arch;
        // Neither these nor the reserved bits are loaded (SDM Vol. 3C, 27.5.1).
        let loaded = (Cr0::all() - (Cr0::ET | Cr0::CD | Cr0::NW)).bits();
        assert!(arch.vmx.guest.is_none());
        assert_eq!((arch.cr0.bits() ^ self.field(Field::HOST_CR0)) & loaded, 0);
        assert_eq!(arch.cr3, self.field(Field::HOST_CR3));
        assert_eq!(arch.cr4.bits(), self.field(Field::HOST_CR4));
        assert_eq!(arch.gpr[Gpr::Rsp], self.field(Field::HOST_RSP));
        assert_eq!(arch.rip, self.field(Field::HOST_RIP));
        assert_eq!((arch.rflags(), arch.cpl, arch.dr7), (2, 0, 0x400));
        for (n, segment) in (0..).zip(&arch.segs[..7]) {
            let selector = self.field(Field::HOST_ES_SELECTOR.plus(n));
            assert_eq!(u64::from(segment.selector), selector, "{n}");
        }
        assert_eq!(arch.segs[seg::FS].base, self.field(Field::HOST_FS_BASE));
        assert_eq!(arch.segs[seg::GS].base, self.field(Field::HOST_GS_BASE));
        assert_eq!(arch.segs[seg::TR].base, self.field(Field::HOST_TR_BASE));
        assert_eq!(arch.segs[seg::LDTR].rights, Rights(Rights::UNUSABLE));
        assert_eq!((arch.gdtr.base, arch.gdtr.limit), (self.field(Field::HOST_GDTR_BASE), 0xffff));
        assert_eq!((arch.idtr.base, arch.idtr.limit), (self.field(Field::HOST_IDTR_BASE), 0xffff));
        if self.field(Field::EXIT_MSR_LOAD_COUNT) == 0 {
            assert_eq!(arch.msrs.sysenter_esp, self.field(Field::HOST_SYSENTER_ESP));
            assert_eq!(arch.msrs.sysenter_eip, self.field(Field::HOST_SYSENTER_EIP));
        }
    }
}

/// The guest state of the VMCS is in the processor.
fn assert_loaded(cpu: &Cpu) {
    let (vmcs, arch) = (cpu.vmcs(VMCS), &cpu.arch);
    assert_eq!(arch.cr3, vmcs.read(Field::GUEST_CR3));
    assert_eq!(arch.cr4.bits(), vmcs.read(Field::GUEST_CR4));
    assert_eq!(arch.msrs.sysenter_eip, vmcs.read(Field::GUEST_SYSENTER_EIP));
    if vmcs.read_32(Field::ENTRY_INTERRUPTION) & interruption::VALID == 0 {
        assert_eq!(arch.rip, vmcs.read(Field::GUEST_RIP));
        assert_eq!(arch.gpr[Gpr::Rsp], vmcs.read(Field::GUEST_RSP));
        assert_eq!(arch.rflags(), vmcs.read(Field::GUEST_RFLAGS));
    }
}

/// The exit that was just reported saved `guest`, but for what was delivered on the way to it.
fn assert_saved(cpu: &Cpu, guest: &ArchState) {
    let vmcs = cpu.vmcs(VMCS);
    let under_delivery = vmcs.read_32(Field::IDT_VECTORING) & interruption::VALID != 0
        || vmcs.read(Field::EXIT_REASON) == ExitReason::TaskSwitch as u64
        || guest.debug_pending != 0;
    if under_delivery {
        return;
    }
    let flags = |rflags| rflags & !Rflags::RF.bits();
    assert_eq!(vmcs.read(Field::GUEST_RIP), guest.rip);
    assert_eq!(vmcs.read(Field::GUEST_RSP), guest.gpr[Gpr::Rsp]);
    assert_eq!(flags(vmcs.read(Field::GUEST_RFLAGS)), flags(guest.rflags()));
    assert_eq!(vmcs.read(Field::GUEST_CR0), guest.cr0.bits());
    assert_eq!(vmcs.read(Field::GUEST_CR3), guest.cr3);
    assert_eq!(vmcs.read(Field::GUEST_CR4), guest.cr4.bits());
    assert_eq!(vmcs.read(Field::GUEST_GDTR_BASE), guest.gdtr.base);
    assert_eq!(vmcs.read(Field::GUEST_IDTR_BASE), guest.idtr.base);
    assert_eq!(vmcs.read(Field::GUEST_CS_RIGHTS), guest.segs[seg::CS].rights.0.into());
    assert_eq!(vmcs.read(Field::GUEST_SS_BASE), guest.segs[seg::SS].base);
    let ia32e = vmcs.read_32(Field::ENTRY_CONTROLS) & EntryControls::IA32E.bits() != 0;
    assert_eq!(ia32e, guest.long_mode());
}

/// VMLAUNCH or VMRESUME of the region at [`VMCS`], and the guest until an exit.
fn enter(vcpu: &mut Vcpu, numbers: &mut Numbers) -> Outcome {
    let vmcs = vcpu.cpu.vmcs(VMCS);
    vmcs.write(Field::INSTRUCTION_ERROR, 0);
    vmcs.write(Field::EXIT_REASON, 0xffff);
    let before = Before::new(&vcpu.cpu);
    let executed = vcpu.execute_one();
    let entry = |op: &Op| matches!(op.mnemonic, Mnemonic::Vmlaunch | Mnemonic::Vmresume);
    if !vcpu.decoded.first().is_some_and(entry) {
        // A guest of this memory overwrote the code.
        return Outcome::Over;
    }
    match executed {
        Ok(()) | Err(Stop::JUMP) => {}
        Err(Stop::EXIT) => {
            assert_eq!(vcpu.cpu.take_exit(), Some(Exit::TripleFault));
            return Outcome::Over;
        }
        // Or its translation.
        Err(_) => return Outcome::Over,
    }
    let cpu = &vcpu.cpu;
    if cpu.vmcs(VMCS).read(Field::INSTRUCTION_ERROR) != 0 {
        before.assert_refused(cpu);
        return Outcome::Refused;
    }
    let reason = cpu.vmcs(VMCS).read_32(Field::EXIT_REASON);
    if reason & EXIT_REASON_ENTRY_FAILURE != 0 {
        before.assert_failed(cpu);
        return Outcome::Failed;
    }
    assert!(cpu.vmcs(VMCS).is_launched());
    if cpu.arch.vmx.guest.is_none() {
        // What was injected exited.
        before.assert_host(cpu);
        return Outcome::Exited;
    }
    assert_loaded(cpu);
    run_guest(vcpu, &before, numbers)
}

/// The guest until an exit, which comes in the end as of an interrupt.
fn run_guest(vcpu: &mut Vcpu, before: &Before, numbers: &mut Numbers) -> Outcome {
    for _ in 0..INSTRUCTIONS {
        let guest = vcpu.cpu.arch.clone();
        if step(vcpu, numbers).is_err() {
            return Outcome::Over;
        }
        if vcpu.cpu.arch.vmx.guest.is_none() {
            assert_saved(&vcpu.cpu, &guest);
            // The host may have begun to run.
            if vcpu.cpu.arch.rip == before.field(Field::HOST_RIP) {
                before.assert_host(&vcpu.cpu);
            }
            return Outcome::Exited;
        }
    }
    vcpu.debug_pause();
    if vcpu.cpu.run.attention & attention::DEVICE != 0 {
        // An instruction is half done.
        return Outcome::Over;
    }
    let guest = vcpu.cpu.arch.clone();
    let interrupt = VmExit::new(ExitReason::ExternalInterrupt);
    if exit::leave(&mut vcpu.cpu, interrupt, Vectoring::default()).is_err() {
        return Outcome::Over;
    }
    assert_saved(&vcpu.cpu, &guest);
    before.assert_host(&vcpu.cpu);
    Outcome::Exited
}

#[test]
fn whatever_a_vmcs_says_the_processor_goes_on_as_it_says() {
    let entries = std::env::var(ENTRIES_VARIABLE)
        .map_or(ENTRIES, |text| text.parse().expect("a number of VM entries"));
    let mut numbers = Numbers::new(0x9e37_79b9_7f4a_7c15);
    let mut machine = machine(1, &mut numbers);
    let start = machine.guest.vcpu.cpu.arch.clone();
    let (mut counts, mut session) = ([0; 4], 0);
    for _ in 0..entries {
        if session == SESSION {
            machine = self::machine(1, &mut numbers);
            session = 0;
        }
        let vcpu = &mut machine.guest.vcpu;
        prepare(&mut vcpu.cpu, &start, VMCS, &mut numbers);

        let outcome = enter(vcpu, &mut numbers);

        counts[outcome as usize] += 1;
        session = if outcome == Outcome::Over { SESSION } else { session + 1 };
        vcpu.debug_pause();
    }
    // Each outcome is common enough for the test to mean something.
    let [refused, failed, exited, over] = counts;
    assert!(refused.min(failed).min(exited) > entries / 20 && over < entries / 4, "{counts:?}");
}

#[test]
fn processors_whose_regions_and_tables_change_under_them_go_on() {
    let mut numbers = Numbers::new(0x0123_4567_89ab_cdef);
    let machine = machine(4, &mut numbers);
    let mut guest = machine.guest;
    // Stores of any size of number, all over the extended page tables and the regions after them.
    guest.assemble_at(PAGE + 0x1000, 64, |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        for (left, by) in [(true, 13), (false, 7), (true, 17)] {
            a.mov(rdx, rax)?;
            if left {
                a.shl(rdx, by)?;
            } else {
                a.shr(rdx, by)?;
            }
            a.xor(rax, rdx)?;
        }
        a.mov(rdx, rax)?;
        a.mov(rcx, rax)?;
        a.shr(rdx, cl)?;
        a.shr(rcx, 20)?;
        a.and(ecx, 0xfff8)?;
        a.mov(qword_ptr(rcx + PML4), rdx)?;
        a.jmp(again)
    });
    let start = guest.vcpu.cpu.arch.clone();
    let kicker = guest.vcpu.cpu.kicker.clone();
    let others: Vec<Vcpu> = (1..4).map(|id| guest.processor(id)).collect();
    let writer = &mut guest.vcpu;
    writer.cpu.arch.rip = PAGE + 0x1000;
    writer.cpu.arch.gpr[Gpr::Rax] = 0x9e37_79b9_7f4a_7c15;

    thread::scope(|scope| {
        let writing = scope.spawn(|| writer.run());
        let entering: Vec<_> = (0..)
            .zip(others)
            .map(|(n, mut vcpu)| {
                let start = &start;
                scope.spawn(move || {
                    let mut numbers = Numbers::new(n + 1);
                    vcpu.cpu.ctl.vmx_enabled = true;
                    for _ in 0..SHARED_ENTRIES {
                        let at = REGIONS + 0x1000 * n;
                        prepare(&mut vcpu.cpu, start, at, &mut numbers);
                        for _ in 0..INSTRUCTIONS {
                            if step(&mut vcpu, &mut numbers).is_err() {
                                break;
                            }
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = entering.into_iter().map(ScopedJoinHandle::join).collect();
        kicker.request_exit();
        // Its own code and tables lie where MSR lists, logs of modified pages and guests may write.
        let end = writing.join().expect("the writer does not panic");
        assert!(matches!(end, Exit::Requested | Exit::TripleFault), "{end:?}");
        assert!(ended.iter().all(Result::is_ok), "a processor panicked");
    });
}
