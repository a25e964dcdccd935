//! One boot: a thread for each processor and one for the work of devices, and what each does with its
//! processor's events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cloister_devices::{Halt, IoHandle, IoLoop, Node, PowerEvent, PowerSwitch};

use super::board::Board;
use super::control::{Boot, Control};
use super::debug::Debugging;
use super::error::RunError;
use super::event::ShutdownCause;
use super::gate::Gate;
use super::{Machine, Outcome};
use crate::accel::{Vcpu, Vm, VmEvent};
use crate::acpi;
use crate::sandbox::{Sandbox, ThreadKind};

/// The request to stop that the threads of one boot share.
pub(super) struct Stop {
    /// For the threads of the processors, and for the devices.
    halt: Halt,
    io: IoHandle,
    triple_fault: AtomicBool,
    vm: Arc<dyn Vm>,
    gate: Arc<Gate>,
    debugging: Arc<Debugging>,
}

impl Stop {
    /// Makes every processor's thread of the boot end, and the I/O thread.
    pub(super) fn request(&self) {
        // First the flag: an interrupted processor looks at it.
        self.halt.request();
        self.vm.interrupt_all();
        self.gate.wake();
        self.io.look_again();
    }

    /// The boot's I/O thread.
    pub(super) fn io(&self) -> &IoHandle {
        &self.io
    }

    /// Makes every processor come to the gate.
    pub(super) fn interrupt(&self) {
        self.vm.interrupt_all();
    }

    /// Takes `time`, in which no processor ran, back from the guest's clock.
    pub(super) fn skip_time(&self, time: Duration) {
        self.vm.skip_time(time);
    }

    fn requested(&self) -> bool {
        self.halt.requested()
    }
}

/// Ends the boot when one of its threads ends, for whatever reason.
struct StopOnDrop<'a>(&'a Stop);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

impl Machine {
    /// One boot, from loading the kernel to the end of the last processor's thread, and why it ended.
    pub(super) fn boot(
        &self,
        control: &Control,
        sandbox: &Sandbox,
    ) -> Result<(Outcome, ShutdownCause), RunError> {
        let vm = self.processors().create()?;
        let io = IoLoop::new().map_err(|source| RunError::IoThread { source })?;
        let stop = Arc::new(Stop {
            halt: Halt::default(),
            io: io.handle().clone(),
            triple_fault: AtomicBool::new(false),
            vm: vm.clone(),
            gate: control.gate(),
            debugging: control.debugging(),
        });
        let power = Arc::new(PowerSwitch::new({
            let stop = stop.clone();
            move |_| stop.request()
        }));
        let board = Board::new(self, &*vm, &power, &control.screen(), &stop.halt, io, sandbox)?;
        let epc_nodes: Vec<u32> = self.config.epc.iter().map(|section| section.node).collect();
        let devices: Vec<&Node> = self.devices().collect();
        let rsdp = acpi::write_tables(
            &self.ram,
            &acpi::Platform {
                layout: &self.layout,
                cpus: self.config.cpus,
                nodes: &self.config.nodes,
                epc_nodes: &epc_nodes,
                devices: &devices,
            },
        )?;
        let entry = self.source.load(self, rsdp)?;
        let vcpus = (0..self.config.cpus)
            .map(|id| vm.vcpu(id, (id == 0).then_some(&entry)))
            .collect::<Result<Vec<_>, _>>()?;

        let boot = Boot {
            stop: stop.clone(),
            inputs: board.inputs.clone(),
            button: board.power_button.clone(),
        };
        let finished =
            if control.begin(boot) { run_all(vcpus, &board, &stop, sandbox) } else { Ok(()) };
        let reset = control.end();
        finished?;
        Ok(match power.take() {
            _ if stop.triple_fault.load(Ordering::SeqCst) => {
                (Outcome::TripleFault, ShutdownCause::GuestReset)
            }
            Some(PowerEvent::PowerOff) => (Outcome::PowerOff, ShutdownCause::GuestShutdown),
            Some(PowerEvent::Reset) => (Outcome::Reset, ShutdownCause::GuestReset),
            None => match control.quit_cause() {
                Some(cause) => (Outcome::Quit, cause),
                None => {
                    debug_assert!(reset, "a boot ended by itself");
                    (Outcome::Reset, ShutdownCause::HostQmpSystemReset)
                }
            },
        })
    }
}

