//! `cloister exec` with another root than the host's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Setup;
use super::exec::{check, run};
use crate::apt::Archive;
use crate::qemu_img::QemuImg;
use crate::{debian, process};

const TEST: &str = "exec-root";

/// A root on a disk's image, whole or in a partition, is left as it was, and nothing of the host is there.
pub(super) fn image(setup: &Setup) -> Result<()> {
    let tree = setup.path("tree");
    fs::create_dir_all(tree.join("bin"))?;
    let busybox = Archive::open()?.unpacked("busybox-static")?.join("bin/busybox");
    fs::copy(busybox, tree.join("bin/busybox"))?;
    symlink("busybox", tree.join("bin/sh"))?;
    fs::write(tree.join("marker"), "of the image\n")?;
    for image in [whole(setup, &tree)?, partitioned(setup, &tree)?] {
        let [raw, qcow2, vmdk] = ["img", "qcow2", "vmdk"]
            .map(|extension| image.with_extension(extension).display().to_string());
        let qemu = QemuImg::get()?;
        qemu.run(&["convert", "-O", "qcow2", &raw, &qcow2])?;
        qemu.run(&["convert", "-O", "vmdk", "-o", "subformat=streamOptimized", &raw, &vmdk])?;
        for path in [&raw, &qcow2, &vmdk] {
            // Changes go to RAM, so that each run finds the same.
            let script = "read line < /marker; echo \"$line\"; echo other > /marker; pwd
                          test -e /usr || echo alone; test -c /dev/sgx_enclave && echo SGX";
            let options = ["--no-host", "--root", path];
            let output = run(setup, TEST, &options, &["/bin/sh", "-c", script])?;
            check(&output, 0, "of the image\n/\nalone\nSGX\n", "")?;
        }
    }
    // With the host, the current folder is there too.
    let folder = setup.path(TEST).canonicalize()?;
    let raw = setup.path("whole.img").display().to_string();
    let output = run(setup, TEST, &["--root", &raw], &["/bin/sh", "-c", "pwd; echo x > made"])?;
    check(&output, 0, &format!("{}\n", folder.display()), "")?;
    anyhow::ensure!(fs::read_to_string(folder.join("made"))? == "x\n", "nothing was made");
    Ok(())
}

fn whole(setup: &Setup, tree: &Path) -> Result<PathBuf> {
    let image = setup.path("whole.img");
    process::capture(mke2fs().arg("-d").arg(tree).arg(&image).arg("32M"))?;
    Ok(image)
}

fn partitioned(setup: &Setup, tree: &Path) -> Result<PathBuf> {
    let image = setup.path("partitioned.img");
    debian::create_disk(&image)?;
    let mut mke2fs = mke2fs();
    mke2fs.arg("-E").arg(format!("offset={}", debian::root_offset())).arg("-d").arg(tree);
    process::capture(mke2fs.arg(&image).arg(debian::root_kib(debian::SIZE).to_string()))?;
    Ok(image)
}

fn mke2fs() -> Command {
    let mut mke2fs = Command::new("mke2fs");
    // Where Debian has it; an unprivileged user's path may not.
    mke2fs.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    mke2fs.args(["-q", "-F", "-t", "ext4"]);
    mke2fs
}
