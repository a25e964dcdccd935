//! What a guest with guests of its own boots: Linux with KVM.

use anyhow::Result;

use crate::apt::Archive;
use crate::kernel::{Kernel, Line};
use crate::{cpio, image, process, repository};

/// What Cloister is told: VMX, and the provisioning key, which a guest of the guest may have then.
pub(crate) const CPU: (&str, &str) = ("--cpu", "host,+sgx-provisionkey,+vmx");
/// Its EPC.
pub(crate) const EPC: (&str, &str) = ("--sgx-epc", "id=epc0,size=64M");

/// Loaded by init's task `modules`.
const MODULES: [&str; 1] = ["kvm-intel"];
/// Programs of `/bin`, from `guest/nested`.
const SCRIPTS: [&str; 1] = ["kvm"];

/// An initramfs of init and KVM's modules alone, for a kernel of this line.
///
/// # Errors
/// As [`image::Image::get`].
pub(crate) fn kvm(line: &Line, name: &str) -> Result<image::Small> {
    let archive = Archive::open()?;
    let mut root = cpio::Archive::with_console();
    root.file("init", 0o755, process::read(&crate::guest::Programs::build()?.init)?);
    image::add_mount_points(&mut root);
    add_kvm(&mut root, &archive, &Kernel::get(&archive, line)?)?;
    image::Small::new(&archive, line, &root, name, Vec::new())
}

fn add_kvm(root: &mut cpio::Archive, archive: &Archive, kernel: &Kernel) -> Result<()> {
    image::add_modules(root, archive, kernel, &MODULES)?;
    image::add_shell(root, archive)?;
    for name in SCRIPTS {
        let source = repository::root().join(format!("guest/nested/{name}.sh"));
        root.file(&format!("bin/{name}"), 0o755, process::read(&source)?);
    }
    Ok(())
}
