//! Interrupts to the local APICs, which are the kernel's, and the ends of level-triggered ones back to the
//! I/O APIC, which is the machine's (KVM_CAP_SPLIT_IRQCHIP).
//!
//! KVM reports the end of an interrupt if its message is that of one of its 24 routes (KVM_SET_GSI_ROUTING).
//! The I/O APIC's entries change more often than they fire, so routes are made of the messages that are sent:
//! a level-triggered one that no route has gets one first.

use std::sync::{Arc, Mutex, PoisonError};

use cloister_devices::{IOAPIC_PINS, MsiSink};
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1 as Target, kvm_irq_routing_msi, kvm_msi,
};

use super::vm::Shared;

/// Trigger mode of a message: level (SDM Vol. 3A, figure 11-25).
const LEVEL: u32 = 1 << 15;

/// The way to the local APICs.
pub(super) struct LocalApics {
    vm: Arc<Shared>,
    routes: Mutex<Routes>,
}

/// A level-triggered message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Message {
    address: u64,
    data: u32,
}

/// Messages that have a route, at most as many as the I/O APIC has inputs.
#[derive(Default)]
struct Routes(Vec<Route>);

struct Route {
    message: Message,
    /// It was sent, and its end has not come.
    ends: bool,
}

impl Routes {
    /// Notes that `message` is sent. Returns whether the routes have changed.
    fn sent(&mut self, message: Message) -> bool {
        if let Some(route) = self.0.iter_mut().find(|route| route.message == message) {
            route.ends = true;
            return false;
        }
        if self.0.len() == usize::from(IOAPIC_PINS) {
            // An input sends nothing until the end of what it sent, so one of the others is idle, unless
            // the guest has rewritten an entry meanwhile: then it has given up on the end.
            let idle = self.0.iter().position(|route| !route.ends).unwrap_or(0);
            self.0.remove(idle);
        }
        self.0.push(Route { message, ends: true });
        true
    }

    /// The end of interrupts with this vector has come.
    fn ended(&mut self, vector: u8) {
        let of_vector = |route: &&mut Route| route.message.data.to_le_bytes()[0] == vector;
        self.0.iter_mut().filter(of_vector).for_each(|route| route.ends = false);
    }

    /// As KVM is told.
    fn entries(&self) -> Vec<kvm_irq_routing_entry> {
        let entry = |(gsi, route): (u32, &Route)| {
            let Message { address, data } = route.message;
            let msi = kvm_irq_routing_msi {
                address_lo: low(address),
                address_hi: low(address >> 32),
                data,
                ..Default::default()
            };
            kvm_irq_routing_entry {
                gsi,
                type_: KVM_IRQ_ROUTING_MSI,
                u: Target { msi },
                ..Default::default()
            }
        };
        (0..).zip(&self.0).map(entry).collect()
    }
}

const fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

impl LocalApics {
    pub(super) fn new(vm: Arc<Shared>) -> Self {
        Self { vm, routes: Mutex::default() }
    }

    /// KVM has reported the end of an interrupt.
    pub(super) fn ended(&self, vector: u8) {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).ended(vector);
    }

    /// Gives a message its route.
    fn route(&self, message: Message) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if !routes.sent(message) {
            return;
        }
        let set = KvmIrqRouting::from_entries(&routes.entries())
            .map_err(|_| kvm_ioctls::Error::new(libc::ENOMEM))
            .and_then(|table| self.vm.fd.set_gsi_routing(&table));
        if let Err(error) = set {
            tracing::warn!(%error, "KVM does not report the end of an interrupt");
        }
    }
}

impl MsiSink for LocalApics {
    fn deliver(&self, address: u64, data: u32) {
        if data & LEVEL != 0 {
            self.route(Message { address, data });
        }
        let msi = kvm_msi {
            address_lo: low(address),
            address_hi: low(address >> 32),
            data,
            ..Default::default()
        };
        // A message to no local APIC, or to one that is off, is lost as on a bus.
        if let Err(error) = self.vm.fd.signal_msi(msi) {
            tracing::debug!(%error, address, data, "a message is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(vector: u8) -> Message {
        Message { address: 0xfee0_1000, data: LEVEL | 1 << 14 | u32::from(vector) }
    }

    #[test]
    fn a_message_gets_a_route_once() {
        let mut routes = Routes::default();

        assert!(routes.sent(message(0x31)) && routes.sent(message(0x32)));
        assert!(!routes.sent(message(0x31)));

        let entries = routes.entries();
        assert_eq!(entries.iter().map(|entry| entry.gsi).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(entries[1].type_, KVM_IRQ_ROUTING_MSI);
    }

    #[test]
    fn a_route_whose_end_is_to_come_stays_however_many_others_come_and_go() {
        let mut routes = Routes::default();
        routes.sent(message(0x31));
        for vector in 0x40..0xf0 {
            routes.sent(message(vector));
            routes.ended(vector);
        }

        assert_eq!(routes.0.len(), usize::from(IOAPIC_PINS));
        assert!(!routes.sent(message(0x31)));
        routes.ended(0x31);
        assert!(routes.0.iter().all(|route| !route.ends));
    }
}
