//! Disks in qcow2 images, as QEMU judges them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::Setup;
use super::setup::expect;
use crate::machine::Boot;
use crate::qemu_img::QemuImg;

/// Bytes of the disks: whole clusters, which the twins of the guest discard.
pub(super) const SIZE: u64 = 24 << 20;
/// What the guest does to each.
pub(super) const ROUNDS: u32 = 300;

/// Contents that differ from sector to sector, and have holes.
pub(super) fn contents() -> Vec<u8> {
    let word = |at: u64| (at >> 20 & 1 == 0).then(|| (at as u32).wrapping_mul(0x9e37_79b9));
    (0..SIZE).step_by(4).flat_map(|at| word(at).unwrap_or(0).to_le_bytes()).collect()
}

/// A raw disk of those contents, anew.
pub(super) fn raw(setup: &Setup, name: &str) -> Result<PathBuf> {
    setup.file(name, &contents()).map(PathBuf::from)
}

/// A boot that does the same things to two disks.
pub(super) fn twins(setup: &Setup, disk: &str, raw: &Path, seed: u32) -> Boot {
    setup
        .tasks(&format!("modules,twin:/dev/vda:/dev/vdb:{seed}:{ROUNDS}"))
        .option("--disk", disk)
        .option("--disk", &format!("{},format=raw", raw.display()))
}

/// Boots twice, and compares the images after each.
pub(super) fn change_twice(
    setup: &Setup,
    qemu: &QemuImg,
    disk: &str,
    (format, image): (&str, &Path),
    raw: &Path,
) -> Result<()> {
    for seed in [1, 2] {
        let transcript = setup.boot_to_power_off(&twins(setup, disk, raw, seed))?;

        expect(&transcript, &format!("twin: {ROUNDS} rounds, the disks are equal"))?;
        qemu.check(format, image)?;
        qemu.compare(format, image, raw)?;
    }
    Ok(())
}

pub(super) fn written(setup: &Setup) -> Result<()> {
    let qemu = QemuImg::get()?;
    for (name, options) in
        [("small.qcow2", "cluster_size=4k,refcount_bits=1"), ("usual.qcow2", "cluster_size=64k")]
    {
        let (raw, image) = (raw(setup, "twin.raw")?, setup.path(name));
        let [from, to] = [&raw, &image].map(|path| path.display().to_string());
        // Half of it compressed, as images come that are fetched.
        let compressed: &[&str] = if name == "usual.qcow2" { &["-c"] } else { &[] };
        let convert = ["convert", "-f", "raw", "-O", "qcow2", "-o", options];
        qemu.run(&[&convert[..], compressed, &[&from, &to]].concat())?;

        change_twice(setup, &qemu, &to, ("qcow2", &image), &raw)?;
    }
    Ok(())
}

/// Version 2 of the format has no zeros of its own, so that its discards do nothing.
pub(super) fn old(setup: &Setup) -> Result<()> {
    let qemu = QemuImg::get()?;
    let (raw, image) = (raw(setup, "old.raw")?, setup.path("old.qcow2"));
    let [from, to] = [&raw, &image].map(|path| path.display().to_string());
    qemu.run(&["convert", "-f", "raw", "-O", "qcow2", "-o", "compat=0.10", &from, &to])?;

    for disk in [&to, &from] {
        let boot = setup.tasks("modules,disk:/dev/vda:write").option("--disk", disk);
        expect(&setup.boot_to_power_off(&boot)?, "disk: /dev/vda written")?;
    }

    qemu.check("qcow2", &image)?;
    qemu.compare("qcow2", &image, &raw)
}

