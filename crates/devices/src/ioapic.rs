//! The I/O APIC (Intel 82093AA, with the EOI register of version 20H).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::Device;
use crate::irq::{IrqLine, MsiSink};
use crate::node::Node;

/// Interrupt inputs, and redirection table entries.
pub const IOAPIC_PINS: u8 = 24;
/// Bytes of the register window.
const LEN: u64 = 0x1000;

/// Direct registers: offsets in the register window (82093AA section 3.1).
const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
/// EOI register: not in the 82093AA, but in every I/O APIC of version 20H.
const EOI: u64 = 0x40;

/// Indirect registers (82093AA section 3.2).
const IOAPICID: u8 = 0x00;
const IOAPICVER: u8 = 0x01;
const IOAPICARB: u8 = 0x02;
const IOREDTBL: u8 = 0x10;
const IOREDTBL_END: u8 = IOREDTBL + 2 * IOAPIC_PINS;

const VERSION: u32 = 0x20 | (IOAPIC_PINS as u32 - 1) << 16;
/// Identification, in bits 27:24 of its register.
const ID_MASK: u32 = 0x0f00_0000;

/// Redirection table entry (82093AA section 3.2.4), low half.
const VECTOR_MASK: u32 = 0xff;
const DELIVERY_MODE_MASK: u32 = 0x700;
const DESTINATION_LOGICAL: u32 = 1 << 11;
const REMOTE_IRR: u32 = 1 << 14;
const TRIGGER_LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
/// What software writes: all but delivery status (always idle here) and remote IRR.
const LOW_WRITABLE: u32 = 0x1_ffff & !(1 << 12) & !REMOTE_IRR;
/// High half: the destination field.
const HIGH_WRITABLE: u32 = 0xff00_0000;

const FIXED: u32 = 0 << 8;
const LOWEST_PRIORITY: u32 = 1 << 8;
const NMI: u32 = 4 << 8;
const INIT: u32 = 5 << 8;
const EXTINT: u32 = 7 << 8;

/// MSI layout (SDM Vol. 3A, 10.11).
const MSI_ADDRESS: u64 = 0xfee0_0000;
const MSI_DESTINATION_SHIFT: u32 = 12;
const MSI_REDIRECTION_HINT: u64 = 1 << 3;
const MSI_LOGICAL: u64 = 1 << 2;
const MSI_ASSERT: u32 = 1 << 14;
const MSI_LEVEL: u32 = 1 << 15;

#[derive(Debug, Clone, Copy)]
struct Entry {
    low: u32,
    high: u32,
}

struct Message {
    address: u64,
    data: u32,
}

impl Entry {
    const AT_RESET: Self = Self { low: MASKED, high: 0 };

    fn mode(self) -> u32 {
        self.low & DELIVERY_MODE_MASK
    }

    fn masked(self) -> bool {
        self.low & MASKED != 0
    }

    /// Whether the input is level sensitive. NMI, INIT and ExtINT are edges whatever the
    /// trigger-mode bit says (82093AA section 3.2.4, Delivery Mode).
    fn level(self) -> bool {
        self.low & TRIGGER_LEVEL != 0 && matches!(self.mode(), FIXED | LOWEST_PRIORITY)
    }

    /// The message of this entry, or none for a delivery mode that has no effect: reserved ones,
    /// and SMI, because the platform has no system-management mode.
    fn message(self) -> Option<Message> {
        let mode = self.mode();
        if !matches!(mode, FIXED | LOWEST_PRIORITY | NMI | INIT | EXTINT) {
            return None;
        }
        let mut address = MSI_ADDRESS | u64::from(self.high >> 24) << MSI_DESTINATION_SHIFT;
        if self.low & DESTINATION_LOGICAL != 0 {
            address |= MSI_LOGICAL;
        }
        if mode == LOWEST_PRIORITY {
            address |= MSI_REDIRECTION_HINT;
        }
        let mut data = self.low & VECTOR_MASK | mode | MSI_ASSERT;
        if self.level() {
            data |= MSI_LEVEL;
        }
        Some(Message { address, data })
    }
}

#[derive(Debug)]
struct Registers {
    select: u8,
    id: u32,
    entries: [Entry; IOAPIC_PINS as usize],
    /// The inputs that are asserted, a bit each.
    asserted: u32,
}

impl Registers {
    const AT_RESET: Self =
        Self { select: 0, id: 0, entries: [Entry::AT_RESET; IOAPIC_PINS as usize], asserted: 0 };

    fn read_selected(&self) -> u32 {
        match self.select {
            IOAPICID | IOAPICARB => self.id,
            IOAPICVER => VERSION,
            select @ IOREDTBL..IOREDTBL_END => {
                let entry = &self.entries[usize::from((select - IOREDTBL) / 2)];
                if select & 1 == 0 { entry.low } else { entry.high }
            }
            _ => 0,
        }
    }

