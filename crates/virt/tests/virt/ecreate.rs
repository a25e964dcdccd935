//! ECREATE by way of an exit: the guest's policy, the faults and their order.

use std::sync::Arc;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{PageInfo, SecInfo, Secs};
use cloister_sgx::{AttributeFlags, MISCSELECT_EXINFO, PageType, SgxFeatures};
use cloister_virt::encls::Action;
use cloister_virt::{EpcExhausted, SgxCpuid, SgxVm};
use cloister_x86::{Exception, Gpa, PageFaultCode};

use crate::enclave::{create, pageinfo, place, secinfo, secs};
use crate::guest::{
    DONE, GP, Guest, NOWHERE, PAGEINFO, SECINFO, SOURCE, SPARE, epc, not_mapped, sgx_fault,
};
use crate::host;

/// A guest whose CPUID announces less than the platform can do, in every field.
fn less() -> SgxCpuid {
    let mut cpuid = host::everything();
    let guest = &mut cpuid.capabilities;
    guest.miscselect = 0;
    guest.attributes = AttributeFlags::DEBUG | AttributeFlags::MODE64BIT;
    guest.xfrm = 3;
    guest.max_enclave_size_not64 = 20;
    guest.max_enclave_size_64 = 24;
    cpuid
}

fn set(secs: &mut Secs, flags: AttributeFlags) {
    secs.attributes.flags = (secs.attributes.flags.get() | flags.bits()).into();
}

fn narrow(secs: &mut Secs, size: u64) {
    secs.attributes.flags = AttributeFlags::DEBUG.bits().into();
    secs.baseaddr = 0.into();
    secs.size = size.into();
}

fn wide(secs: &mut Secs, size: u64) {
    secs.baseaddr = 0.into();
    secs.size = size.into();
}

type Change = fn(&mut Secs);

/// What an SECS asks for that the platform has and the guest's CPUID does not announce.
const REFUSED: [(&str, Change); 8] = [
    ("PROVISIONKEY", |secs| set(secs, AttributeFlags::PROVISIONKEY)),
    ("EINITTOKEN_KEY", |secs| set(secs, AttributeFlags::EINITTOKEN_KEY)),
    ("KSS", |secs| set(secs, AttributeFlags::KSS)),
    ("MISCSELECT.EXINFO", |secs| secs.miscselect = MISCSELECT_EXINFO.into()),
    ("XFRM.AVX", |secs| secs.attributes.xfrm = 7.into()),
    ("1 MiB outside 64-bit mode", |secs| narrow(secs, 1 << 20)),
    ("16 MiB in 64-bit mode", |secs| wide(secs, 1 << 24)),
    ("32 GiB in 64-bit mode", |secs| wide(secs, 1 << 35)),
];

#[test]
fn what_cpuid_does_not_announce_is_gp_and_leaves_the_page_unused() {
    for (name, ask) in REFUSED {
        let mut guest = Guest::new(host::vm(less()));
        let mut secs = secs();
        ask(&mut secs);

        let action = create(&mut guest, &secs, 0);

        assert_eq!(action, GP, "{name}");
        let page = guest.backing(0).expect("backed by the attempt");
        assert!(!guest.vm.platform().epcm(page).valid(), "{name}");
    }
}

#[test]
fn a_guest_that_has_all_of_the_platform_gets_what_others_are_refused() {
    for (name, ask) in REFUSED {
        let mut guest = Guest::new(host::vm(host::everything()));
        let mut secs = secs();
        ask(&mut secs);

        let action = create(&mut guest, &secs, 0);

        assert_eq!(action, DONE, "{name}");
        let page = guest.backing(0).expect("backed");
        assert!(guest.vm.platform().epcm(page).is(PageType::Secs), "{name}");
    }
}

#[test]
fn the_largest_sizes_that_cpuid_announces_are_allowed() {
    let sizes: [(&str, Change); 3] = [
        ("64 KiB", |_| {}),
        ("512 KiB outside 64-bit mode", |secs| narrow(secs, 1 << 19)),
        ("8 MiB in 64-bit mode", |secs| wide(secs, 1 << 23)),
    ];
    for (name, ask) in sizes {
        let mut guest = Guest::new(host::vm(less()));
        let mut secs = secs();
        ask(&mut secs);

        assert_eq!(create(&mut guest, &secs, 0), DONE, "{name}");
    }
}

