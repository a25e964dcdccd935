//! Processors and virtio devices.

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use super::Setup;
use super::setup::expect;
use crate::image::hex;

pub(super) fn four_processors(setup: &Setup) -> Result<()> {
    let mut boot = setup.tasks("cpus");
    boot.cpus = 4;

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, "cpus: online 0-3 usable 4")?;
    expect(&transcript, "cpus: sum 400000 of 400000")
}

/// A disk image whose bytes differ from sector to sector.
fn disk_contents() -> Vec<u8> {
    (0..3_u32 << 18).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect()
}

fn digest_line(contents: &[u8]) -> String {
    let digest = hex(&Sha256::digest(contents));
    format!("disk: /dev/vda {} bytes sha256 {digest}", contents.len())
}

pub(super) fn disk_read(setup: &Setup) -> Result<()> {
    let contents = disk_contents();
    let disk = setup.file("read.img", &contents)?;
    let boot = setup.tasks("modules,disk:/dev/vda").option("--disk", &disk);

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, &digest_line(&contents))
}

pub(super) fn disk_write(setup: &Setup) -> Result<()> {
    let mut contents = disk_contents();
    let disk = setup.file("write.img", &contents)?;
    let boot = setup.tasks("modules,disk:/dev/vda:write").option("--disk", &disk);

    let transcript = setup.boot_to_power_off(&boot)?;

    contents[..512].fill(0xa5);
    expect(&transcript, "disk: /dev/vda written")?;
    expect(&transcript, &digest_line(&contents))?;
    ensure!(std::fs::read(&disk)? == contents, "the file does not hold what was written");
    Ok(())
}

pub(super) fn disk_readonly(setup: &Setup) -> Result<()> {
    let contents = disk_contents();
    let disk = setup.file("readonly.img", &contents)?;
    let boot =
        setup.tasks("modules,disk:/dev/vda:write").option("--disk", &format!("{disk},readonly"));

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, "disk: /dev/vda not written")?;
    expect(&transcript, &digest_line(&contents))?;
    ensure!(std::fs::read(&disk)? == contents, "the file was changed");
    Ok(())
}

pub(super) fn entropy(setup: &Setup) -> Result<()> {
    let transcript = setup.boot_to_power_off(&setup.tasks("modules,entropy"))?;

    expect(&transcript, "entropy: virtio_rng")?;
    expect(&transcript, "init: end entropy 0")
}

pub(super) fn virtio_console(setup: &Setup) -> Result<()> {
    let transcript = setup.boot_to_power_off(&setup.tasks("modules,hvc"))?;

    expect(&transcript, "hvc: a line through virtio-console")?;
    expect(&transcript, "init: end hvc 0")
}