pub(super) fn backed(setup: &Setup) -> Result<()> {
    let qemu = QemuImg::get()?;
    let (raw, base, top) =
        (raw(setup, "twin.raw")?, raw(setup, "base.raw")?, setup.path("top.qcow2"));
    let middle = setup.path("middle.qcow2");
    qemu.create(&middle, &SIZE.to_string(), "cluster_size=16k", Some(&base))?;
    let [shown, on] = [&top, &middle].map(|path| path.display().to_string());
    qemu.run(&["create", "-q", "-f", "qcow2", "-b", &on, "-F", "qcow2", &shown])?;
    let (before, below) = (fs::read(&base)?, fs::read(&middle)?);
    let disk = format!("{shown},backing={on},backing={}", base.display());

    change_twice(setup, &qemu, &disk, ("qcow2", &top), &raw)?;

    ensure!(fs::read(&base)? == before && fs::read(&middle)? == below, "what is below was changed");
    // The front end of QEMU's words.
    let line = format!(
        "file={shown},if=virtio,format=qcow2,backing.file.filename={on},\
         backing.backing.file.filename={}",
        base.display()
    );
    let boot = setup.tasks("modules,disk:/dev/vda").option("-drive", &line);
    let transcript = setup.boot_to_power_off(&Boot { qemu_options: true, ..boot })?;
    expect(&transcript, &format!("disk: /dev/vda {SIZE} bytes sha256"))
}

pub(super) fn snapshot(setup: &Setup) -> Result<()> {
    let qemu = QemuImg::get()?;
    let (image, twin) = (setup.path("kept.qcow2"), raw(setup, "twin.raw")?);
    let kept = raw(setup, "kept.raw")?;
    let [from, to] = [&kept, &image].map(|path| path.display().to_string());
    qemu.run(&["convert", "-f", "raw", "-O", "qcow2", &from, &to])?;
    let before = [fs::read(&kept)?, fs::read(&image)?];

    for disk in [format!("{from},snapshot=on"), format!("{to},snapshot=on")] {
        fs::write(&twin, contents())?;
        let transcript = setup.boot_to_power_off(&twins(setup, &disk, &twin, 3))?;
        expect(&transcript, &format!("twin: {ROUNDS} rounds, the disks are equal"))?;
    }

    ensure!([fs::read(&kept)?, fs::read(&image)?] == before, "an image was changed");
    Ok(())
}

/// QEMU's internal snapshots: what a snapshot holds stays when the guest writes.
pub(super) fn internal_snapshot(setup: &Setup) -> Result<()> {
    let qemu = QemuImg::get()?;
    let (raw, image) = (raw(setup, "twin.raw")?, setup.path("snapshots.qcow2"));
    let [from, to] = [&raw, &image].map(|path| path.display().to_string());
    qemu.run(&["convert", "-f", "raw", "-O", "qcow2", &from, &to])?;
    qemu.run(&["snapshot", "-c", "first", &to])?;

    change_twice(setup, &qemu, &to, ("qcow2", &image), &raw)?;

    qemu.run(&["snapshot", "-a", "first", &to])?;
    let kept = setup.file("kept.raw", &contents())?;
    qemu.compare("qcow2", &image, Path::new(&kept))
}

/// A disk that nobody said is raw does not become a qcow2 image by what the guest writes.
pub(super) fn guessed(setup: &Setup) -> Result<()> {
    let mut bytes = contents();
    bytes[..512].fill(0);
    let raw = setup.file("guessed.raw", &bytes)?;
    let header = setup.file("header.raw", &[&b"QFI\xfb\0\0\0\x03"[..], &bytes[8..]].concat())?;
    let copy = |disk: &str| {
        setup
            .tasks("modules,copy:/dev/vdb:/dev/vda:512")
            .option("--disk", disk)
            .option("--disk", &format!("{header},readonly,format=raw"))
    };

    let refused = setup.boot_to_power_off(&copy(&raw))?;
    let after = fs::read(&raw)?;
    let named = setup.boot_to_power_off(&copy(&format!("{raw},format=raw")))?;

    expect(&refused, "copy: /dev/vda not written")?;
    ensure!(after == bytes, "the disk was changed");
    expect(&named, "copy: /dev/vda written")?;
    let mut start = [0; 4];
    File::open(&raw)?.read_exact_at(&mut start, 0)?;
    ensure!(start == *b"QFI\xfb", "the disk was not written");
    Ok(())
}
