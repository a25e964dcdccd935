//! The RTC as its driver sees it, with a clock that the test moves.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::chaos::Chaos;

/// 2026-09-21 14:13:20, a Monday.
const START: u64 = 1_790_000_000;
const MS: u64 = 1_000_000;

#[derive(Default)]
struct Wire {
    asserted: AtomicBool,
    edges: AtomicUsize,
}

impl IrqLine for Wire {
    fn set(&self, asserted: bool) {
        if asserted && !self.asserted.swap(asserted, Ordering::Relaxed) {
            self.edges.fetch_add(1, Ordering::Relaxed);
        }
        self.asserted.store(asserted, Ordering::Relaxed);
    }
}

struct Bench {
    rtc: Rtc,
    nanos: Arc<AtomicU64>,
    wire: Arc<Wire>,
}

impl Bench {
    fn new() -> Self {
        let nanos = Arc::new(AtomicU64::new(START * 1000 * MS));
        let wire = Arc::new(Wire::default());
        let clock = nanos.clone();
        let rtc = Rtc::with_clock(wire.clone(), move || {
            Duration::from_nanos(clock.load(Ordering::Relaxed))
        });
        Self { rtc, nanos, wire }
    }

    fn pass(&self, millis: u64) {
        self.nanos.fetch_add(millis * MS, Ordering::Relaxed);
    }

    fn get(&mut self, index: u8) -> u8 {
        let mut data = [0];
        self.rtc.write(0, &[index | 0x80]);
        self.rtc.read(1, &mut data);
        data[0]
    }

    fn put(&mut self, index: u8, value: u8) {
        self.rtc.write(0, &[index, value]);
    }

    /// Century, year, month, day, weekday, hours, minutes, seconds as the registers have them.
    fn time(&mut self) -> [u8; 8] {
        [RTC_CENTURY, YEAR, MONTH, DAY_OF_MONTH, WEEKDAY, HOURS, MINUTES, SECONDS]
            .map(|index| self.get(index))
    }

    /// Sets the clock as Linux's mc146818_set_time does: SET, divider reset, registers, and back.
    fn set_time(&mut self, registers: &[(u8, u8)]) {
        let (b, a) = (self.get(REG_B), self.get(REG_A));
        self.put(REG_B, b | B_SET);
        self.put(REG_A, a | A_DIVIDER);
        for &(index, value) in registers {
            self.put(index, value);
        }
        self.put(REG_B, b);
        self.put(REG_A, a);
    }
}

#[test]
fn time_is_the_hosts_in_bcd_and_24_hours() {
    let mut bench = Bench::new();

    assert_eq!(bench.time(), [0x20, 0x26, 0x09, 0x21, 2, 0x14, 0x13, 0x20]);
    bench.pass(36_000_000);
    assert_eq!(bench.time(), [0x20, 0x26, 0x09, 0x22, 3, 0x00, 0x13, 0x20]);
    assert_eq!((bench.get(REG_A), bench.get(REG_B), bench.get(REG_D)), (0x26, 0x02, 0x80));
}

#[test]
fn register_b_chooses_binary_and_the_dial_of_twelve() {
    let mut bench = Bench::new();

    bench.put(REG_B, B_BINARY);

    assert_eq!(bench.time(), [20, 26, 9, 21, 2, 0x82, 13, 20]);
    bench.put(REG_B, 0);
    assert_eq!(bench.time(), [0x20, 0x26, 0x09, 0x21, 2, 0x82, 0x13, 0x20]);
}

#[test]
fn update_in_progress_shows_244_microseconds_before_the_second() {
    let mut bench = Bench::new();

    bench.pass(999);
    assert_eq!(bench.get(REG_A) & A_UIP, 0);
    bench.nanos.fetch_add(756_000, Ordering::Relaxed);
    assert_eq!(bench.get(REG_A) & A_UIP, A_UIP);
    bench.nanos.fetch_add(244_000, Ordering::Relaxed);
    assert_eq!(bench.get(REG_A) & A_UIP, 0);
    assert_eq!(bench.get(SECONDS), 0x21);
}

