//! Power-off and reset: the ACPI registers of a hardware-reduced platform, and its power button.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use acpi_tables::aml::{
    Arg, EISAName, Equal, If, Interrupt, Method, Name, Notify, Path, ResourceTemplate,
};

use crate::aml::AmlBytes;
use crate::bus::Device;
use crate::irq::IrqLine;
use crate::node::Node;

/// What the guest asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// Start over.
    Reset,
    /// Enter S5.
    PowerOff,
}

const NOTHING: u8 = 0;
const RESET: u8 = 1;
const POWER_OFF: u8 = 2;

/// Where devices say that the guest wants a reset or power-off, and the machine learns it.
pub struct PowerSwitch {
    asked: AtomicU8,
    wake: Box<dyn Fn(PowerEvent) + Send + Sync>,
}

impl fmt::Debug for PowerSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PowerSwitch").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

impl PowerSwitch {
    /// A switch that calls `wake` on the thread of the vCPU that asked, with the device's lock
    /// held: it should flag and return.
    pub fn new(wake: impl Fn(PowerEvent) + Send + Sync + 'static) -> Self {
        Self { asked: AtomicU8::new(NOTHING), wake: Box::new(wake) }
    }

    /// Asks for `event`. The first request stands until [`PowerSwitch::take`]; later ones change
    /// nothing and wake nobody.
    pub fn request(&self, event: PowerEvent) {
        let code = match event {
            PowerEvent::Reset => RESET,
            PowerEvent::PowerOff => POWER_OFF,
        };
        let first =
            self.asked.compare_exchange(NOTHING, code, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            tracing::debug!(?event, "guest power request");
            (self.wake)(event);
        }
    }

    /// What was asked for, if anything.
    pub fn pending(&self) -> Option<PowerEvent> {
        Self::decode(self.asked.load(Ordering::Acquire))
    }

    /// Takes the request, so that the machine can run again after a reset.
    pub fn take(&self) -> Option<PowerEvent> {
        Self::decode(self.asked.swap(NOTHING, Ordering::AcqRel))
    }

    fn decode(code: u8) -> Option<PowerEvent> {
        match code {
            RESET => Some(PowerEvent::Reset),
            POWER_OFF => Some(PowerEvent::PowerOff),
            _ => None,
        }
    }
}

/// What the FADT's RESET_VALUE says (ACPI 6.4, section 4.8.3.6).
pub const RESET_VALUE: u8 = 0x01;

/// What the DSDT's `\_S5` package says: the SLP_TYP that means power-off.
pub const S5_SLEEP_TYPE: u8 = 5;

/// SLP_EN of the sleep control register (ACPI 6.4, section 4.8.3.7).
const SLP_EN: u8 = 1 << 5;
const SLP_TYP_SHIFT: u8 = 2;
const SLP_TYP_MASK: u8 = 0b111;

/// The sleep and reset registers that the FADT of a hardware-reduced platform names, one byte
/// each.
#[derive(Debug)]
pub struct PowerControl {
    switch: Arc<PowerSwitch>,
    /// SLP_TYP as last written; SLP_EN is write-only and reads as zero.
    control: u8,
}

impl PowerControl {
    /// Offset of SLEEP_CONTROL_REG.
    pub const SLEEP_CONTROL: u64 = 0;
    /// Offset of SLEEP_STATUS_REG.
    pub const SLEEP_STATUS: u64 = 1;
    /// Offset of RESET_REG.
    pub const RESET: u64 = 2;
    /// Bytes of the register block.
    const LEN: u16 = 3;

    /// The registers from port `first` on, where the FADT is to say that they are.
    pub fn node(first: u16) -> Node {
        Node::at_ports("power", first, Self::LEN)
    }

    /// Registers that throw `switch`.
    pub fn new(switch: Arc<PowerSwitch>) -> Self {
        Self { switch, control: 0 }
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        match offset {
            Self::SLEEP_CONTROL => {
                self.control = value & (SLP_TYP_MASK << SLP_TYP_SHIFT);
                let sleep_type = (value >> SLP_TYP_SHIFT) & SLP_TYP_MASK;
                if value & SLP_EN == 0 {
                    return;
                }
                if sleep_type == S5_SLEEP_TYPE {
                    self.switch.request(PowerEvent::PowerOff);
                } else {
                    tracing::warn!(sleep_type, "guest asked for a sleep state that is not there");
                }
            }
            Self::RESET if value == RESET_VALUE => self.switch.request(PowerEvent::Reset),
            // WAK_STS is cleared by writing it, and is never set: S5 does not wake.
            _ => {}
        }
    }
}

impl Device for PowerControl {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = if at == Self::SLEEP_CONTROL { self.control } else { 0 };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, &byte) in (offset..).zip(data) {
            self.write_register(at, byte);
        }
    }
}

