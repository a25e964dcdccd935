//! Two disks of one size to which the same things are done, so that whoever has them can compare them.

use std::fs::{File, OpenOptions};
use std::io::{Error, Read, Result, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use crate::system;

const SECTOR: u64 = 512;
/// What a disk can give up, whatever its image: the largest cluster of the tests.
const CLUSTER: u64 = 64 << 10;
/// `linux/fs.h`.
const BLKFLSBUF: libc::Ioctl = 0x1261;
const BLKDISCARD: libc::Ioctl = 0x1277;
const BLKZEROOUT: libc::Ioctl = 0x127f;

/// Decisions from a seed (xorshift64).
struct Decisions(u64);

impl Decisions {
    fn below(&mut self, end: u64) -> u64 {
        for (shift, left) in [(13, true), (7, false), (17, true)] {
            self.0 ^= if left { self.0 << shift } else { self.0 >> shift };
        }
        self.0 % end
    }
}

/// Writes, discards and zeroes parts of both disks, as a seed says, and compares them.
pub(crate) fn change(arguments: &[&str]) -> std::result::Result<(), String> {
    let [one, other, seed, rounds] = arguments else { return Err("no two disks".to_owned()) };
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
    let (seed, rounds) = (number(seed)?, number(rounds)?);
    let open = |path: &str| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| format!("{path}: {error}"))
    };
    let mut disks = [open(one)?, open(other)?];
    work(&mut disks, seed, rounds).map_err(|error| format!("a disk fails: {error}"))?;
    println!("twin: {rounds} rounds, the disks are equal");
    Ok(())
}

fn work(disks: &mut [File; 2], seed: u64, rounds: u64) -> Result<()> {
    let size = disks[0].seek(SeekFrom::End(0))?;
    if disks[1].seek(SeekFrom::End(0))? != size {
        return Err(Error::other("their sizes differ"));
    }
    let mut decisions = Decisions(seed | 1);
    for round in 0..rounds {
        let kind = decisions.below(8);
        let unit = if kind == 0 { CLUSTER } else { SECTOR };
        let start = decisions.below(size / unit) * unit;
        let len = ((1 + decisions.below(256)) * unit).min(size - start);
        for disk in &*disks {
            match kind {
                0 => system::block_ioctl(disk, BLKDISCARD, [start, len])?,
                1 => system::block_ioctl(disk, BLKZEROOUT, [start, len])?,
                2 => disk.sync_all()?,
                _ => {
                    let bytes: Vec<u8> = (0..len).map(|at| (at ^ round) as u8 | 1).collect();
                    disk.write_all_at(&bytes, start)?;
                }
            }
        }
    }
    let [one, other] = disks;
    for disk in [&mut *one, &mut *other] {
        disk.sync_all()?;
        // What is compared comes from the disks and not from the page cache.
        system::block_ioctl(disk, BLKFLSBUF, [0; 2])?;
        disk.seek(SeekFrom::Start(0))?;
    }
    let (mut mine, mut its) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    for at in (0..size).step_by(mine.len()) {
        let len = mine.len().min((size - at) as usize);
        one.read_exact(&mut mine[..len])?;
        other.read_exact(&mut its[..len])?;
        if mine[..len] != its[..len] {
            return Err(Error::other(format!("they differ within {len} bytes from {at} on")));
        }
    }
    Ok(())
}
