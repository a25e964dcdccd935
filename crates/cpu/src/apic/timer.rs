//! The APIC timer: one-shot, periodic and TSC-deadline (SDM Vol. 3A, 10.5.4).

use std::time::Duration;

use super::local::lvt;
use crate::cpu::Cpu;

/// Frequency of the APIC timer before its divider: the core crystal clock that CPUID leaf 15H has
/// to report in ECX, which makes TSC frequency = crystal * EBX / EAX of that leaf.
const APIC_TIMER_HZ: u64 = 25_000_000;
const NANOS: u128 = 1_000_000_000;

/// Timer modes in the LVT entry, bits 18:17.
const MODE_PERIODIC: u32 = 1;
const MODE_TSC_DEADLINE: u32 = 2;

/// The timer.
#[derive(Clone, Debug, Default)]
pub(super) struct Timer {
    pub(super) initial_count: u32,
    /// Divide configuration register.
    pub(super) divide: u32,
    /// IA32_TSC_DEADLINE, 0 when disarmed.
    deadline: u64,
    /// When it fires next, on the clock of [`Shared::nanos`](crate::state::Shared::nanos).
    due: Option<u64>,
}

impl Timer {
    /// The divisor (SDM Vol. 3A, figure 10-10).
    fn divisor(&self) -> u64 {
        let code = self.divide & 3 | self.divide >> 1 & 4;
        1 << ((code + 1) & 7)
    }

    /// Nanoseconds that `count` counts take.
    fn span(&self, count: u32) -> u64 {
        let clocks = u128::from(count) * u128::from(self.divisor());
        (clocks * NANOS / u128::from(APIC_TIMER_HZ)) as u64
    }
}

impl Cpu {
    fn timer_mode(&self) -> u32 {
        self.apic.lvt[lvt::TIMER] >> 17 & 3
    }

    /// Writes the LVT timer register. Leaving or entering TSC-deadline mode disarms the timer.
    pub(super) fn set_lvt_timer(&mut self, value: u32) {
        let old = self.timer_mode();
        self.apic.lvt[lvt::TIMER] = value;
        if (old == MODE_TSC_DEADLINE) != (self.timer_mode() == MODE_TSC_DEADLINE) {
            self.apic.timer.due = None;
            self.apic.timer.deadline = 0;
            self.apic.timer.initial_count = 0;
        }
    }

    /// Writes the initial-count register, which starts the timer (0 stops it).
    pub(super) fn set_initial_count(&mut self, count: u32) {
        if self.timer_mode() == MODE_TSC_DEADLINE {
            return;
        }
        self.apic.timer.initial_count = count;
        let span = self.apic.timer.span(count);
        self.apic.timer.due =
            (count != 0).then(|| self.package.nanos().saturating_add(span.max(1)));
    }

    /// Writes the divide configuration register. A count under way goes on from where it is.
    pub(super) fn set_divide(&mut self, value: u32) {
        let left = self.current_count();
        self.apic.timer.divide = value & 0xb;
        if self.apic.timer.due.is_some() && self.timer_mode() != MODE_TSC_DEADLINE {
            let span = self.apic.timer.span(left);
            self.apic.timer.due = Some(self.package.nanos().saturating_add(span));
        }
    }

    /// Current-count register.
    pub(super) fn current_count(&self) -> u32 {
        let timer = &self.apic.timer;
        let (Some(due), false) = (timer.due, self.timer_mode() == MODE_TSC_DEADLINE) else {
            return 0;
        };
        let left = u128::from(due.saturating_sub(self.package.nanos()));
        let count = left * u128::from(APIC_TIMER_HZ) / NANOS / u128::from(timer.divisor());
        (count as u32).min(timer.initial_count)
    }

    /// IA32_TSC_DEADLINE: 0 unless armed in TSC-deadline mode.
    #[must_use]
    pub(crate) fn tsc_deadline(&self) -> u64 {
        self.apic.timer.deadline
    }

