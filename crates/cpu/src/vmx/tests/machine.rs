//! A processor in VMX root operation with a VMCS that VM entry takes.

use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{EntryControls, ExitControls, ProcControls, SecondaryControls};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;

use crate::Exit;
use crate::cpu::Cpu;
use crate::state::VmxState;
use crate::testing::{CODE, Ending, Guest, Start};
pub(crate) use crate::vmx::fuzzing::hypervisor::{GUEST, HOST, PAGE, VMCS, VMXON};
use crate::vmx::fuzzing::hypervisor::{enter_root, fill_region};
use crate::vmx::{ExecutionControls, HostState, NonRoot};

/// Ports that tell where a run ended.
pub(super) const AT_HOST: u32 = 0x80;
const AFTER_ENTRY: u32 = 0x81;
pub(super) const IN_GUEST: u32 = 0x82;

/// Where a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// At the host's RIP: an exit, by the exit reason.
    Host(u32),
    /// After VMLAUNCH: VMfail, by the instruction error; `None` for VMfailInvalid.
    Refused(Option<u32>),
    /// The guest ended the run.
    Guest,
    /// Anything else.
    Other(Ending),
}

/// Makes a VMCS at [`VMCS`] that lets the processor go on as it is, and whose exits lead to [`HOST`].
pub(crate) fn fill(guest: &mut Guest) {
    guest.assemble_at(HOST, 64, |a| a.out(AT_HOST, iced_x86::code_asm::al));
    fill_region(&guest.vcpu.cpu, VMCS);
}

/// Puts a processor into VMX non-root operation, as VM entry does by the VMCS at [`VMCS`], with its state
/// as it is.
pub(crate) fn become_guest(cpu: &mut Cpu) {
    let vmcs = cpu.vmcs(VMCS);
    let guest = NonRoot::new(ExecutionControls::read(vmcs), HostState::read(vmcs));
    cpu.arch.vmx =
        VmxState { vmxon: Some(VMXON), current: Some(VMCS), guest: Some(Box::new(guest)) };
    cpu.derive();
}

pub(super) struct Machine {
    pub(super) guest: Guest,
}

impl Machine {
    /// The VMCS's guest state is the processor's own, at [`GUEST`]; the host's too, at [`HOST`].
    pub(super) fn new() -> Self {
        Self::with_cpus(1)
    }

    /// As [`Machine::new`], in a machine with `cpus` processors.
    pub(super) fn with_cpus(cpus: usize) -> Self {
        let mut guest = Guest::with_cpus(Start::Kernel64, cpus);
        enter_root(&mut guest);
        let mut machine = Self { guest };
        fill(&mut machine.guest);
        machine
    }

    pub(super) fn write(&mut self, field: Field, value: u64) {
        self.guest.vcpu.cpu.vmcs(VMCS).write(field, value);
    }

    pub(super) fn read(&self, field: Field) -> u64 {
        self.guest.vcpu.cpu.vmcs(VMCS).read(field)
    }

    /// Sets bits of a field.
    pub(super) fn set(&mut self, field: Field, bits: u32) {
        let value = self.read(field) | u64::from(bits);
        self.write(field, value);
    }

    /// Sets a primary control.
    pub(super) fn control(&mut self, control: ProcControls) {
        self.set(Field::PROC_CONTROLS, control.bits());
    }

    /// Sets a secondary control.
    pub(super) fn second(&mut self, control: SecondaryControls) {
        self.control(ProcControls::SECONDARY);
        self.set(Field::SECONDARY_CONTROLS, control.bits());
    }

    /// Clears an entry control.
    pub(super) fn clear_entry(&mut self, control: EntryControls) {
        let value = self.read(Field::ENTRY_CONTROLS) & !u64::from(control.bits());
        self.write(Field::ENTRY_CONTROLS, value);
    }

    /// Clears an exit control.
    pub(super) fn clear_exit(&mut self, control: ExitControls) {
        let value = self.read(Field::EXIT_CONTROLS) & !u64::from(control.bits());
        self.write(Field::EXIT_CONTROLS, value);
    }

    pub(super) fn code(
        &mut self,
        at: u64,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) {
        self.guest.assemble_at(at, 64, code);
    }

    /// Enters the guest, whose code is at [`GUEST`], and runs until something ends it.
    pub(super) fn launch(&mut self) -> End {
        use iced_x86::code_asm::al;
        self.code(CODE, |a| {
            a.vmlaunch()?;
            a.out(AFTER_ENTRY, al)
        });
        self.go()
    }

    /// Runs until something ends it.
    pub(super) fn go(&mut self) -> End {
        let ending = self.guest.run();
        let Ending::Exit(Exit::IoOut { port, .. }) = ending else { return End::Other(ending) };
        let flags = self.guest.vcpu.cpu.rflags();
        match u32::from(port) {
            AT_HOST => End::Host(self.read(Field::EXIT_REASON) as u32),
            IN_GUEST => End::Guest,
            AFTER_ENTRY if flags & 1 != 0 => End::Refused(None),
            AFTER_ENTRY => End::Refused(Some(self.read(Field::INSTRUCTION_ERROR) as u32)),
            _ => End::Other(ending),
        }
    }

    /// Runs the guest with this code.
    pub(super) fn run(
        &mut self,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> End {
        self.code(GUEST, |a| {
            code(a)?;
            a.out(IN_GUEST, iced_x86::code_asm::al)
        });
        self.launch()
    }
}
