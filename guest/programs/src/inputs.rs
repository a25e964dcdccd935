//! What the programs read: the same bytes everywhere.

use std::fs::{self, File};
use std::io::{BufWriter, Result, Write};

/// Where all files are: a file system in memory.
pub(crate) const FOLDER: &str = "/tmp/inputs";
/// Text of words, whose frequencies differ.
pub(crate) const TEXT: &str = "text";
/// A part of it, for programs that take each word apart.
pub(crate) const WORDS: &str = "words";
/// Lines that are not in order.
pub(crate) const LINES: &str = "lines";
/// Bytes without order.
pub(crate) const BLOB: &str = "blob";
/// A folder of many files.
pub(crate) const TREE: &str = "tree";

const TEXT_BYTES: usize = 6 << 20;
const WORDS_BYTES: usize = 1 << 20;
const LINE_COUNT: u32 = 150_000;
const BLOB_BYTES: usize = 32 << 20;
const FOLDERS: u32 = 40;
const FILES_PER_FOLDER: u32 = 75;

/// Programs in files.
const SCRIPTS: [(&str, &str); 7] = [
    ("words.awk", include_str!("../inputs/words.awk")),
    ("words.pl", include_str!("../inputs/words.pl")),
    ("solve.py", include_str!("../inputs/solve.py")),
    ("table.sql", include_str!("../inputs/table.sql")),
    ("compiled.c", include_str!("../inputs/compiled.c")),
    ("forks.sh", include_str!("../inputs/forks.sh")),
    ("loop.sh", include_str!("../inputs/loop.sh")),
];

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 32) % end
    }
}

/// Writes all of them.
///
/// # Errors
/// There is no room.
pub(crate) fn make() -> Result<()> {
    fs::create_dir_all(FOLDER)?;
    for (name, text) in SCRIPTS {
        fs::write(format!("{FOLDER}/{name}"), text)?;
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let text = text(&mut random);
    fs::write(format!("{FOLDER}/{WORDS}"), &text[..WORDS_BYTES])?;
    fs::write(format!("{FOLDER}/{TEXT}"), text)?;

    let mut lines = create(LINES)?;
    for _ in 0..LINE_COUNT {
        writeln!(lines, "{:016x} {}", random.next(), random.below(1000))?;
    }
    lines.flush()?;

    let mut blob = create(BLOB)?;
    for _ in 0..BLOB_BYTES / 8 {
        blob.write_all(&random.next().to_le_bytes())?;
    }
    blob.flush()?;

    for folder in 0..FOLDERS {
        let folder = format!("{FOLDER}/{TREE}/{folder:02}");
        fs::create_dir_all(&folder)?;
        for file in 0..FILES_PER_FOLDER {
            let contents = vec![file as u8; 100 + 40 * file as usize];
            fs::write(format!("{folder}/{file:02}"), contents)?;
        }
    }
    Ok(())
}

fn create(name: &str) -> Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(1 << 20, File::create(format!("{FOLDER}/{name}"))?))
}

/// Words of 2 to 9 letters out of 4,000, a few of them frequent, in lines of some 60 bytes.
fn text(random: &mut Random) -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..4000)
        .map(|_| (0..2 + random.below(8)).map(|_| b'a' + random.below(26) as u8).collect())
        .collect();
    let mut text = Vec::with_capacity(TEXT_BYTES + 80);
    let mut line = 0;
    while text.len() < TEXT_BYTES {
        // The product of two prefers small ones.
        let word = &words[(random.below(4000) * random.below(4000) / 4000) as usize];
        text.extend_from_slice(word);
        line += word.len() + 1;
        text.push(if line < 60 { b' ' } else { b'\n' });
        line %= 60;
    }
    text
}
