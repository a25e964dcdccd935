//! The real-time clock and CMOS memory (MC146818).
//!
//! The time is the host's UTC time plus an offset that changes when the guest sets its clock.
//! Nothing ticks: each access works out what happened since the one before, and [`RtcTimer`]
//! looks only when an enabled interrupt is due.

mod calendar;
mod timer;

use std::fmt;
use std::sync::{Arc, Condvar};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use calendar::Civil;
use calendar::{DAY, Format};
pub use timer::RtcTimer;

use crate::aml::AcpiDevice;
use crate::bus::Device;
use crate::irq::IrqLine;
use crate::node::{Node, WorkThread};

/// First port: the index register. The data register follows.
const PORT: u16 = 0x70;
/// Ports of the RTC.
const LEN: u16 = 2;
/// Interrupt of the RTC: edge-triggered, active high, as on the ISA bus.
const GSI: u32 = 8;
/// Register that holds the century: what the FADT's CENTURY says.
pub const RTC_CENTURY: u8 = 0x32;

const SECONDS: u8 = 0;
const SECONDS_ALARM: u8 = 1;
const MINUTES: u8 = 2;
const MINUTES_ALARM: u8 = 3;
const HOURS: u8 = 4;
const HOURS_ALARM: u8 = 5;
const WEEKDAY: u8 = 6;
const DAY_OF_MONTH: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const REG_A: u8 = 10;
const REG_B: u8 = 11;
const REG_C: u8 = 12;
const REG_D: u8 = 13;

/// Register A: update in progress; divider control 11x holds the divider in reset.
const A_UIP: u8 = 0x80;
const A_DIVIDER: u8 = 0x70;
const A_DIVIDER_RESET: u8 = 0x60;
const A_RATE: u8 = 0x0f;
/// 32,768 Hz time base, 1,024 Hz periodic rate: what a PC's firmware leaves.
const A_AT_RESET: u8 = 0x26;

const B_SET: u8 = 0x80;
const B_PIE: u8 = 0x40;
const B_AIE: u8 = 0x20;
const B_UIE: u8 = 0x10;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;

/// Register C has its flags where register B enables them.
const C_IRQF: u8 = 0x80;
const C_PF: u8 = B_PIE;
const C_AF: u8 = B_AIE;
const C_UF: u8 = B_UIE;

/// Register D: the RAM and the time are valid.
const D_VRT: u8 = 0x80;

/// An alarm byte with both high bits set matches everything.
const ALARM_ANY: u8 = 0xc0;

const SECOND: i128 = 1_000_000_000;
/// UIP comes up this long before an update.
const UIP_LEAD: i128 = 244_000;
/// The first update comes this long after the divider leaves reset.
const AFTER_DIVIDER_RESET: i128 = SECOND / 2;
const TICKS_PER_SECOND: i128 = 32_768;

/// The RTC with its 128 bytes of CMOS memory.
pub struct Rtc {
    index: u8,
    /// The registers. Those of the time are current only while the clock stands still.
    ram: [u8; 128],
    /// Guest time less host time, in nanoseconds.
    offset: i128,
    /// Guest time in seconds up to which updates and alarms are accounted for.
    seen_second: i64,
    /// Host time in periodic-interrupt periods, up to which they are accounted for.
    seen_period: i128,
    now: Box<dyn Fn() -> Duration + Send>,
    line: Arc<dyn IrqLine>,
    /// Tells [`RtcTimer`] that the next interrupt may have moved.
    changed: Arc<Condvar>,
}