/// Interrupt of the power button: edge-triggered, active high, that of the Generic Event Device in
/// the DSDT. On a PC it is the interrupt of ACPI's fixed hardware, which is not here.
const BUTTON_GSI: u32 = 9;
/// Notification value of a power button that was pressed (ACPI 6.4, table 5.197).
const BUTTON_PRESSED: u8 = 0x80;

/// The power button (ACPI 6.4, section 4.8.2.2.1.2): the Generic Event Device tells the guest that it
/// was pressed, and what follows is up to the guest.
#[derive(Clone, Debug)]
pub struct PowerButton(Arc<dyn IrqLine>);

impl PowerButton {
    /// The button, which has an interrupt and no registers. The DSDT has two devices for it: the
    /// control-method power button, which says no more than what it is, and the Generic Event Device
    /// (5.6.9), since a hardware-reduced platform has no other way to tell events. Its `_EVT` gets the
    /// number of the interrupt that came.
    pub fn node() -> Node {
        let id = Name::new("_HID".into(), &EISAName::new("PNP0C0C"));
        let mut aml = AmlBytes::device("PWRB", vec![&id]);
        let interrupt = Interrupt::new(true, true, false, false, BUTTON_GSI);
        let resources = ResourceTemplate::new(vec![&interrupt]);
        let button = Path::new("PWRB");
        let notify = Notify::new(&button, &BUTTON_PRESSED);
        let event = Equal::new(&Arg(0), &BUTTON_GSI);
        let dispatch = If::new(&event, vec![&notify]);
        aml.push(&AmlBytes::device(
            "GED_",
            vec![
                &Name::new("_HID".into(), &"ACPI0013"),
                &Name::new("_UID".into(), &0_u8),
                &Name::new("_CRS".into(), &resources),
                &Method::new("_EVT".into(), 1, true, vec![&dispatch]),
            ],
        ));
        Node { aml, ..Node::new("power-button").with_gsi(BUTTON_GSI) }
    }

    /// A button that interrupts on `line`.
    pub fn new(line: Arc<dyn IrqLine>) -> Self {
        Self(line)
    }

    /// Presses it, once.
    pub fn press(&self) {
        self.0.pulse();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn switch() -> (Arc<PowerSwitch>, Arc<Mutex<Vec<PowerEvent>>>) {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let log = woken.clone();
        (Arc::new(PowerSwitch::new(move |event| log.lock().unwrap().push(event))), woken)
    }

    #[test]
    fn sleep_control_with_s5_and_slp_en_powers_off() {
        let (switch, woken) = switch();
        let mut power = PowerControl::new(switch.clone());

        power.write(PowerControl::SLEEP_STATUS, &[0x80]);
        power.write(PowerControl::SLEEP_CONTROL, &[S5_SLEEP_TYPE << 2]);
        assert_eq!(switch.pending(), None);
        power.write(PowerControl::SLEEP_CONTROL, &[S5_SLEEP_TYPE << 2 | SLP_EN]);

        assert_eq!(switch.pending(), Some(PowerEvent::PowerOff));
        assert_eq!(*woken.lock().unwrap(), [PowerEvent::PowerOff]);
    }

    #[test]
    fn sleep_control_reads_its_type_and_no_enable() {
        let (switch, _) = switch();
        let mut power = PowerControl::new(switch);

        power.write(PowerControl::SLEEP_CONTROL, &[0xff]);
        let mut data = [0xff; 3];
        power.read(PowerControl::SLEEP_CONTROL, &mut data);

        assert_eq!(data, [0x1c, 0, 0]);
    }

    #[test]
    fn other_sleep_types_and_other_reset_values_do_nothing() {
        let (switch, woken) = switch();
        let mut power = PowerControl::new(switch);

        for sleep_type in (0..8).filter(|&sleep_type| sleep_type != S5_SLEEP_TYPE) {
            power.write(PowerControl::SLEEP_CONTROL, &[sleep_type << 2 | SLP_EN]);
        }
        for value in (0..=255).filter(|&value| value != RESET_VALUE) {
            power.write(PowerControl::RESET, &[value]);
        }

        assert_eq!(*woken.lock().unwrap(), []);
    }

    #[test]
    fn reset_register_resets_and_the_first_request_stands() {
        let (switch, woken) = switch();
        let mut power = PowerControl::new(switch.clone());

        power.write(PowerControl::RESET, &[RESET_VALUE]);
        power.write(PowerControl::SLEEP_CONTROL, &[S5_SLEEP_TYPE << 2 | SLP_EN]);

        assert_eq!(switch.take(), Some(PowerEvent::Reset));
        assert_eq!(switch.take(), None);
        assert_eq!(*woken.lock().unwrap(), [PowerEvent::Reset]);
    }
}
