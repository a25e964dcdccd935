//! The provisioning key, by right alone.

use cloister_sgx::AttributeFlags;
use cloister_virt::{ProvisioningRight, SgxCpuid, SgxVm};

use crate::host;

#[test]
fn cpuid_says_provisionkey_only_by_right() {
    let platform = host::capabilities();
    let right = Some(ProvisioningRight::of_own_platform());
    let has =
        |cpuid: &SgxCpuid| cpuid.capabilities.attributes.contains(AttributeFlags::PROVISIONKEY);
    let (with, without) = (SgxCpuid::all_of(&platform, right), SgxCpuid::all_of(&platform, None));
    let forged = SgxCpuid { provisioning: None, ..with };

    let outcome = SgxVm::new(host::pool(1).unlimited("vm"), &[], forged);

    assert_eq!((has(&with), has(&without)), (true, false));
    let error = outcome.expect_err("a bit without a right").to_string();
    assert!(error.contains("PROVISIONKEY needs the right"), "{error}");
}