impl fmt::Debug for Rtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rtc")
            .field("index", &self.index)
            .field("ram", &self.ram)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl Rtc {
    /// The clock's place on a PC.
    pub fn node() -> Node {
        let acpi = AcpiDevice { name: "RTC_", hid: "PNP0B00", uid: None, edge: true };
        Node::at_ports("rtc", PORT, LEN)
            .with_gsi(GSI)
            .in_dsdt(&acpi)
            .working_on(WorkThread::Own(RtcTimer::THREAD))
    }

    /// A clock that shows the host's UTC time and interrupts on `line`, which is asserted as long
    /// as register C has IRQF set.
    pub fn new(line: Arc<dyn IrqLine>) -> Self {
        // A host clock before 1970 shows as 1970.
        Self::with_clock(line, || {
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
        })
    }

    /// A clock that shows `now`, the time since 1970-01-01 00:00:00 UTC.
    pub fn with_clock(line: Arc<dyn IrqLine>, now: impl Fn() -> Duration + Send + 'static) -> Self {
        let mut ram = [0; 128];
        ram[usize::from(REG_A)] = A_AT_RESET;
        ram[usize::from(REG_B)] = B_24_HOURS;
        ram[usize::from(REG_D)] = D_VRT;
        let mut rtc = Self {
            index: 0,
            ram,
            offset: 0,
            seen_second: 0,
            seen_period: 0,
            now: Box::new(now),
            line,
            changed: Arc::new(Condvar::new()),
        };
        rtc.skip_to_now();
        rtc
    }

    /// Sets a byte of CMOS memory past the clock's own registers, as firmware does. Others keep
    /// their value.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        if (REG_D + 1..0x80).contains(&index) && index != RTC_CENTURY {
            self.ram[usize::from(index)] = value;
        }
    }

    /// Accounts for the time since the last call, and interrupts if something enabled is due.
    pub fn poll(&mut self) {
        let host = self.host_time();
        let mut flags = 0;
        if let Some(period) = self.period() {
            let periods = host * TICKS_PER_SECOND / SECOND / period;
            if periods != self.seen_period {
                self.seen_period = periods;
                flags |= C_PF;
            }
        }
        if self.is_running() {
            let second = self.guest_second(host);
            if second != self.seen_second {
                flags |= C_UF;
                let passed = (second - self.seen_second).clamp(1, DAY);
                if self.alarm_within(second - passed, passed).is_some() {
                    flags |= C_AF;
                }
                self.seen_second = second;
            }
        }
        self.ram[usize::from(REG_C)] |= flags;
        self.drive_line();
    }

    /// How long until [`Rtc::poll`] has an interrupt to raise, if nothing changes.
    pub fn next_interrupt(&self) -> Option<Duration> {
        let enabled = self.reg(REG_B) & (B_PIE | B_AIE | B_UIE);
        if enabled == 0 || self.reg(REG_C) & C_IRQF != 0 {
            return None;
        }
        let host = self.host_time();
        let periodic = self.period().filter(|_| enabled & B_PIE != 0).map(|period| {
            let next = (host * TICKS_PER_SECOND / SECOND / period + 1) * period;
            // Rounded up: one nanosecond early would be one look in vain.
            (next * SECOND + TICKS_PER_SECOND - 1) / TICKS_PER_SECOND - host
        });
        let guest = host + self.offset;
        let to_second = SECOND - guest.rem_euclid(SECOND);
        let update = (self.is_running() && enabled & B_UIE != 0).then_some(to_second);
        let alarm = if self.is_running() && enabled & B_AIE != 0 {
            self.alarm_within(self.guest_second(host), DAY)
                .map(|after| to_second + i128::from(after - 1) * SECOND)
        } else {
            None
        };
        let nanos = [periodic, update, alarm].into_iter().flatten().min()?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }

    fn reg(&self, index: u8) -> u8 {
        self.ram[usize::from(index)]
    }

    fn format(&self) -> Format {
        let b = self.reg(REG_B);
        Format { binary: b & B_BINARY != 0, hours_24: b & B_24_HOURS != 0 }
    }

    fn divider_in_reset(&self) -> bool {
        self.reg(REG_A) & A_DIVIDER_RESET == A_DIVIDER_RESET
    }

    fn is_running(&self) -> bool {
        self.reg(REG_B) & B_SET == 0 && !self.divider_in_reset()
    }

    fn host_time(&self) -> i128 {
        (self.now)().as_nanos().try_into().unwrap_or(i128::MAX >> 32)
    }

    fn guest_second(&self, host: i128) -> i64 {
        i64::try_from((host + self.offset).div_euclid(SECOND)).unwrap_or(i64::MAX)
    }

    /// The period of the periodic interrupt in ticks, or none when it is off (MC146818 table 5).
    fn period(&self) -> Option<i128> {
        if self.divider_in_reset() {
            return None;
        }
        match self.reg(REG_A) & A_RATE {
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// Seconds from `from` to the first of the next `count` at which the alarm matches.
    fn alarm_within(&self, from: i64, count: i64) -> Option<i64> {
        let format = self.format();
        let wanted = |register: u8, decode: fn(Format, u8) -> i64| {
            let byte = self.reg(register);
            (byte < ALARM_ANY).then(|| decode(format, byte))
        };
        let hour = wanted(HOURS_ALARM, Format::decode_hour);
        let minute = wanted(MINUTES_ALARM, Format::decode);
        let second = wanted(SECONDS_ALARM, Format::decode);
        (1..=count).find(|after| {
            let time = (from + after).rem_euclid(DAY);
            hour.is_none_or(|hour| hour == time / 3600)
                && minute.is_none_or(|minute| minute == time / 60 % 60)
                && second.is_none_or(|second| second == time % 60)
        })
    }

    fn drive_line(&mut self) {
        let pending = self.reg(REG_B) & self.reg(REG_C) & (B_PIE | B_AIE | B_UIE) != 0;
        let c = &mut self.ram[usize::from(REG_C)];
        *c = *c & !C_IRQF | if pending { C_IRQF } else { 0 };
        self.line.set(pending);
    }

    /// Forgets the time that passed: what was set anew did not pass.
    fn skip_to_now(&mut self) {
        let host = self.host_time();
        self.seen_second = self.guest_second(host);
        self.seen_period =
            self.period().map_or(0, |period| host * TICKS_PER_SECOND / SECOND / period);
    }

    /// Writes the running time into its registers.
    fn latch_time(&mut self) {
        let time = Civil::from_unix(self.guest_second(self.host_time()));
        let format = self.format();
        for (index, byte) in [
            (SECONDS, format.encode(time.second)),
            (MINUTES, format.encode(time.minute)),
            (HOURS, format.encode_hour(time.hour)),
            (WEEKDAY, format.encode(time.weekday().into())),
            (DAY_OF_MONTH, format.encode(time.day)),
            (MONTH, format.encode(time.month)),
            (YEAR, format.encode(time.year.rem_euclid(100))),
            (RTC_CENTURY, format.encode(time.year.div_euclid(100).rem_euclid(100))),
        ] {
            self.ram[usize::from(index)] = byte;
        }
    }

    /// Lets the time run on from its registers, `fraction` nanoseconds into their second.
    fn run_from_registers(&mut self, fraction: i128) {
        let format = self.format();
        let value = |index| format.decode(self.reg(index));
        let time = Civil {
            year: value(RTC_CENTURY) * 100 + value(YEAR),
            month: value(MONTH),
            day: value(DAY_OF_MONTH),
            hour: format.decode_hour(self.reg(HOURS)),
            minute: value(MINUTES),
            second: value(SECONDS),
        };
        self.offset = i128::from(time.to_unix()) * SECOND + fraction - self.host_time();
        self.skip_to_now();
    }

    /// Nanoseconds since the last update. They go on while SET holds the registers.
    fn fraction(&self) -> i128 {
        (self.host_time() + self.offset).rem_euclid(SECOND)
    }

    fn read_data(&mut self) -> u8 {
        match self.index {
            SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | RTC_CENTURY => {
                if self.is_running() {
                    self.latch_time();
                }
                self.reg(self.index)
            }
            REG_A => {
                let updating = self.is_running() && self.fraction() >= SECOND - UIP_LEAD;
                self.reg(REG_A) | if updating { A_UIP } else { 0 }
            }
            REG_C => {
                self.poll();
                let flags = std::mem::take(&mut self.ram[usize::from(REG_C)]);
                self.drive_line();
                self.changed.notify_all();
                flags
            }
            index => self.reg(index),
        }
    }

    fn write_data(&mut self, value: u8) {
        match self.index {
            SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | RTC_CENTURY => {
                let running = self.is_running();
                if running {
                    self.latch_time();
                }
                self.ram[usize::from(self.index)] = value;
                if running {
                    self.run_from_registers(self.fraction());
                }
            }
            REG_A | REG_B => self.write_control(value),
            REG_C | REG_D => return,
            index => {
                self.poll();
                self.ram[usize::from(index)] = value;
            }
        }
        self.changed.notify_all();
    }

    /// Registers A and B: what they stop and start, and then the interrupts that B enables.
    fn write_control(&mut self, value: u8) {
        self.poll();
        let (was_running, was_reset) = (self.is_running(), self.divider_in_reset());
        let old_period = self.period();
        if was_running {
            self.latch_time();
        }
        if self.index == REG_A {
            self.ram[usize::from(REG_A)] = value & (A_DIVIDER | A_RATE);
        } else {
            // SET clears UIE (MC146818, register B).
            let cleared = if value & B_SET != 0 { B_UIE } else { 0 };
            let format_bits = B_BINARY | B_24_HOURS;
            let reformat = was_running && (self.reg(REG_B) ^ value) & format_bits != 0;
            self.ram[usize::from(REG_B)] = value & !cleared;
            if reformat {
                self.latch_time();
            }
        }
        if !was_running && self.is_running() {
            self.run_from_registers(if was_reset { AFTER_DIVIDER_RESET } else { self.fraction() });
        }
        if self.period() != old_period {
            self.skip_to_now();
        }
        self.drive_line();
    }
}

impl Device for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (port, byte) in (offset..).zip(data) {
            // The index register is write-only.
            *byte = if port == 1 { self.read_data() } else { 0xff };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (port, &byte) in (offset..).zip(data) {
            match port {
                // Bit 7 masks NMI on a PC; nothing here raises one.
                0 => self.index = byte & 0x7f,
                1 => self.write_data(byte),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