#[test]
fn without_provisioning_the_key_is_refused_and_the_rest_is_not() {
    let mut guest = Guest::new(host::vm(SgxCpuid::all_of(&host::capabilities(), None)));
    let mut provisioned = secs();
    set(&mut provisioned, AttributeFlags::PROVISIONKEY);
    let mut token_key = secs();
    set(&mut token_key, AttributeFlags::EINITTOKEN_KEY | AttributeFlags::KSS);

    assert_eq!(create(&mut guest, &provisioned, 0), GP);
    assert_eq!(create(&mut guest, &token_key, 0), DONE);
}

/// Operands of an ECREATE that a test spoils.
struct Operands {
    rbx: u64,
    rcx: u64,
    pageinfo: PageInfo,
    secinfo: SecInfo,
    secs: Secs,
}

/// A wrong operand: what is spoiled (once at a time), how, and what the guest gets.
struct Wrong {
    spoiled: &'static str,
    how: &'static str,
    spoil: fn(&mut Guest, &mut Operands),
    outcome: Action,
}

const fn wrong(
    spoiled: &'static str,
    how: &'static str,
    spoil: fn(&mut Guest, &mut Operands),
    outcome: Action,
) -> Wrong {
    Wrong { spoiled, how, spoil, outcome }
}

/// The page tables refuse a write to EPC page 0.
const READ_ONLY: Action =
    Action::Inject(Exception::pf(epc(0), PageFaultCode::WRITE.union(PageFaultCode::PRESENT)));

/// Wrong operands in the order of the SDM's pseudo-code (Vol. 3D, 38.3, ECREATE). The target is
/// EPC page 0; page 1 holds an SECS already.
const WRONG: [Wrong; 19] = [
    wrong("RBX", "not canonical", |_, o| o.rbx = 1 << 47, GP),
    wrong("RBX", "not aligned to 32", |_, o| o.rbx += 16, GP),
    wrong("RCX", "not canonical", |_, o| o.rcx = 1 << 47, GP),
    wrong("RCX", "not aligned to 4096", |_, o| o.rcx += 2048, GP),
    wrong("RCX", "not mapped", |_, o| o.rcx = NOWHERE, {
        Action::Inject(Exception::pf(NOWHERE, PageFaultCode::WRITE))
    }),
    wrong("RCX", "not writable", |guest, _| guest.protect(epc(0)), READ_ONLY),
    wrong("RCX", "in RAM", |_, o| o.rcx = SPARE, sgx_fault(SPARE)),
    wrong("PAGEINFO", "not mapped", |guest, _| guest.unmap(PAGEINFO), not_mapped(PAGEINFO)),
    wrong("SRCPGE", "not aligned", |_, o| o.pageinfo.srcpge = (SOURCE + 64).into(), GP),
    wrong("SRCPGE", "not canonical", |_, o| o.pageinfo.srcpge = (1 << 63).into(), GP),
    wrong("SECINFO", "not aligned", |_, o| o.pageinfo.secinfo = (SECINFO + 32).into(), GP),
    wrong("LINADDR", "not zero", |_, o| o.pageinfo.linaddr = 4096.into(), GP),
    wrong("PAGEINFO.SECS", "not zero", |_, o| o.pageinfo.secs = 4096.into(), GP),
    wrong("SECINFO's page", "not mapped", |guest, _| guest.unmap(SECINFO), not_mapped(SECINFO)),
    wrong("SECINFO.RESERVED", "not zero", |_, o| o.secinfo.reserved[55] = 1, GP),
    wrong("SECINFO.FLAGS", "not PT_SECS", |_, o| o.secinfo.flags = 0x200.into(), GP),
    wrong("RCX", "in use", |_, o| o.rcx = epc(1), sgx_fault(epc(1))),
    wrong("the source", "not mapped", |guest, _| guest.unmap(SOURCE), not_mapped(SOURCE)),
    wrong("SECS", "beyond CPUID", |_, o| set(&mut o.secs, AttributeFlags::KSS), GP),
];

