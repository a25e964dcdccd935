//! Calendar arithmetic and the register format of the RTC's time.

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// A UTC time of day and date in the Gregorian calendar, as the RTC's registers hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// The year, as it is counted.
    pub year: i64,
    /// 1 to 12; a guest may have written anything.
    pub month: i64,
    /// 1 to 31; a guest may have written anything.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59.
    pub second: i64,
}

/// Days from 1970-01-01 to the first of March of `year`. Years that begin in March put the leap
/// day at their end.
fn days_to_march(year: i64) -> i64 {
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) - 719_468
}

/// Days from the first of March to the first day of the `month`-th month after it.
fn days_to_month(month: i64) -> i64 {
    (153 * month + 2) / 5
}

impl Civil {
    /// The civil time `seconds` after 1970-01-01 00:00:00.
    #[must_use]
    pub fn from_unix(seconds: i64) -> Self {
        let (days, second_of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // An estimate from the mean length of a year is at most one year off.
        let mut year = (days + 719_468).div_euclid(365) - (days + 719_468).div_euclid(1460 * 365);
        while days_to_march(year) > days {
            year -= 1;
        }
        while days_to_march(year + 1) <= days {
            year += 1;
        }
        let day_of_year = days - days_to_march(year);
        let month = (5 * day_of_year + 2) / 153;
        Self {
            year: if month < 10 { year } else { year + 1 },
            month: if month < 10 { month + 3 } else { month - 9 },
            day: day_of_year - days_to_month(month) + 1,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }

    /// Seconds after 1970-01-01 00:00:00. Fields out of their range carry over, as month 0 is the
    /// December before.
    pub(super) fn to_unix(self) -> i64 {
        let months = self.year * 12 + self.month - 1 - 2;
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
        let days = days_to_march(year) + days_to_month(month) + self.day - 1;
        days * DAY + self.hour * 3600 + self.minute * 60 + self.second
    }

    /// Day of the week, 1 for Sunday.
    pub(super) fn weekday(self) -> u8 {
        // 1970-01-01 was a Thursday.
        let weekday = (self.to_unix().div_euclid(DAY) + 4).rem_euclid(7) + 1;
        weekday.to_le_bytes()[0]
    }
}

/// How register B says that time is written (MC146818, DM and 24/12 bits).
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    pub(super) binary: bool,
    pub(super) hours_24: bool,
}

const PM: u8 = 0x80;

impl Format {
    /// A register's byte for `value`, which is 0 to 99.
    pub(super) fn encode(self, value: i64) -> u8 {
        let [value, ..] = value.to_le_bytes();
        if self.binary { value } else { ((value / 10) << 4) | (value % 10) }
    }

    /// What a register's byte says. Digits above 9 count as they are: the guest wrote them.
    pub(super) fn decode(self, byte: u8) -> i64 {
        if self.binary { byte.into() } else { i64::from(byte >> 4) * 10 + i64::from(byte & 0xf) }
    }

    /// The hours register for 0 to 23.
    pub(super) fn encode_hour(self, hour: i64) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let on_dial = if hour % 12 == 0 { 12 } else { hour % 12 };
        self.encode(on_dial) | if hour >= 12 { PM } else { 0 }
    }

    /// The hour that the hours register says.
    pub(super) fn decode_hour(self, byte: u8) -> i64 {
        if self.hours_24 {
            return self.decode(byte);
        }
        self.decode(byte & !PM) % 12 + if byte & PM != 0 { 12 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (Unix time, date, weekday with Sunday 1), as `date -u -d @N` prints them.
    const KNOWN: [(i64, [i64; 6], u8); 7] = [
        (0, [1970, 1, 1, 0, 0, 0], 5),
        (951_782_399, [2000, 2, 28, 23, 59, 59], 2),
        (951_782_400, [2000, 2, 29, 0, 0, 0], 3),
        (1_709_251_199, [2024, 2, 29, 23, 59, 59], 5),
        (1_790_000_000, [2026, 9, 21, 14, 13, 20], 2),
        (4_107_542_400, [2100, 3, 1, 0, 0, 0], 2),
        (253_402_300_799, [9999, 12, 31, 23, 59, 59], 6),
    ];

    #[test]
    fn known_times_convert_both_ways() {
        for (unix, [year, month, day, hour, minute, second], weekday) in KNOWN {
            let civil = Civil { year, month, day, hour, minute, second };
            assert_eq!(Civil::from_unix(unix), civil);
            assert_eq!(civil.to_unix(), unix);
            assert_eq!(civil.weekday(), weekday, "{civil:?}");
        }
    }

    #[test]
    fn every_day_of_twenty_thousand_years_converts_back() {
        for day in -2_000_000..5_500_000 {
            let unix = day * DAY;
            assert_eq!(Civil::from_unix(unix).to_unix(), unix);
        }
    }

    #[test]
    fn hours_on_a_dial_of_twelve_are_those_of_the_data_sheet() {
        let dial = Format { binary: false, hours_24: false };

        for (hour, byte) in [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)] {
            assert_eq!(dial.encode_hour(hour), byte);
            assert_eq!(dial.decode_hour(byte), hour);
        }
    }
}
