//! The entries of a FAT directory.

const READ_ONLY_HIDDEN_SYSTEM_LABEL: u8 = 0x0f;
const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
/// First byte of a name: the last entry was before, or this one is deleted.
const END: u8 = 0;
const DELETED: u8 = 0xe5;
/// Stands for a first character of E5H.
const KANJI: u8 = 0x05;
/// NT's flags for names that are all in lower case: the base, the extension.
const LOWER_BASE: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;
/// First long entry, which holds the end of the name.
const LONG_LAST: u8 = 0x40;
/// Entries that a long name may take, 13 characters each.
const MAX_LONG: u8 = 20;

/// One file, directory or label.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The long name if there is one.
    pub(super) name: String,
    /// The name of eight and three characters.
    short: String,
    pub(super) directory: bool,
    pub(super) volume_label: bool,
    pub(super) cluster: u32,
    pub(super) size: u32,
    /// In seconds since 1970, of a clock without a time zone.
    pub(super) modified: Option<i64>,
}

impl Entry {
    /// Whether a name means it: case does not count.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let lower = name.to_lowercase();
        self.name.to_lowercase() == lower || self.short.to_lowercase() == lower
    }
}

/// The part of a long name that has been read, from its end.
struct LongName {
    /// The number of the entry that has to come next.
    expected: u8,
    checksum: u8,
    units: Vec<u16>,
}

/// The entries in the bytes of a directory.
pub(super) fn entries(bytes: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut long: Option<LongName> = None;
    for entry in bytes.as_chunks::<32>().0 {
        if entry[0] == END {
            break;
        }
        if entry[0] == DELETED {
            long = None;
        } else if entry[11] & 0x3f == READ_ONLY_HIDDEN_SYSTEM_LABEL {
            long = continued(long.take(), entry);
        } else {
            found.push(short_entry(entry, long.take()));
        }
    }
    found
}

/// The name that a further long entry makes of the ones before it.
fn continued(before: Option<LongName>, entry: &[u8; 32]) -> Option<LongName> {
    let number = entry[0] & !LONG_LAST;
    let mut name = if entry[0] & LONG_LAST != 0 {
        LongName { expected: number, checksum: entry[13], units: Vec::new() }
    } else {
        before?
    };
    let fits =
        (1..=MAX_LONG).contains(&number) && number == name.expected && entry[13] == name.checksum;
    if !fits {
        return None;
    }
    let characters = [1..11, 14..26, 28..32].map(|range| &entry[range]).concat();
    let units = characters.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair));
    name.units = units.chain(name.units).collect();
    name.expected = number - 1;
    Some(name)
}

fn short_entry(entry: &[u8; 32], long: Option<LongName>) -> Entry {
    let sum = entry[..11].iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let volume_label = entry[11] & LABEL != 0;
    let short = if volume_label {
        text(&entry[..11], false)
    } else {
        let base = text(&entry[..8], entry[12] & LOWER_BASE != 0);
        match text(&entry[8..11], entry[12] & LOWER_EXTENSION != 0) {
            extension if extension.is_empty() => base,
            extension => format!("{base}.{extension}"),
        }
    };
    let long = long.filter(|name| name.expected == 0 && name.checksum == sum).map(|name| {
        let units = name.units.split(|unit| *unit == 0).next().unwrap_or_default();
        String::from_utf16_lossy(units)
    });
    let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
    Entry {
        name: long.unwrap_or_else(|| short.clone()),
        short,
        directory: entry[11] & DIRECTORY != 0,
        volume_label,
        cluster: half(20) << 16 | half(26),
        size: half(28) | half(30) << 16,
        modified: seconds(half(24), half(22)),
    }
}

/// A date and a time in seconds since 1970; `None` if there is no such day.
fn seconds(date: u32, time: u32) -> Option<i64> {
    let (day, month, year) = (date & 31, date >> 5 & 15, date >> 9);
    let (second, minute, hour) = (time & 31, time >> 5 & 63, time >> 11);
    let sane = day > 0 && (1..=12).contains(&month) && second < 30 && minute < 60 && hour < 24;
    // Years begin in March, so that the leap day is the last one; 1980 is in the sixth cycle of 400.
    let months = (month + 9) % 12;
    let years = i64::from(1980 + year) - i64::from(month < 3);
    let days = 365 * years + years / 4 - years / 100
        + years / 400
        + i64::from((months * 153 + 2) / 5 + day)
        - 719_469;
    sane.then(|| days * 86_400 + i64::from(hour * 3600 + minute * 60 + second * 2))
}

/// A part of a short name. What is not ASCII depends on a code page that nothing tells.
fn text(bytes: &[u8], lower: bool) -> String {
    let text: String = bytes
        .iter()
        .enumerate()
        .map(|(index, byte)| match (index, *byte) {
            (0, KANJI) => '?',
            (_, byte) if byte.is_ascii() => byte.into(),
            _ => '?',
        })
        .collect();
    let text = text.trim_end();
    if lower { text.to_ascii_lowercase() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn dates_are_seconds() {
        for (year, month, day, time, expected) in [
            (1980, 1, 1, 0, Some(315_532_800)),
            (2000, 2, 29, 0, Some(951_782_400)),
            (2024, 3, 1, 12 << 11 | 30 << 5 | 5, Some(1_709_296_210)),
            (2024, 0, 1, 0, None),
            (2024, 1, 0, 0, None),
        ] {
            let date = (year - 1980) << 9 | month << 5 | day;
            assert_eq!(seconds(date, time), expected, "{year}-{month}-{day}");
        }
    }
}