/// ECREATE with spoiled operands.
fn attempt(spoil: &[&Wrong]) -> (Guest, Action) {
    let mut guest = Guest::new(host::vm(less()));
    assert_eq!(create(&mut guest, &secs(), 1), DONE);
    let mut operands = Operands {
        rbx: PAGEINFO,
        rcx: epc(0),
        pageinfo: pageinfo(),
        secinfo: secinfo(),
        secs: secs(),
    };
    for wrong in spoil {
        (wrong.spoil)(&mut guest, &mut operands);
    }
    place(&mut guest, &operands.secs);
    guest.put(PAGEINFO, &operands.pageinfo);
    guest.put(SECINFO, &operands.secinfo);
    let action = guest.exit(leaf::ECREATE, operands.rbx, operands.rcx, 0);
    (guest, action)
}

#[test]
fn each_wrong_operand_has_its_fault_and_nothing_is_created() {
    for wrong in &WRONG {
        let (guest, action) = attempt(&[wrong]);

        assert_eq!(action, wrong.outcome, "{} {}", wrong.spoiled, wrong.how);
        let created = guest.backing(0).is_some_and(|page| guest.vm.platform().epcm(page).valid());
        assert!(!created, "{} {}", wrong.spoiled, wrong.how);
    }
}

#[test]
fn of_two_wrong_operands_the_first_in_the_order_of_the_sdm_counts() {
    for (n, first) in WRONG.iter().enumerate() {
        for second in WRONG[n + 1..].iter().filter(|second| second.spoiled != first.spoiled) {
            let (_, action) = attempt(&[first, second]);

            let names = (first.spoiled, first.how, second.spoiled, second.how);
            assert_eq!(action, first.outcome, "{names:?}");
        }
    }
}

#[test]
fn a_source_in_the_epc_reads_as_ones_which_no_secs_is() {
    let mut guest = Guest::new(host::vm(host::everything()));
    place(&mut guest, &secs());
    guest.put(PAGEINFO, &PageInfo { srcpge: epc(3).into(), ..pageinfo() });

    assert_eq!(guest.exit(leaf::ECREATE, PAGEINFO, epc(0), 0), GP);
}

#[test]
fn a_target_that_another_leaf_holds_is_gp() {
    let mut guest = Guest::new(host::vm(host::everything()));
    place(&mut guest, &secs());
    let gpa = Gpa(host::EPC_GPA);
    let page = guest.vm.populate(gpa).expect("EPC").expect("a page");
    let vm = guest.vm.clone();
    let held = vm.platform().hold(page).expect("a page that no leaf has");

    let during = guest.exit(leaf::ECREATE, PAGEINFO, epc(0), 0);
    drop(held);
    let after = guest.exit(leaf::ECREATE, PAGEINFO, epc(0), 0);

    assert_eq!((during, after), (GP, DONE));
}

#[test]
fn a_fault_of_the_epcm_is_gp_for_a_guest_without_sgx2_and_others_stay() {
    let mut cpuid = host::everything();
    cpuid.capabilities.features = SgxFeatures::SGX1;
    let mut guest = Guest::new(host::vm(cpuid));
    assert_eq!(create(&mut guest, &secs(), 1), DONE);

    let in_use = create(&mut guest, &secs(), 1);
    guest.unmap(SOURCE);
    let unmapped = create(&mut guest, &secs(), 0);

    assert_eq!((in_use, unmapped), (GP, not_mapped(SOURCE)));
}

#[test]
fn a_host_that_cannot_tell_now_makes_the_guest_run_the_leaf_again() {
    let mut guest = Guest::new(host::vm(host::everything()));
    guest.retry = true;

    assert_eq!(create(&mut guest, &secs(), 0), Action::Retry);
    guest.retry = false;
    assert_eq!(create(&mut guest, &secs(), 0), DONE);
}

#[test]
fn without_epc_for_the_target_the_host_learns_which_page_it_was() {
    let vm = SgxVm::new(
        host::pool(1).unlimited("vm"),
        &[host::section(host::EPC_GPA, 4)],
        host::everything(),
    );
    let mut guest = Guest::new(Arc::new(vm.expect("a valid machine")));

    assert_eq!(create(&mut guest, &secs(), 0), DONE);
    let action = create(&mut guest, &secs(), 2);

    assert_eq!(action, Action::Exhausted(Gpa(host::EPC_GPA + 2 * 4096), EpcExhausted::Host));
}

#[test]
fn every_operand_is_read_once() {
    let mut guest = Guest::new(host::vm(host::everything()));

    create(&mut guest, &secs(), 0);

    assert_eq!(guest.reads, [(PAGEINFO, 32), (SECINFO, 64), (SOURCE, 4096)]);
}
