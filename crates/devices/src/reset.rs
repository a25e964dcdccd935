//! The ways to reset a PC by its chipset: the keyboard controller's output port (60H and 64H), system
//! control port A (92H) and the reset control register (CF9H).
//!
//! Some of them pulse RESET# on a PC, others INIT#, after which the firmware starts over too. There is
//! no firmware here, so that each resets the machine.

use std::sync::Arc;

use crate::bus::Device;
use crate::node::Node;
use crate::power::{PowerEvent, PowerSwitch};

/// Commands of the keyboard controller.
mod command {
    pub(super) const READ_OUTPUT_PORT: u8 = 0xd0;
    pub(super) const WRITE_OUTPUT_PORT: u8 = 0xd1;
    /// F0H to FFH pulse low each of the output port's bits 3:0 that is clear in them.
    pub(super) const PULSE_OUTPUT_PORT: u8 = 0xf0;
}

/// The output port's bit 0, which is the reset line, active low.
const OUTPUT_NO_RESET: u8 = 1 << 0;
/// The output port's bit 1. A20 is never masked.
const OUTPUT_A20: u8 = 1 << 1;
/// Status bit 0: a byte waits at the data port.
const STATUS_OUTPUT_FULL: u8 = 1 << 0;

/// The keyboard controller, without a keyboard: what it takes to reset a PC.
#[derive(Debug)]
pub struct KeyboardController {
    switch: Arc<PowerSwitch>,
    output_port: u8,
    /// The next byte to the data port is for the output port.
    takes_output_port: bool,
    /// The byte that waits at the data port.
    waiting: Option<u8>,
}

impl KeyboardController {
    /// The first of the ports that it answers at. Those between its two are nobody's.
    const PORT: u16 = 0x60;
    /// Ports from the first to the last.
    const LEN: u16 = 5;

    const DATA: u64 = 0;
    const COMMAND: u64 = 4;

    /// Its place on a PC.
    pub fn node() -> Node {
        Node::at_ports("keyboard-controller", Self::PORT, Self::LEN)
    }

    /// A controller that throws `switch`.
    pub fn new(switch: Arc<PowerSwitch>) -> Self {
        let output_port = OUTPUT_NO_RESET | OUTPUT_A20;
        Self { switch, output_port, takes_output_port: false, waiting: None }
    }

    fn command(&mut self, command: u8) {
        self.takes_output_port = command == command::WRITE_OUTPUT_PORT;
        match command {
            command::READ_OUTPUT_PORT => self.waiting = Some(self.output_port),
            command::PULSE_OUTPUT_PORT.. if command & OUTPUT_NO_RESET == 0 => {
                self.switch.request(PowerEvent::Reset);
            }
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        if !std::mem::take(&mut self.takes_output_port) {
            // There is no keyboard that would take it.
            return;
        }
        self.output_port = value | OUTPUT_NO_RESET;
        if value & OUTPUT_NO_RESET == 0 {
            self.switch.request(PowerEvent::Reset);
        }
    }
}

impl Device for KeyboardController {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = match at {
                Self::DATA => self.waiting.take().unwrap_or(0),
                Self::COMMAND if self.waiting.is_some() => STATUS_OUTPUT_FULL,
                Self::COMMAND => 0,
                _ => 0xff,
            };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, &byte) in (offset..).zip(data) {
            match at {
                Self::DATA => self.data(byte),
                Self::COMMAND => self.command(byte),
                _ => {}
            }
        }
    }
}

/// System control port A: bit 0 pulses INIT# when it is set, bit 1 is A20, which is never masked.
#[derive(Debug)]
pub struct SystemControl {
    switch: Arc<PowerSwitch>,
    value: u8,
}

impl SystemControl {
    const PORT: u16 = 0x92;

    const INIT_NOW: u8 = 1 << 0;
    const A20: u8 = 1 << 1;

    /// Its place on a PC.
    pub fn node() -> Node {
        Node::at_ports("system-control", Self::PORT, 1)
    }

    /// A port that throws `switch`.
    pub fn new(switch: Arc<PowerSwitch>) -> Self {
        Self { switch, value: Self::A20 }
    }
}

impl Device for SystemControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(self.value);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        let rises = value & !self.value & Self::INIT_NOW != 0;
        self.value = value & (Self::INIT_NOW | Self::A20);
        if rises {
            self.switch.request(PowerEvent::Reset);
        }
    }
}

/// The reset control register, in the middle of the doubleword that is PCI's configuration address.
/// Only byte accesses are the register's: PCI is not here, but software looks for it by doublewords.
#[derive(Debug)]
pub struct ResetControl {
    switch: Arc<PowerSwitch>,
    value: u8,
}

impl ResetControl {
    /// The first port of the doubleword.
    const PORT: u16 = 0xcf8;
    /// Its bytes.
    const LEN: u16 = 4;

    /// Offset of the register.
    const REGISTER: u64 = 1;
    /// Bit 2: reset the processor when it is set, by the kind of reset that the other bits name.
    const RST_CPU: u8 = 1 << 2;
    /// Bits 1 and 3: RESET# instead of INIT#, a full power cycle.
    const KIND: u8 = 1 << 1 | 1 << 3;

    /// Its place on a PC.
    pub fn node() -> Node {
        Node::at_ports("reset-control", Self::PORT, Self::LEN)
    }

    /// A register that throws `switch`.
    pub fn new(switch: Arc<PowerSwitch>) -> Self {
        Self { switch, value: 0 }
    }
}

