//! Interrupt messages: who gets them (SDM Vol. 3A, 10.6.2, 10.11 and 10.12.10).

use super::inbox::Addressing;
use crate::kicker::event;
use crate::package::Package;

/// Delivery modes (SDM Vol. 3A, 10.6.1 and 10.11.2).
pub(super) mod delivery {
    pub(crate) const FIXED: u32 = 0;
    pub(crate) const LOWEST_PRIORITY: u32 = 1;
    pub(crate) const NMI: u32 = 4;
    pub(crate) const INIT: u32 = 5;
    pub(crate) const START_UP: u32 = 6;
}

/// An interrupt message on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) vector: u8,
    /// One of [`delivery`].
    pub(super) mode: u32,
    pub(super) level: bool,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination {
    pub(super) id: u32,
    pub(super) logical: bool,
    /// `id` has 32 bits, as an x2APIC sends it, instead of 8.
    pub(super) wide: bool,
}

impl Destination {
    /// Whether the APIC with ID `apic_id` is meant.
    pub(super) fn names(self, apic_id: u32, target: Addressing) -> bool {
        let broadcast = self.id == if self.wide { u32::MAX } else { 0xff };
        if !target.enabled {
            // A disabled APIC has no address. It still takes INIT and start-up IPIs by its ID.
            return !self.logical && self.id == apic_id;
        }
        if broadcast {
            return true;
        }
        if !self.logical {
            return self.id == apic_id;
        }
        if target.x2apic {
            // 31:16 cluster, 15:0 set of members (SDM Vol. 3A, 10.12.10.2).
            return self.id >> 16 == target.ldr >> 16 && self.id & target.ldr & 0xffff != 0;
        }
        let (id, ldr) = (self.id & 0xff, target.ldr >> 24);
        if target.cluster {
            (id >> 4 == ldr >> 4 || id >> 4 == 0xf) && id & ldr & 0xf != 0
        } else {
            id & ldr != 0
        }
    }
}

/// Posts a message to one processor and wakes it.
pub(super) fn post(shared: &Package, apic_id: usize, message: Message) {
    let Some(kicker) = shared.kickers.get(apic_id) else { return };
    match message.mode {
        delivery::FIXED | delivery::LOWEST_PRIORITY => {
            kicker.inbox.post(message.vector, message.level);
        }
        delivery::NMI => kicker.inbox.post_nmi(),
        delivery::INIT => kicker.inbox.post_init(),
        delivery::START_UP => kicker.inbox.post_sipi(message.vector),
        // SMI: no system-management mode. ExtINT: no 8259.
        _ => return,
    }
    kicker.post(event::APIC);
}

/// Posts a message to every processor that the destination names; with lowest-priority delivery,
/// to the first of them.
pub(super) fn send(shared: &Package, to: Destination, message: Message) {
    for (id, kicker) in shared.kickers.iter().enumerate() {
        if to.names(id as u32, kicker.inbox.addressing()) {
            post(shared, id, message);
            if message.mode == delivery::LOWEST_PRIORITY {
                return;
            }
        }
    }
}

impl Package {
    /// Takes a message-signalled interrupt, a write of `data` to physical address `address`
    /// (0FEEx_xxxxH) by a device or the I/O APIC, and posts it to the local APICs that it names
    /// (SDM Vol. 3A, 10.11). Writes to other addresses are ignored. Called from any thread.
    pub fn deliver_msi(&self, address: u64, data: u32) {
        if address >> 20 != 0xfee {
            return;
        }
        // The redirection hint (bit 3) alone does not change who is named.
        let to = Destination {
            id: (address >> 12) as u32 & 0xff,
            logical: address & 4 != 0,
            wide: false,
        };
        let message =
            Message { vector: data as u8, mode: data >> 8 & 7, level: data & 1 << 15 != 0 };
        let fixed = matches!(message.mode, delivery::FIXED | delivery::LOWEST_PRIORITY);
        if fixed && message.vector < 16 {
            return;
        }
        // A level-triggered message with the level bit clear says that the line fell.
        if message.level && data & 1 << 14 == 0 {
            return;
        }
        send(self, to, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(ldr: u32) -> Addressing {
        Addressing { enabled: true, ldr: ldr << 24, ..Addressing::default() }
    }

    fn logical(id: u32) -> Destination {
        Destination { id, logical: true, wide: false }
    }

    #[test]
    fn flat_logical_destination_names_every_apic_whose_bit_is_set() {
        assert!(logical(0b0101).names(7, flat(0b0100)));
        assert!(!logical(0b0101).names(7, flat(0b0010)));
    }

    #[test]
    fn cluster_destination_needs_the_cluster_and_a_member() {
        let target = Addressing { cluster: true, ..flat(0x21) };

        assert!(logical(0x23).names(0, target));
        assert!(!logical(0x13).names(0, target));
        assert!(!logical(0x22).names(0, target));
        assert!(logical(0xf1).names(0, target));
    }

    #[test]
    fn x2apic_logical_id_has_16_members_in_a_cluster() {
        let target = Addressing { enabled: true, x2apic: true, cluster: false, ldr: 0x1_0004 };
        let to = |id| Destination { id, logical: true, wide: true };

        assert!(to(0x1_0006).names(18, target));
        assert!(!to(0x0_0006).names(18, target));
    }

    #[test]
    fn broadcast_skips_disabled_apics() {
        let all = Destination { id: 0xff, logical: false, wide: false };

        assert!(all.names(1, flat(0)));
        assert!(!all.names(1, Addressing::default()));
    }
}
