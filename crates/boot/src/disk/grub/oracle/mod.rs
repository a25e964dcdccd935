//! What GNU GRUB 2.06 itself says and boots, script by script (`cargo xtask grub-oracle`).

mod fixture;
mod table;

use std::fs;

use super::super::initrd;
use super::super::region::Region;
use super::super::volumes::{Choice, Place, Volumes};
use super::menu::{Outcome, outcome};
use crate::testing::bzimage;
use table::{Case, parse};

const TABLE: &str = include_str!("table.txt");
/// The script's place.
const CONFIGURATION: &str = "/boot/grub/grub.cfg";

/// The lines of the table that an outcome stands for.
fn lines(volumes: &Volumes, outcome: &Outcome) -> Vec<String> {
    let said = outcome.transcript.said.lines().map(str::trim_end);
    let mut lines: Vec<String> =
        said.filter(|line| line.starts_with("@ ")).map(str::to_owned).collect();
    lines.push(match &outcome.result {
        Ok(choice) if !outcome.unasked => booted(volumes, choice),
        _ => "#PROMPT".to_owned(),
    });
    lines
}

/// What the kernel says of its command line and its initial RAM disk.
fn booted(volumes: &Volumes, choice: &Choice) -> String {
    let read = |place: &Place, limit| volumes.read(place, limit);
    let initrd = initrd::assemble(&choice.initrds, 1 << 20, read).unwrap();
    let hash =
        initrd.iter().fold(0_u32, |hash, byte| hash.rotate_left(5).wrapping_add((*byte).into()));
    // GRUB 2.06 leaves out the NUL after names in archives; later ones do not, nor do we.
    let in_archive = choice.initrds.iter().any(|part| part.name.is_some());
    if in_archive {
        return format!("#BOOT {}|", choice.cmdline);
    }
    let line = format!("#BOOT {}|{:08X}|{hash:08X}", choice.cmdline, initrd.len());
    // The kernel's line ends where its text has a line's end.
    line.trim_end().to_owned()
}

#[test]
fn scripts_do_what_they_do_in_grub() {
    let scratch = std::env::temp_dir().join(format!("cloister-grub-{}", std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    let image = fixture::image(&scratch, &bzimage(fixture::CODE));
    fs::remove_dir_all(&scratch).unwrap();
    let cases = parse(TABLE);

    let mut differences = String::new();
    for Case { name, script, outcome: expected } in &cases {
        let mut image = image.clone();
        fixture::put_script(&mut image, script);
        let volumes = Volumes::open(&Region::of(image));
        let place = Place { volume: 1, path: CONFIGURATION.into() };
        let outcome = outcome(&volumes, &place);
        let found = lines(&volumes, &outcome);
        let same = found.len() == expected.len()
            && found.iter().zip(expected).all(|(found, expected)| {
                found == expected || (found.ends_with('|') && expected.starts_with(found))
            });
        if !same {
            differences += &format!(
                "=== {name}\n{script}--- GRUB\n{}\n--- found\n{}\n({:?})\n",
                expected.join("\n"),
                found.join("\n"),
                outcome.result,
            );
        }
    }

    assert!(cases.len() >= 200, "{} scripts", cases.len());
    assert!(differences.is_empty(), "{differences}");
}