impl Device for ResetControl {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match data.len() {
            1 if offset == Self::REGISTER => self.value,
            _ => 0xff,
        };
        data.fill(value);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (Self::REGISTER, &[value]) = (offset, data) else { return };
        let rises = value & !self.value & Self::RST_CPU != 0;
        self.value = value & (Self::KIND | Self::RST_CPU);
        if rises {
            self.switch.request(PowerEvent::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::Chaos;

    fn switch() -> Arc<PowerSwitch> {
        Arc::new(PowerSwitch::new(|_| {}))
    }

    const DATA: u64 = KeyboardController::DATA;
    const COMMAND: u64 = KeyboardController::COMMAND;

    #[test]
    fn keyboard_commands_that_pulse_the_reset_line_reset_and_others_do_not() {
        for command in 0..=255 {
            let switch = switch();
            let mut keyboard = KeyboardController::new(switch.clone());

            keyboard.write(COMMAND, &[]);
            keyboard.write(COMMAND, &[command]);

            let resets = command >= 0xf0 && command & 1 == 0;
            let expected = resets.then_some(PowerEvent::Reset);
            assert_eq!(switch.pending(), expected, "{command:#x}");
        }
    }

    #[test]
    fn an_output_port_with_the_reset_line_low_resets() {
        for (port, resets) in [(0xfe, true), (0x02, true), (0x03, false), (0xff, false)] {
            let switch = switch();
            let mut keyboard = KeyboardController::new(switch.clone());

            keyboard.write(COMMAND, &[0xd1]);
            keyboard.write(DATA, &[port]);

            let expected = resets.then_some(PowerEvent::Reset);
            assert_eq!(switch.pending(), expected, "{port:#x}");
        }
    }

    #[test]
    fn data_that_is_not_for_the_output_port_does_nothing() {
        let switch = switch();
        let mut keyboard = KeyboardController::new(switch.clone());

        keyboard.write(DATA, &[0]);
        keyboard.write(COMMAND, &[0xd1]);
        keyboard.write(COMMAND, &[0x20]);
        keyboard.write(DATA, &[0]);
        keyboard.write(COMMAND, &[0xd1]);
        keyboard.write(DATA, &[0xff]);
        keyboard.write(DATA, &[0]);

        assert_eq!(switch.pending(), None);
    }

    #[test]
    fn the_output_port_is_read_once_through_the_data_port() {
        let mut keyboard = KeyboardController::new(switch());
        let mut read = |command: Option<u8>| {
            keyboard.write(COMMAND, command.as_slice());
            let (mut status, mut data) = ([0xff], [0xff]);
            keyboard.read(COMMAND, &mut status);
            keyboard.read(DATA, &mut data);
            (status[0], data[0])
        };

        assert_eq!(read(None), (0, 0));
        assert_eq!(read(Some(0xd0)), (1, 0x03));
        assert_eq!(read(None), (0, 0));
    }

    #[test]
    fn ports_between_those_of_the_keyboard_controller_are_nobodys() {
        let mut keyboard = KeyboardController::new(switch());

        let mut data = [0; 5];
        keyboard.read(0, &mut data);

        assert_eq!(data, [0, 0xff, 0xff, 0xff, 0]);
    }

    #[test]
    fn port_92_resets_when_bit_0_rises_and_reads_back() {
        let switch = switch();
        let mut port = SystemControl::new(switch.clone());
        let mut data = [0xff];

        port.read(0, &mut data);
        port.write(0, &[0xfe]);
        port.write(0, &[0]);
        assert_eq!((data, switch.take()), ([2], None));
        port.write(0, &[3]);
        assert_eq!(switch.take(), Some(PowerEvent::Reset));
        port.write(0, &[1]);
        port.read(0, &mut data);

        assert_eq!((data, switch.take()), ([1], None));
    }

    #[test]
    fn the_reset_control_register_resets_when_bit_2_rises() {
        for (first, second, resets) in
            [(0x02, 0x06, true), (0x00, 0x04, true), (0x0a, 0x0e, true), (0x02, 0x0a, false)]
        {
            let switch = switch();
            let mut register = ResetControl::new(switch.clone());

            register.write(1, &[first]);
            assert_eq!(switch.take(), None, "{first:#x}");
            register.write(1, &[second]);

            assert_eq!(switch.take().is_some(), resets, "{second:#x}");
            register.write(1, &[second]);
            assert_eq!(switch.take(), None, "{second:#x}");
        }
    }

    #[test]
    fn a_look_for_pci_touches_no_reset_control_register() {
        let switch = switch();
        let mut register = ResetControl::new(switch.clone());
        let mut data = [0; 4];

        register.write(0, &[0xff; 4]);
        register.write(1, &[0xff; 2]);
        register.write(3, &[0xff]);
        register.read(0, &mut data);

        assert_eq!((switch.pending(), data), (None, [0xff; 4]));
        register.read(1, &mut data[..1]);
        assert_eq!(data[0], 0);
    }

    #[test]
    fn no_access_of_any_size_harms() {
        let mut chaos = Chaos::new(8042);
        let mut keyboard = KeyboardController::new(switch());
        let mut port = SystemControl::new(switch());
        let mut register = ResetControl::new(switch());

        for _ in 0..10_000 {
            chaos.access(&mut keyboard, KeyboardController::LEN.into());
            chaos.access(&mut port, 1);
            chaos.access(&mut register, ResetControl::LEN.into());
        }
    }
}
