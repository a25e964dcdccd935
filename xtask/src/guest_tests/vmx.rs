//! What the VMX of the processor is put through at length.

use anyhow::Result;

use super::Setup;
use crate::process;
use crate::testing::PROFILE;

const ENTRIES: &str = "1000000";

/// VM entries by VMCSs of random contents.
pub(super) fn random_vmcs(_: &Setup) -> Result<()> {
    let mut command = process::cargo();
    command.args(["test", "--quiet", "--locked", "--profile", PROFILE]);
    command.args(["--package", "cloister-cpu", "--lib", "vmx::tests::random"]);
    command.env("CLOISTER_VMCS_ENTRIES", ENTRIES);
    process::capture(&mut command).map(drop)
}