    /// WRMSR of IA32_TSC_DEADLINE: arms the timer, or disarms it with 0. Ignored in other modes.
    pub(crate) fn set_tsc_deadline(&mut self, deadline: u64) {
        if self.timer_mode() != MODE_TSC_DEADLINE {
            return;
        }
        self.apic.timer.deadline = deadline;
        self.apic.timer.due = (deadline != 0).then(|| {
            // Both counters advance together: the distance is what counts.
            let distance = deadline.saturating_sub(self.tsc());
            let wait = u128::from(distance) * NANOS / u128::from(self.package.tsc_hz.max(1)) + 1;
            let wait = if distance == 0 { 0 } else { wait };
            self.package.nanos().saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
        });
        // An expired deadline fires before the next instruction.
        poll_timer(self);
    }

    /// Sets what is added to the machine's TSC, and keeps an armed deadline where it is on the
    /// counter.
    pub(crate) fn set_tsc_offset(&mut self, offset: u64) {
        self.arch.msrs.tsc_offset = offset;
        if self.apic.timer.deadline != 0 {
            self.set_tsc_deadline(self.apic.timer.deadline);
        }
    }
}

/// Fires the timer if it is due.
pub(crate) fn poll_timer(cpu: &mut Cpu) {
    let Some(due) = cpu.apic.timer.due else { return };
    let now = cpu.package.nanos();
    if now < due {
        return;
    }
    let timer = &mut cpu.apic.timer;
    timer.deadline = 0;
    timer.due = None;
    if cpu.timer_mode() == MODE_PERIODIC {
        let timer = &mut cpu.apic.timer;
        let span = timer.span(timer.initial_count).max(1);
        // Periods that were missed count as one interrupt, as IRR would merge them.
        let missed = (now - due) / span;
        timer.due = due.checked_add(span.saturating_mul(missed + 1));
    }
    let entry = cpu.apic.lvt[lvt::TIMER];
    if entry & lvt::MASKED == 0 {
        cpu.apic_accept(entry as u8, false);
    }
}

/// Time until the timer fires; `None` if it is not armed or masked.
#[must_use]
pub(crate) fn time_to_timer(cpu: &Cpu) -> Option<Duration> {
    if cpu.apic.lvt[lvt::TIMER] & lvt::MASKED != 0 {
        return None;
    }
    let due = cpu.apic.timer.due?;
    Some(Duration::from_nanos(due.saturating_sub(cpu.package.nanos())))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::testing::{Guest, Start};

    #[test]
    fn time_that_is_taken_back_passed_on_no_processor() {
        const TAKEN: Duration = Duration::from_millis(50);
        // Its TSC counts nanoseconds.
        let mut guest = Guest::with_cpus(Start::Kernel64, 2);
        let other = guest.processor(1);
        let wall = Instant::now();
        let cpu = &mut guest.vcpu.cpu;
        cpu.set_lvt_timer(MODE_TSC_DEADLINE << 17 | 0x40);
        let before = cpu.tsc();
        cpu.set_tsc_deadline(before + NANOS as u64);

        std::thread::sleep(TAKEN);
        cpu.package.skip(TAKEN);
        let passed = [cpu.tsc(), other.cpu.tsc()].map(|tsc| Duration::from_nanos(tsc - before));
        let left = time_to_timer(cpu);

        assert!(passed[0] <= passed[1] && passed[1] + TAKEN <= wall.elapsed(), "{passed:?}");
        assert!(left.is_some_and(|left| left + wall.elapsed() >= Duration::from_secs(1) + TAKEN));
    }

    #[test]
    fn divide_configuration_gives_the_divisors_of_the_manual() {
        let divisors = [0b0000, 0b0001, 0b0010, 0b0011, 0b1000, 0b1001, 0b1010, 0b1011]
            .map(|divide| Timer { divide, ..Timer::default() }.divisor());

        assert_eq!(divisors, [2, 4, 8, 16, 32, 64, 128, 1]);
    }
}
