//! Linux's selftests of KVM in a guest with VMX.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Setup;
use crate::machine::Boot;
use crate::nested::{self, EPC};

/// What kselftest takes for a pass and for a test that does not apply, and how a failed assertion of the
/// KVM selftests ends.
const PASS: i32 = 0;
const SKIP: i32 = 4;
const FAIL: i32 = 254;

/// Programs that cannot pass: how they end, and what is not there.
const LACKING: [(&str, i32, &str); 16] = [
    ("amx_test", SKIP, "AMX"),
    ("emulator_error_test", SKIP, "a smaller physical-address width for guests"),
    ("hyperv_svm_test", SKIP, "SVM"),
    ("mmio_warning_test", SKIP, "a KVM without unrestricted guests"),
    ("monitor_mwait_test", FAIL, "MONITOR"),
    ("nx_huge_pages_test", SKIP, "the options that its script gives it"),
    ("pmu_event_filter_test", SKIP, "a performance monitoring unit"),
    ("sev_migrate_tests", SKIP, "SEV"),
    ("svm_int_ctl_test", SKIP, "SVM"),
    ("svm_nested_shutdown_test", SKIP, "SVM"),
    ("svm_nested_soft_inject_test", SKIP, "SVM"),
    ("svm_vmcall_test", SKIP, "SVM"),
    ("vmx_exception_with_invalid_guest_state", SKIP, "a KVM without unrestricted guests"),
    ("vmx_pmu_caps_test", SKIP, "a performance monitoring unit"),
    ("xen_shinfo_test", SKIP, "a KVM with Xen's hypercalls"),
    ("xen_vmcall_test", SKIP, "a KVM with Xen's hypercalls"),
];
/// Programs that measure time, and fail where the host takes the processor away: one wants a timer's
/// interrupt within some microseconds, the other a second of sleep to take a second.
const LEFT_OUT: [&str; 2] = ["vmx_preemption_timer_test", "vmx_nested_tsc_scaling_test"];

pub(super) fn selftests(setup: &Setup) -> Result<()> {
    let image = nested::kvm_selftests()?;
    let (left_out, programs): (Vec<&String>, Vec<&String>) =
        image.programs.iter().partition(|name| LEFT_OUT.contains(&name.as_str()));
    ensure!(left_out.len() == LEFT_OUT.len(), "{LEFT_OUT:?} are not all there: {left_out:?}");
    let tasks: String = programs.iter().map(|name| format!(",{name}")).collect();
    let append = format!("quiet cloister.run=modules{tasks}");
    let boot = Boot::new(&image.kernel, &image.initrd, &append).option(EPC.0, EPC.1);
    // One of the programs has a guest of 1 GiB.
    let boot = Boot { cpus: 2, memory: "2G".to_owned(), limit: Duration::from_secs(1200), ..boot };

    let transcript = setup.boot_to_power_off(&boot.option("--cpu", "host,+vmx"))?;

    let mut wrong = Vec::new();
    for program in programs {
        let lacking = LACKING.iter().find(|(name, ..)| name == program);
        let expected = lacking.map_or(PASS, |&(_, code, _)| code);
        let code = transcript.marked(&format!("init: end {program} "));
        if code != [expected.to_string()] {
            let lacks = lacking.map_or(String::new(), |(.., what)| format!(" for want of {what}"));
            wrong.push(format!("{program}: exit code {code:?} instead of {expected}{lacks}"));
        }
    }
    ensure!(wrong.is_empty(), "of the KVM selftests:\n{}", wrong.join("\n"));
    Ok(())
}
