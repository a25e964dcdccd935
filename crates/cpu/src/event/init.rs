//! INIT (SDM Vol. 3A, table 9-1).

use super::enclave_exit::before_event;
use super::{Event, Kind};
use crate::cpu::Cpu;
use crate::run_state::{RunState, attention};

impl Cpu {
    /// INIT. The bootstrap processor runs from the reset vector, others wait for a start-up IPI.
    pub(crate) fn init(&mut self) {
        // It leaves an enclave as every event does.
        before_event(self, &mut Event::plain(0, Kind::Init));
        self.apic.init();
        self.publish_apic();
        // Decoded code is remembered by what the translations counted.
        let tlb = std::mem::take(&mut self.run.tlb);
        let attention = self.run.attention & attention::DEBUGGER;
        self.run = RunState { tlb, attention, ..RunState::default() };
        let bootstrap = self.apic.is_bootstrap();
        self.set_state(self.arch.clone().after_init(bootstrap));
    }
}