#[test]
fn set_time_runs_on_half_a_second_after_the_divider_leaves_reset() {
    let mut bench = Bench::new();
    bench.pass(123);

    bench.set_time(&[
        (YEAR, 0x99),
        (RTC_CENTURY, 0x19),
        (MONTH, 0x12),
        (DAY_OF_MONTH, 0x31),
        (HOURS, 0x23),
        (MINUTES, 0x59),
        (SECONDS, 0x59),
    ]);

    assert_eq!(bench.time(), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59]);
    bench.pass(499);
    assert_eq!(bench.get(SECONDS), 0x59);
    bench.pass(1);
    assert_eq!(bench.time(), [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]);
}

#[test]
fn set_bit_holds_the_registers_and_clears_update_interrupts() {
    let mut bench = Bench::new();
    bench.put(REG_B, B_24_HOURS | B_UIE);

    bench.put(REG_B, B_24_HOURS | B_UIE | B_SET);
    assert_eq!(bench.get(REG_B), B_24_HOURS | B_SET);
    bench.pass(5000);
    assert_eq!(bench.get(SECONDS), 0x20);
    bench.put(REG_B, B_24_HOURS);
    bench.pass(1000);

    assert_eq!(bench.get(SECONDS), 0x21);
}

#[test]
fn write_without_set_changes_that_field_alone() {
    let mut bench = Bench::new();

    bench.put(HOURS, 0x05);

    assert_eq!(bench.time(), [0x20, 0x26, 0x09, 0x21, 2, 0x05, 0x13, 0x20]);
}

#[test]
fn update_interrupt_comes_each_second_until_register_c_is_read() {
    let mut bench = Bench::new();
    bench.pass(300);
    bench.put(REG_B, B_24_HOURS | B_UIE);
    assert_eq!(bench.rtc.next_interrupt(), Some(Duration::from_millis(700)));

    bench.pass(700);
    bench.rtc.poll();
    assert!(bench.wire.asserted.load(Ordering::Relaxed));
    assert_eq!(bench.rtc.next_interrupt(), None);
    assert_eq!(bench.get(REG_C) & !C_PF, C_IRQF | C_UF);

    assert!(!bench.wire.asserted.load(Ordering::Relaxed));
    assert_eq!(bench.get(REG_C), 0);
    assert_eq!(bench.rtc.next_interrupt(), Some(Duration::from_secs(1)));
}

#[test]
fn flags_come_up_without_interrupts_too() {
    let mut bench = Bench::new();
    bench.get(REG_C);

    bench.pass(1000);

    assert_eq!(bench.get(REG_C), C_UF | C_PF);
    assert_eq!(bench.wire.edges.load(Ordering::Relaxed), 0);
}

#[test]
fn alarm_matches_its_time_and_any_bytes_match_everything() {
    for (alarm, after) in [
        ([0x14, 0x13, 0x25], 5),
        ([0x14, 0x13, 0x20], 86_400),
        ([0x14, 0x13, 0x19], 86_399),
        ([0xff, 0xff, 0x00], 40),
        ([0xff, 0x00, 0x00], 46 * 60 + 40),
        ([0xff, 0xff, 0xff], 1),
    ] {
        let mut bench = Bench::new();
        bench.put(HOURS_ALARM, alarm[0]);
        bench.put(MINUTES_ALARM, alarm[1]);
        bench.put(SECONDS_ALARM, alarm[2]);
        bench.put(REG_B, B_24_HOURS | B_AIE);
        assert_eq!(bench.rtc.next_interrupt(), Some(Duration::from_secs(after)), "{alarm:x?}");

        bench.pass((after - 1) * 1000);
        assert_eq!(bench.get(REG_C) & C_AF, 0, "{alarm:x?}");
        bench.pass(1000);
        assert_eq!(bench.get(REG_C) & (C_AF | C_IRQF), C_AF | C_IRQF, "{alarm:x?}");
    }
}

#[test]
fn alarm_that_no_time_matches_never_comes() {
    let mut bench = Bench::new();
    bench.put(HOURS_ALARM, 0x77);
    bench.put(REG_B, B_24_HOURS | B_AIE);

    bench.pass(86_400_000 * 3);

    assert_eq!(bench.rtc.next_interrupt(), None);
    assert_eq!(bench.get(REG_C) & C_AF, 0);
}