    fn write_selected(&mut self, value: u32) -> Option<Message> {
        match self.select {
            IOAPICID => self.id = value & ID_MASK,
            select @ IOREDTBL..IOREDTBL_END => {
                let pin = usize::from((select - IOREDTBL) / 2);
                let entry = &mut self.entries[pin];
                if select & 1 == 0 {
                    entry.low = value & LOW_WRITABLE | entry.low & REMOTE_IRR;
                    // Remote IRR has no meaning for an edge. Linux switches an entry to edge and
                    // back to level in order to clear it.
                    if !entry.level() {
                        entry.low &= !REMOTE_IRR;
                    }
                } else {
                    entry.high = value & HIGH_WRITABLE;
                }
                return self.sample_level(pin);
            }
            _ => {}
        }
        None
    }

    /// Sends the interrupt of a level-sensitive input that is asserted, unmasked, and not yet
    /// being served.
    fn sample_level(&mut self, pin: usize) -> Option<Message> {
        let entry = &mut self.entries[pin];
        let asserted = self.asserted >> pin & 1 != 0;
        if !asserted || entry.masked() || !entry.level() || entry.low & REMOTE_IRR != 0 {
            return None;
        }
        entry.low |= REMOTE_IRR;
        entry.message()
    }

    fn set_input(&mut self, pin: usize, asserted: bool) -> Option<Message> {
        let bit = 1 << pin;
        let rising = asserted && self.asserted & bit == 0;
        if asserted {
            self.asserted |= bit;
        } else {
            self.asserted &= !bit;
        }
        let entry = self.entries[pin];
        if entry.level() {
            return self.sample_level(pin);
        }
        // An edge at a masked input is lost (82093AA section 3.2.4, Interrupt Mask).
        if rising && !entry.masked() { entry.message() } else { None }
    }
}

/// The I/O APIC. Devices drive its inputs, and it sends messages to the local APICs.
#[derive(Debug)]
pub struct IoApic {
    registers: Mutex<Registers>,
    sink: Arc<dyn MsiSink>,
}

impl IoApic {
    /// Its registers from `base` on, where the MADT is to say that it is.
    pub fn node(base: u64) -> Node {
        Node::in_memory("ioapic", base, LEN)
    }

    /// An I/O APIC as after reset: all inputs masked.
    pub fn new(sink: Arc<dyn MsiSink>) -> Self {
        Self { registers: Mutex::new(Registers::AT_RESET), sink }
    }

    /// The wire to input `gsi`, or none if there are not that many inputs.
    pub fn line(self: &Arc<Self>, gsi: u32) -> Option<Arc<dyn IrqLine>> {
        let pin = u8::try_from(gsi).ok().filter(|&pin| pin < IOAPIC_PINS)?;
        Some(Arc::new(InputPin { ioapic: self.clone(), pin: usize::from(pin) }))
    }

    /// Takes the EOI of a level-triggered interrupt that a local APIC broadcasts: an input that
    /// is still asserted interrupts again.
    ///
    /// Messages may be delivered before this returns: the caller holds no local APIC's lock.
    pub fn end_of_interrupt(&self, vector: u8) {
        for pin in 0..usize::from(IOAPIC_PINS) {
            let message = {
                let mut registers = self.lock();
                let entry = &mut registers.entries[pin];
                if entry.low & VECTOR_MASK != u32::from(vector) || entry.low & REMOTE_IRR == 0 {
                    continue;
                }
                entry.low &= !REMOTE_IRR;
                registers.sample_level(pin)
            };
            self.send(message);
        }
    }

    /// Puts everything in the state after reset but the inputs, which the devices drive.
    pub fn reset(&self) {
        let mut registers = self.lock();
        *registers = Registers { asserted: registers.asserted, ..Registers::AT_RESET };
    }

    fn set_input(&self, pin: usize, asserted: bool) {
        let message = self.lock().set_input(pin, asserted);
        self.send(message);
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            IOREGSEL => u32::from(self.lock().select),
            IOWIN => self.lock().read_selected(),
            _ => 0,
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        match offset {
            // It has eight bits, as EOI has.
            IOREGSEL => self.lock().select = value.to_le_bytes()[0],
            IOWIN => {
                let message = self.lock().write_selected(value);
                self.send(message);
            }
            EOI => self.end_of_interrupt(value.to_le_bytes()[0]),
            _ => {}
        }
    }

    fn send(&self, message: Option<Message>) {
        if let Some(Message { address, data }) = message {
            self.sink.deliver(address, data);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registers are 32 bits wide and 16 bytes apart. A narrower or wider read gets the bytes of the
/// register and zeros. A narrower write reaches only IOREGSEL and EOI, which have 8 bits; it is no
/// access that the data sheet knows for IOWIN.
impl Device for Arc<IoApic> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let first = (offset & 3) as usize;
        let value = self.read_register(offset & !3).to_le_bytes();
        for (to, from) in data.iter_mut().zip(&value[first..]) {
            *to = *from;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(&word) = data.first_chunk() {
            self.write_register(offset, u32::from_le_bytes(word));
        } else if let (&[byte, ..], IOREGSEL | EOI) = (data, offset) {
            self.write_register(offset, u32::from(byte));
        }
    }
}

struct InputPin {
    ioapic: Arc<IoApic>,
    pin: usize,
}

impl IrqLine for InputPin {
    fn set(&self, asserted: bool) {
        self.ioapic.set_input(self.pin, asserted);
    }
}

#[cfg(test)]
mod tests;
