//! The I/O APIC as its driver and its devices see it.

use super::*;
use crate::chaos::Chaos;

#[derive(Default)]
struct Inbox(Mutex<Vec<(u64, u32)>>);

impl Inbox {
    fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl MsiSink for Inbox {
    fn deliver(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

/// Programs the I/O APIC through its register window.
struct Driver {
    ioapic: Arc<IoApic>,
    inbox: Arc<Inbox>,
}

impl Driver {
    fn new() -> Self {
        let inbox = Arc::new(Inbox::default());
        Self { ioapic: Arc::new(IoApic::new(inbox.clone())), inbox }
    }

    fn read(&mut self, index: u8) -> u32 {
        let mut data = [0; 4];
        self.ioapic.write(0x00, &u32::from(index).to_le_bytes());
        self.ioapic.read(0x10, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, index: u8, value: u32) {
        self.ioapic.write(0x00, &u32::from(index).to_le_bytes());
        self.ioapic.write(0x10, &value.to_le_bytes());
    }

    /// Writes the entry as Linux does: the high half first, so that it is never half valid.
    fn route(&mut self, pin: u8, low: u32, destination: u8) {
        self.write(0x11 + 2 * pin, u32::from(destination) << 24);
        self.write(0x10 + 2 * pin, low);
    }

    fn line(&self, pin: u32) -> Arc<dyn IrqLine> {
        self.ioapic.line(pin).unwrap()
    }
}

const LEVEL: u32 = 1 << 15;

#[test]
fn version_and_entry_count_are_those_of_a_24_pin_version_20() {
    let mut driver = Driver::new();

    assert_eq!(driver.read(0x01), 0x0017_0020);
}

#[test]
fn id_keeps_four_bits_and_arbitration_follows_it() {
    let mut driver = Driver::new();

    driver.write(0x00, 0xffff_ffff);
    driver.write(0x02, 0);

    assert_eq!(driver.read(0x00), 0x0f00_0000);
    assert_eq!(driver.read(0x02), 0x0f00_0000);
}

#[test]
fn entries_are_masked_at_reset_and_keep_only_their_writable_bits() {
    let mut driver = Driver::new();

    for pin in 0..24 {
        assert_eq!(driver.read(0x10 + 2 * pin), 0x1_0000);
        assert_eq!(driver.read(0x11 + 2 * pin), 0);
    }
    driver.route(23, 0xffff_ffff, 0xff);

    assert_eq!(driver.read(0x10 + 46), 0x1_afff);
    assert_eq!(driver.read(0x11 + 46), 0xff00_0000);
    assert_eq!(driver.read(0x40), 0);
    assert!(driver.ioapic.line(24).is_none());
}

#[test]
fn rising_edge_sends_one_message_and_a_held_line_no_second() {
    let mut driver = Driver::new();
    driver.route(4, 0x31, 2);
    let line = driver.line(4);

    line.set(true);
    line.set(true);
    line.set(false);

    assert_eq!(driver.inbox.take(), [(0xfee0_2000, 0x4031)]);
    line.pulse();
    assert_eq!(driver.inbox.take(), [(0xfee0_2000, 0x4031)]);
}

#[test]
fn edge_at_a_masked_input_is_lost() {
    let mut driver = Driver::new();
    driver.route(4, 0x31 | MASKED, 0);

    driver.line(4).set(true);
    driver.route(4, 0x31, 0);

    assert_eq!(driver.inbox.take(), []);
}

#[test]
fn level_interrupts_once_until_eoi_and_again_while_asserted() {
    let mut driver = Driver::new();
    driver.route(16, 0x51 | LEVEL, 1);
    let line = driver.line(16);

    line.set(true);
    line.set(false);
    line.set(true);
    assert_eq!(driver.inbox.take(), [(0xfee0_1000, 0xc051)]);
    assert_eq!(driver.read(0x30) & REMOTE_IRR, REMOTE_IRR);

    driver.ioapic.end_of_interrupt(0x52);
    assert_eq!(driver.inbox.take(), []);
    driver.ioapic.end_of_interrupt(0x51);
    assert_eq!(driver.inbox.take(), [(0xfee0_1000, 0xc051)]);

    line.set(false);
    driver.ioapic.end_of_interrupt(0x51);
    assert_eq!(driver.inbox.take(), []);
    assert_eq!(driver.read(0x30) & REMOTE_IRR, 0);
}

#[test]
fn eoi_register_ends_the_interrupt_as_a_broadcast_does() {
    let mut driver = Driver::new();
    driver.route(16, 0x51 | LEVEL, 1);
    driver.line(16).set(true);
    driver.inbox.take();

    driver.ioapic.write(0x40, &0x51_u32.to_le_bytes());

    assert_eq!(driver.inbox.take(), [(0xfee0_1000, 0xc051)]);
}

#[test]
fn level_asserted_while_masked_interrupts_when_unmasked() {
    let mut driver = Driver::new();
    driver.route(16, 0x51 | LEVEL | MASKED, 1);

    driver.line(16).set(true);
    assert_eq!(driver.inbox.take(), []);
    driver.route(16, 0x51 | LEVEL, 1);

    assert_eq!(driver.inbox.take(), [(0xfee0_1000, 0xc051)]);
}

#[test]
fn two_inputs_with_one_vector_both_end_with_it() {
    let mut driver = Driver::new();
    driver.route(16, 0x51 | LEVEL, 1);
    driver.route(17, 0x51 | LEVEL, 2);
    driver.line(16).set(true);
    driver.line(17).set(true);
    driver.inbox.take();

    driver.ioapic.end_of_interrupt(0x51);

    assert_eq!(driver.inbox.take(), [(0xfee0_1000, 0xc051), (0xfee0_2000, 0xc051)]);
}

#[test]
fn switching_to_edge_and_back_clears_remote_irr() {
    let mut driver = Driver::new();
    driver.route(16, 0x51 | LEVEL, 1);
    driver.line(16).pulse();
    assert_eq!(driver.read(0x30) & REMOTE_IRR, REMOTE_IRR);

    driver.write(0x30, 0x51 | MASKED);
    driver.write(0x30, 0x51 | MASKED | LEVEL);

    assert_eq!(driver.read(0x30) & REMOTE_IRR, 0);
}

#[test]
fn delivery_modes_map_to_the_message_or_to_nothing() {
    let cases: [(u32, Option<(u64, u32)>); 8] = [
        (0, Some((0xfee0_3004, 0xc061))),
        (1, Some((0xfee0_300c, 0xc161))),
        (2, None),
        (3, None),
        (4, Some((0xfee0_3004, 0x4461))),
        (5, Some((0xfee0_3004, 0x4561))),
        (6, None),
        (7, Some((0xfee0_3004, 0x4761))),
    ];

    for (mode, message) in cases {
        let mut driver = Driver::new();
        driver.route(20, 0x61 | mode << 8 | DESTINATION_LOGICAL | LEVEL, 3);
        driver.line(20).set(true);
        assert_eq!(driver.inbox.take(), Vec::from_iter(message), "delivery mode {mode}");
    }
}

#[test]
fn narrow_write_selects_a_register_and_narrow_reads_give_its_bytes() {
    let mut driver = Driver::new();
    let mut bytes = [0xff; 2];
    let mut wide = [0xff; 8];

    driver.ioapic.write(0x00, &[0x01]);
    driver.ioapic.write(0x10, &[0xff]);
    driver.ioapic.read(0x12, &mut bytes);
    driver.ioapic.read(0x10, &mut wide);

    assert_eq!(bytes, [0x17, 0]);
    assert_eq!(wide, [0x20, 0, 0x17, 0, 0, 0, 0, 0]);
}

#[test]
fn reset_masks_everything_and_remembers_the_wires() {
    let mut driver = Driver::new();
    driver.route(16, 0x51 | LEVEL, 1);
    driver.line(16).set(true);
    driver.inbox.take();

    driver.ioapic.reset();
    assert_eq!(driver.read(0x30), 0x1_0000);
    driver.route(16, 0x52 | LEVEL, 0);

    assert_eq!(driver.inbox.take(), [(0xfee0_0000, 0xc052)]);
}

#[test]
fn random_accesses_and_wires_never_panic() {
    let mut chaos = Chaos::new(0x82093);
    let mut driver = Driver::new();
    let lines: Vec<_> = (0..24).map(|pin| driver.line(pin)).collect();

    for _ in 0..200_000 {
        match chaos.below(4) {
            0 => lines[chaos.below(24) as usize].set(chaos.next() & 1 != 0),
            1 => driver.write(chaos.next() as u8, chaos.next() as u32),
            _ => chaos.access(&mut driver.ioapic, LEN),
        }
    }

    assert!(driver.inbox.take().iter().all(|&(address, _)| address >> 20 == 0xfee));
}
