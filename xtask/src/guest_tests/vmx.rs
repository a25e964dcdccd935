//! What the VMX of the processor is put through at length.

use anyhow::Result;

use super::Setup;
use crate::testing::test_at_length;

const ENTRIES: &str = "1000000";

/// VM entries by VMCSs of random contents.
pub(super) fn random_vmcs(_: &Setup) -> Result<()> {
    let at_length = [("CLOISTER_VMCS_ENTRIES", ENTRIES)];
    test_at_length(["--package", "cloister-cpu", "--lib", "vmx::tests::random"], &at_length)
}