#[test]
fn periodic_interrupt_has_the_rate_of_register_a() {
    for (rate, nanos) in [
        (1_u8, 3_906_250),
        (2, 7_812_500),
        (3, 122_071),
        (6, 976_563),
        (13, 125_000_000),
        (15, 500_000_000),
    ] {
        let mut bench = Bench::new();
        bench.put(REG_A, 0x20 | rate);
        bench.put(REG_B, B_24_HOURS | B_PIE);
        assert_eq!(bench.rtc.next_interrupt(), Some(Duration::from_nanos(nanos)), "rate {rate}");

        bench.nanos.fetch_add(nanos - 1, Ordering::Relaxed);
        bench.rtc.poll();
        let early = bench.wire.edges.load(Ordering::Relaxed);
        bench.nanos.fetch_add(1, Ordering::Relaxed);
        bench.rtc.poll();

        assert_eq!((early, bench.wire.edges.load(Ordering::Relaxed)), (0, 1), "rate {rate}");
        assert_eq!(bench.get(REG_C), C_IRQF | C_PF, "rate {rate}");
    }
}

#[test]
fn rate_zero_and_divider_reset_stop_the_periodic_interrupt() {
    for a in [0x20, 0x66, 0x76] {
        let mut bench = Bench::new();
        bench.put(REG_A, a);
        bench.put(REG_B, B_24_HOURS | B_PIE);

        bench.pass(10_000);

        assert_eq!(bench.rtc.next_interrupt(), None);
        assert_eq!(bench.get(REG_C) & C_PF, 0);
    }
}

#[test]
fn cmos_memory_keeps_bytes_and_the_clock_keeps_its_own() {
    let mut bench = Bench::new();

    bench.put(0x0f, 0x0a);
    bench.put(0x7f, 0x55);
    bench.put(REG_D, 0);
    bench.put(REG_C, 0xff);
    bench.rtc.set_cmos(0x34, 0x12);
    bench.rtc.set_cmos(REG_B, 0xff);
    bench.rtc.set_cmos(0xff, 0xff);

    assert_eq!((bench.get(0x0f), bench.get(0x7f), bench.get(0x34)), (0x0a, 0x55, 0x12));
    assert_eq!((bench.get(REG_D), bench.get(REG_C), bench.get(REG_B)), (0x80, 0, 0x02));
}

#[test]
fn timer_thread_raises_what_the_guest_enables() {
    struct Ring(Mutex<Sender<()>>);
    impl IrqLine for Ring {
        fn set(&self, asserted: bool) {
            if asserted {
                // The test may be gone.
                let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(());
            }
        }
    }
    let (sender, rung) = channel();
    let rtc = Arc::new(Mutex::new(Rtc::new(Arc::new(Ring(Mutex::new(sender))))));
    let timer = RtcTimer::start(rtc.clone(), || {}).unwrap();

    rtc.lock().unwrap().write(0, &[REG_B, B_24_HOURS | B_PIE]);
    let first = rung.recv_timeout(Duration::from_secs(20));
    let mut flags = [0];
    rtc.lock().unwrap().write(0, &[REG_C]);
    rtc.lock().unwrap().read(1, &mut flags);
    let second = rung.recv_timeout(Duration::from_secs(20));
    drop(timer);

    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(flags[0] & (C_IRQF | C_PF), C_IRQF | C_PF);
}

#[test]
fn random_accesses_at_random_times_never_panic() {
    let mut bench = Bench::new();
    let mut chaos = Chaos::new(0x146818);

    for _ in 0..100_000 {
        if chaos.below(8) == 0 {
            // Anything from 1970 to 2554.
            bench.nanos.store(chaos.next(), Ordering::Relaxed);
        }
        chaos.access(&mut bench.rtc, LEN.into());
        let (index, value) = (chaos.below(16) as u8, chaos.next() as u8);
        bench.put(index, value);
        bench.rtc.next_interrupt();
    }
}
