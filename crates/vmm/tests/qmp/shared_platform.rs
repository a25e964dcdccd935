//! Several machines on the EPC of one platform.

use std::sync::Arc;

use cloister_epc_view::{EpcReport, QmpClient};
use cloister_sgx::EpcSectionConfig;
use cloister_virt::{EpcExhausted, EpcPool};
use cloister_vmm::accel::VcpuError;
use cloister_vmm::cli::RunWording;
use cloister_vmm::complaint::Wording as _;
use cloister_vmm::machine::{MachineEvent, RunError, RunState, ShutdownCause, platform_epc};

use crate::guests::IDLE;
use crate::machine::{PATIENCE, Running};
use crate::policy::{PAGES, creator};

const SECTION: [&str; 2] = ["--sgx-epc", "id=a,size=4M"];

fn platform(pages: u32) -> Arc<EpcPool> {
    platform_epc(vec![EpcSectionConfig { pages, node: 0 }], None, None).unwrap()
}

fn report(machine: &Running) -> EpcReport {
    QmpClient::connect(&machine.socket, PATIENCE).unwrap().epc_report(false).unwrap()
}

/// Runs a machine with `limits` that wants all of its section beside one that has 4 MiB reserved:
/// the first ends for `reason`, the second gets its pages.
fn ends_alone(pool: &Arc<EpcPool>, limits: &[&str], reason: EpcExhausted, pages: u64) {
    let other = [&SECTION[..], &["--name", "other", "--epc-reserve", "4M"]].concat();
    let other = Running::start_on(pool, &creator(0), &other).unwrap();
    let limited = Running::start_on(pool, &creator(0), &[&SECTION, limits].concat()).unwrap();

    let error = limited.result().unwrap_err();
    other.screen.wait();

    let RunError::Vcpu(VcpuError::EpcExhausted { reason: found, .. }) = error else {
        panic!("{error}")
    };
    assert_eq!(found, reason);
    let event = MachineEvent::Shutdown(ShutdownCause::HostError);
    assert_eq!(*limited.events.lock().unwrap(), [event]);
    assert_eq!(limited.screen.len(), 0);
    let (had, has) = (report(&limited).account, report(&other));
    assert_eq!((had.used, had.refused), (pages, 1));
    assert_eq!((has.account.used, has.account.refused), (u64::from(PAGES), 0));
    assert_eq!((has.enclaves.len(), has.pool.used), (PAGES as usize, u64::from(PAGES) + pages));
    assert_eq!(other.control.state(), RunState::Running);
    assert_eq!(*other.events.lock().unwrap(), []);
}

#[test]
fn a_machine_over_its_quota_ends_and_the_other_goes_on() {
    ends_alone(&platform(4 * PAGES), &["--epc-quota", "1M"], EpcExhausted::Quota, 256);
}

#[test]
fn what_is_reserved_for_one_machine_the_other_does_not_get() {
    ends_alone(&platform(PAGES + 100), &[], EpcExhausted::Host, 100);
}

#[test]
fn quota_and_reservation_are_in_the_report() {
    let limits = ["--epc-quota", "2M", "--epc-reserve", "1M"];
    let limited = Running::start(IDLE, &[&SECTION, &limits[..]].concat());

    let report = report(&limited);

    assert_eq!((report.account.quota, report.account.reservation), (Some(512), 256));
    assert_eq!((report.pool.total, report.pool.reserved), (u64::from(PAGES), 256));
}

#[test]
fn what_is_not_left_cannot_be_reserved() {
    let pool = platform(2048);
    let reserve = |size| [&SECTION[..], &["--epc-reserve", size]].concat();
    let _first = Running::start_on(&pool, IDLE, &reserve("6M")).unwrap();

    let error = Running::start_on(&pool, IDLE, &reserve("4M")).err().unwrap();

    assert_eq!(
        RunWording.line(&error.complaint()),
        "--epc-reserve: 4M is more than the 2M that are left of the platform's EPC: \
         write a smaller size"
    );
    assert!(Running::start_on(&pool, IDLE, &reserve("2M")).is_ok());
}