/// Runs each processor on a thread of its own, and the work of devices on another, until all have ended;
/// the first error is returned.
fn run_all(
    vcpus: Vec<Box<dyn Vcpu>>,
    board: &Board,
    stop: &Stop,
    sandbox: &Sandbox,
) -> Result<(), RunError> {
    thread::scope(|scope| {
        let io = thread::Builder::new().name("io".into()).spawn_scoped(scope, || {
            sandbox.confine(ThreadKind::Io);
            let _ends_with_this_thread = StopOnDrop(stop);
            board.io.run(|| stop.requested());
        });
        let io = io.map_err(|source| RunError::IoThread { source })?;
        let mut threads = Vec::with_capacity(vcpus.len());
        let mut outcome = Ok(());
        for (cpu, vcpu) in (0..).zip(vcpus) {
            let thread =
                thread::Builder::new().name(format!("vcpu{cpu}")).spawn_scoped(scope, move || {
                    sandbox.confine(ThreadKind::Vcpu);
                    run_vcpu(cpu, vcpu, board, stop)
                });
            match thread {
                Ok(thread) => threads.push((cpu, thread)),
                Err(source) => {
                    stop.request();
                    outcome = Err(RunError::Thread { cpu, source });
                    break;
                }
            }
        }
        for (cpu, thread) in threads {
            let ended = thread.join().unwrap_or(Err(RunError::Panicked(cpu)));
            outcome = outcome.and(ended);
        }
        // Nothing of this boot reaches RAM or a disk any more when the next one begins.
        let ended = io.join().map_err(|_| RunError::IoPanicked);
        outcome.and(ended)
    })
}

/// Serves one processor's events until the boot ends.
fn run_vcpu(cpu: u32, mut vcpu: Box<dyn Vcpu>, board: &Board, stop: &Stop) -> Result<(), RunError> {
    let passage = stop.gate.enter(cpu);
    let _ends_with_this_thread = StopOnDrop(stop);
    stop.debugging.prepare(&mut *vcpu);
    passage.pass(&mut *vcpu, || stop.requested());
    while !stop.requested() {
        match vcpu.run()? {
            VmEvent::IoRead { port, data } => {
                if !board.buses.io.read(port, data) {
                    tracing::trace!(port, "IN from no device");
                }
            }
            VmEvent::IoWrite { port, data } => {
                if !board.buses.io.write(port, data) {
                    tracing::trace!(port, ?data, "OUT to no device");
                }
            }
            VmEvent::MmioRead { gpa, data } => {
                if !board.buses.mmio.read(gpa, data) {
                    tracing::trace!(gpa, "load from no device");
                }
            }
            VmEvent::MmioWrite { gpa, data } => {
                if !board.buses.mmio.write(gpa, data) {
                    tracing::trace!(gpa, ?data, "store to no device");
                }
            }
            VmEvent::EndOfInterrupt { vector } => board.ioapic.end_of_interrupt(vector),
            VmEvent::TripleFault => {
                stop.triple_fault.store(true, Ordering::SeqCst);
                stop.request();
            }
            VmEvent::Init => board.power.request(PowerEvent::Reset),
            // To end, which the loop's condition looks at, or to wait while the machine is stopped.
            VmEvent::Interrupted => passage.pass(&mut *vcpu, || stop.requested()),
            VmEvent::Debug(why) => {
                stop.gate.trap();
                stop.vm.interrupt_all();
                stop.debugging.stopped(cpu, why);
                passage.pass(&mut *vcpu, || stop.requested());
            }
        }
    }
    Ok(())
}
