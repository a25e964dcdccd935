//! Disks in VMDK images, as QEMU makes and judges them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};

use super::Setup;
use super::images::{ROUNDS, SIZE, change_twice, contents, raw, twins};
use super::setup::expect;
use crate::image::hex;
use crate::machine::Boot;
use crate::qemu_img::QemuImg;

/// An image of [`contents`], made with options.
fn image(setup: &Setup, qemu: &QemuImg, name: &str, options: &str) -> Result<PathBuf> {
    let (from, image) = (raw(setup, "from.raw")?, setup.path(name));
    let [from, to] = [&from, &image].map(|path| path.display().to_string());
    qemu.run(&["convert", "-f", "raw", "-O", "vmdk", "-o", options, &from, &to])?;
    Ok(image)
}

/// What init says of a disk of [`contents`].
fn digest() -> String {
    format!("disk: /dev/vda {SIZE} bytes sha256 {}", hex(&Sha256::digest(contents())))
}

pub(super) fn written(setup: &Setup) -> Result<()> {
    let qemu = QemuImg::get()?;
    for (name, options) in [
        ("sparse.vmdk", "subformat=monolithicSparse"),
        ("zeros.vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    ] {
        let (raw, image) = (raw(setup, "twin.raw")?, image(setup, &qemu, name, options)?);
        if name == "zeros.vmdk" {
            // Zeros already, which now have an entry.
            qemu.zero("vmdk", &image, "5M 1M")?;
        }
        let disk = image.display().to_string();
        let boot = setup.tasks("modules,disk:/dev/vda").option("--disk", &disk);
        expect(&setup.boot_to_power_off(&boot)?, &digest())?;

        change_twice(setup, &qemu, &disk, ("vmdk", &image), &raw)?;
    }
    Ok(())
}

/// A disk that was never written grows by what the guest writes.
pub(super) fn empty(setup: &Setup) -> Result<()> {
    let qemu = QemuImg::get()?;
    let (raw, image) = (setup.path("twin.raw"), setup.path("empty.vmdk"));
    fs::write(&raw, vec![0; usize::try_from(SIZE)?])?;
    let disk = image.display().to_string();
    qemu.run(&["create", "-q", "-f", "vmdk", &disk, &SIZE.to_string()])?;

    change_twice(setup, &qemu, &format!("{disk},format=vmdk"), ("vmdk", &image), &raw)
}

pub(super) fn stream_optimized(setup: &Setup) -> Result<()> {
    let qemu = QemuImg::get()?;
    let image = image(setup, &qemu, "stream.vmdk", "subformat=streamOptimized")?;
    let (before, disk) = (fs::read(&image)?, image.display().to_string());

    let refused = setup.cloister(&["run", "--kernel", &setup.kernel(), "--disk", &disk])?;
    let line = format!(
        "cloister: --disk: {disk}: it is compressed (streamOptimized), which is only read: \
         add ,readonly or ,snapshot=on after it\n"
    );
    ensure!(String::from_utf8_lossy(&refused.stderr) == line, "{refused:?}");
    ensure!(refused.status.code() == Some(1), "{refused:?}");

    let boot = setup.tasks("modules,disk:/dev/vda").option("--disk", &format!("{disk},readonly"));
    expect(&setup.boot_to_power_off(&boot)?, &digest())?;
    let twin = raw(setup, "twin.raw")?;
    let boot = twins(setup, &format!("{disk},snapshot=on"), &twin, 3);
    let transcript = setup.boot_to_power_off(&boot)?;
    expect(&transcript, &format!("twin: {ROUNDS} rounds, the disks are equal"))?;

    ensure!(fs::read(&image)? == before, "the image was changed");
    Ok(())
}

pub(super) fn backing(setup: &Setup) -> Result<()> {
    let qemu = QemuImg::get()?;
    let base = image(setup, &qemu, "base.vmdk", "subformat=monolithicSparse")?;
    let (raw, top) = (raw(setup, "twin.raw")?, setup.path("top.qcow2"));
    let [on, shown] = [&base, &top].map(|path| path.display().to_string());
    qemu.run(&["create", "-q", "-f", "qcow2", "-b", &on, "-F", "vmdk", &shown])?;
    let before = fs::read(&base)?;

    change_twice(setup, &qemu, &format!("{shown},backing={on}"), ("qcow2", &top), &raw)?;

    ensure!(fs::read(&base)? == before, "what is below was changed");
    // The front end of QEMU's words.
    for line in [
        format!("file={shown},if=virtio,backing.file.filename={on},backing.driver=vmdk"),
        format!("file={on},if=virtio,format=vmdk"),
    ] {
        let boot = setup.tasks("modules,disk:/dev/vda").option("-drive", &line);
        let transcript = setup.boot_to_power_off(&Boot { qemu_options: true, ..boot })?;
        expect(&transcript, &format!("disk: /dev/vda {SIZE} bytes sha256"))?;
    }
    qemu.check("vmdk", &base)?;
    qemu.compare("vmdk", &base, Path::new(&setup.path("from.raw")))
}

/// The kinds of images that are not one file with all that is in them.
pub(super) fn refused(setup: &Setup) -> Result<()> {
    let qemu = QemuImg::get()?;
    let convert = "convert it with qemu-img convert -O qcow2";
    for (kind, reason) in [
        (
            "monolithicFlat",
            "its data are in monolithicFlat-flat.vmdk, and no file is opened because an image \
             says so: give that file, with format=raw",
        ),
        (
            "twoGbMaxExtentFlat",
            "its data are in twoGbMaxExtentFlat-f001.vmdk, and no file is opened because an image \
             says so: give that file, with format=raw",
        ),
        (
            "twoGbMaxExtentSparse",
            &format!("it is a vmdk image of the kind twoGbMaxExtentSparse: {convert}"),
        ),
    ] {
        let image = image(setup, &qemu, &format!("{kind}.vmdk"), &format!("subformat={kind}"))?;
        let disk = image.display().to_string();
        let refused = setup.cloister(&["run", "--kernel", &setup.kernel(), "--disk", &disk])?;
        let line = format!("cloister: --disk: {disk}: {reason}\n");
        ensure!(String::from_utf8_lossy(&refused.stderr) == line, "{refused:?}");
        ensure!(refused.status.code() == Some(1), "{refused:?}");
    }
    let flat = setup.path("monolithicFlat-flat.vmdk").display().to_string();
    let boot = setup.tasks("modules,disk:/dev/vda").option("--disk", &format!("{flat},format=raw"));
    expect(&setup.boot_to_power_off(&boot)?, &digest())
}
