//! EINIT by way of an exit: real signatures, the guest's own launch-control hash, faults.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{EinitToken, Secs, SigStruct};
use cloister_sgx::{AttributeFlags, PageType, SgxFeatures, SgxStatus};
use cloister_virt::encls::Action;
use cloister_virt::{RdmsrOutcome, SgxVm};
use cloister_x86::Exception;
use cloister_x86::PageFaultCode;
use cloister_x86::msr::SGXLEPUBKEYHASH0;
use cloister_x86::regs::Rflags;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::enclave::{ISVPRODID, ISVSVN, create, fill, init, mrenclave, secs, sigstruct};
use crate::guest::{
    DONE, GP, Guest, NOWHERE, SIGSTRUCT, SPARE, TOKEN, epc, not_mapped, reported, sgx_fault,
};
use crate::host;
use crate::signer::Signer;

/// A guest that trusts [`Signer::trusted`].
fn guest() -> Guest {
    let mut guest = Guest::new(host::vm(host::everything()));
    guest.trust(Signer::trusted());
    guest
}

/// The SECS in page `page` of the guest's EPC.
fn secs_of(guest: &Guest, page: u64) -> Secs {
    let index = guest.backing(page).expect("backed");
    let mut secs = Secs::new_zeroed();
    guest.vm.platform().page(index).read(0, secs.as_mut_bytes());
    secs
}

fn initialized(guest: &Guest, page: u64) -> bool {
    secs_of(guest, page).attributes.has(AttributeFlags::INIT)
}

#[test]
fn an_enclave_built_by_the_guest_is_initialized_as_its_author_signed_it() {
    let mut guest = guest();
    assert_eq!(create(&mut guest, &secs(), 0), DONE);
    fill(&mut guest, 0, 3);

    let signed = sigstruct(&secs(), 3, Signer::trusted());
    let action = init(&mut guest, &signed, 0);

    assert_eq!(action, reported(SgxStatus::Success));
    let secs = secs_of(&guest, 0);
    assert!(secs.attributes.has(AttributeFlags::INIT));
    assert_eq!(secs.mrenclave, mrenclave(3));
    assert_eq!(secs.mrsigner, Signer::trusted().hash());
    assert_eq!((secs.isvprodid.get(), secs.isvsvn.get()), (ISVPRODID, ISVSVN));
    assert_eq!(
        guest.vm.platform().epcm(guest.backing(2).expect("backed")).page_type,
        PageType::Reg
    );
}

#[test]
fn registers_say_success_or_the_error() {
    let mut guest = guest();
    create(&mut guest, &secs(), 0);
    let mut broken = sigstruct(&secs(), 0, Signer::trusted());
    broken.signature[7] ^= 1;

    let flags = |action| {
        let Action::Retire(outcome) = action else { panic!("{action:?}") };
        let (mut rax, mut rbx, mut rflags) = (2, SIGSTRUCT, 0x8d7);
        outcome.apply(&mut rax, &mut rbx, &mut rflags);
        (rax, rbx, rflags)
    };
    let error = flags(init(&mut guest, &broken, 0));
    let success = flags(init(&mut guest, &sigstruct(&secs(), 0, Signer::trusted()), 0));

    assert_eq!(error, (8, SIGSTRUCT, Rflags::ZF.bits() | 2));
    assert_eq!(success, (0, SIGSTRUCT, 2));
}

/// A SIGSTRUCT that EINIT refuses, with the error.
type Refused = (&'static str, fn() -> SigStruct, SgxStatus);

fn changed(change: fn(&mut SigStruct)) -> SigStruct {
    let mut signed = sigstruct(&secs(), 0, Signer::trusted());
    change(&mut signed);
    signed
}

const REFUSED: [Refused; 6] = [
    ("header", || changed(|s| s.header[0] ^= 1), SgxStatus::InvalidSigStruct),
    ("vendor", || changed(|s| s.vendor = 1.into()), SgxStatus::InvalidSigStruct),
    ("signature", || changed(|s| s.signature[0] ^= 1), SgxStatus::InvalidSignature),
    ("signed body", || changed(|s| s.isvsvn = 5.into()), SgxStatus::InvalidSignature),
    (
        "another enclave's",
        || sigstruct(&secs(), 1, Signer::trusted()),
        SgxStatus::InvalidMeasurement,
    ),
    ("another author's", || sigstruct(&secs(), 0, Signer::other()), SgxStatus::InvalidEinitToken),
];

#[test]
fn a_sigstruct_that_does_not_fit_is_refused_with_its_error() {
    for (name, signed, status) in REFUSED {
        let mut guest = guest();
        create(&mut guest, &secs(), 0);

        let action = init(&mut guest, &signed(), 0);

        assert_eq!(action, reported(status), "{name}");
        assert!(!initialized(&guest, 0), "{name}");
    }
}

#[test]
fn each_processor_is_judged_by_its_own_hash() {
    let mut trusting = guest();
    let mut other = trusting.sibling();
    other.trust(Signer::other());
    create(&mut trusting, &secs(), 0);
    create(&mut trusting, &secs(), 1);
    let signed = sigstruct(&secs(), 0, Signer::trusted());

    let refused = init(&mut other, &signed, 0);
    let accepted = init(&mut trusting, &signed, 0);
    let theirs = init(&mut other, &sigstruct(&secs(), 0, Signer::other()), 1);

    assert_eq!(refused, reported(SgxStatus::InvalidEinitToken));
    assert_eq!(accepted, reported(SgxStatus::Success));
    assert_eq!(theirs, reported(SgxStatus::Success));
    assert_eq!(secs_of(&other, 1).mrsigner, Signer::other().hash());
}

#[test]
fn on_a_locked_host_the_guest_has_the_hosts_hash_and_cannot_see_it() {
    let config = cloister_sgx::PlatformConfig {
        default_le_hash: Signer::trusted().hash(),
        le_hash_writable: false,
        ..host::config(16)
    };
    let platform = cloister_sgx::Platform::new(config).expect("a valid platform");
    let pool = cloister_virt::EpcPool::new(platform.into());
    let mut cpuid = host::everything();
    cpuid.launch_control = false;
    let vm = SgxVm::new(pool.unlimited("vm"), &[host::section(host::EPC_GPA, 8)], cpuid)
        .expect("a machine");
    let mut guest = Guest::new(vm.into());
    create(&mut guest, &secs(), 0);

    let msr = guest.vcpu.rdmsr(SGXLEPUBKEYHASH0);
    let others = init(&mut guest, &sigstruct(&secs(), 0, Signer::other()), 0);
    let hosts = init(&mut guest, &sigstruct(&secs(), 0, Signer::trusted()), 0);

    assert_eq!(msr, RdmsrOutcome::GeneralProtection);
    assert_eq!(others, reported(SgxStatus::InvalidEinitToken));
    assert_eq!(hosts, reported(SgxStatus::Success));
}

#[test]
fn only_the_author_of_the_hash_may_have_the_einittoken_key() {
    let mut launch = secs();
    launch.attributes.flags =
        (launch.attributes.flags.get() | AttributeFlags::EINITTOKEN_KEY.bits()).into();
    let mut guest = guest();
    create(&mut guest, &launch, 0);

    let other = init(&mut guest, &sigstruct(&launch, 0, Signer::other()), 0);
    let trusted = init(&mut guest, &sigstruct(&launch, 0, Signer::trusted()), 0);

    assert_eq!(other, reported(SgxStatus::InvalidAttribute));
    assert_eq!(trusted, reported(SgxStatus::Success));
}

#[test]
fn a_pending_event_comes_first_and_the_leaf_can_run_again() {
    let mut guest = guest();
    create(&mut guest, &secs(), 0);
    let signed = sigstruct(&secs(), 0, Signer::trusted());
    guest.event = true;

    let interrupted = init(&mut guest, &signed, 0);
    guest.event = false;
    let again = init(&mut guest, &signed, 0);

    assert_eq!(interrupted, reported(SgxStatus::UnmaskedEvent));
    assert_eq!(again, reported(SgxStatus::Success));
}

#[test]
fn an_enclave_cannot_be_initialized_twice() {
    let mut guest = guest();
    create(&mut guest, &secs(), 0);
    let signed = sigstruct(&secs(), 0, Signer::trusted());

    assert_eq!(init(&mut guest, &signed, 0), reported(SgxStatus::Success));
    assert_eq!(init(&mut guest, &signed, 0), GP);
}

/// Registers of an EINIT: RBX, RCX, RDX.
type Registers = [u64; 3];
const GOOD: Registers = [SIGSTRUCT, epc(0), TOKEN];

struct Wrong {
    spoiled: &'static str,
    spoil: fn(&mut Guest, &mut Registers),
    outcome: Action,
}

const fn wrong(
    spoiled: &'static str,
    spoil: fn(&mut Guest, &mut Registers),
    outcome: Action,
) -> Wrong {
    Wrong { spoiled, spoil, outcome }
}

const fn write_fault(gva: u64, present: PageFaultCode) -> Action {
    Action::Inject(Exception::pf(gva, PageFaultCode::WRITE.union(present)))
}

/// Wrong operands in the order of the SDM's pseudo-code (Vol. 3D, 38.3, EINIT).
const WRONG: [Wrong; 13] = [
    wrong("RBX", |_, r| r[0] = 1 << 63, GP),
    wrong("RBX", |_, r| r[0] += 2048, GP),
    wrong("RCX", |_, r| r[1] = 1 << 63, GP),
    wrong("RCX", |_, r| r[1] += 512, GP),
    wrong("RDX", |_, r| r[2] = 1 << 63, GP),
    wrong("RDX", |_, r| r[2] += 256, GP),
    wrong("RCX", |_, r| r[1] = NOWHERE, write_fault(NOWHERE, PageFaultCode::empty())),
    wrong("RCX", |g, _| g.protect(epc(0)), write_fault(epc(0), PageFaultCode::PRESENT)),
    wrong("RCX", |_, r| r[1] = SPARE, sgx_fault(SPARE)),
    wrong("SIGSTRUCT", |g, _| g.unmap(SIGSTRUCT), not_mapped(SIGSTRUCT)),
    wrong("TOKEN", |g, _| g.unmap(TOKEN), not_mapped(TOKEN)),
    // SIGSTRUCT is looked at before the SECS is.
    wrong("SIGSTRUCT", |g, _| g.put(SIGSTRUCT, &[0; 16]), reported(SgxStatus::InvalidSigStruct)),
    wrong("RCX", |_, r| r[1] = epc(5), sgx_fault(epc(5))),
];

fn attempt(spoil: &[&Wrong]) -> (Guest, Action) {
    let mut guest = guest();
    create(&mut guest, &secs(), 0);
    guest.put(SIGSTRUCT, &sigstruct(&secs(), 0, Signer::trusted()));
    guest.put(TOKEN, &EinitToken::none());
    let mut registers = GOOD;
    for wrong in spoil {
        (wrong.spoil)(&mut guest, &mut registers);
    }
    let [rbx, rcx, rdx] = registers;
    let action = guest.exit(leaf::EINIT, rbx, rcx, rdx);
    (guest, action)
}

#[test]
fn each_wrong_operand_has_its_fault_and_nothing_is_initialized() {
    for (n, wrong) in WRONG.iter().enumerate() {
        let (guest, action) = attempt(&[wrong]);

        assert_eq!(action, wrong.outcome, "{n}: {}", wrong.spoiled);
        assert!(!initialized(&guest, 0), "{n}: {}", wrong.spoiled);
    }
}

#[test]
fn of_two_wrong_operands_the_first_in_the_order_of_the_sdm_counts() {
    for (n, first) in WRONG.iter().enumerate() {
        for second in WRONG[n + 1..].iter().filter(|second| second.spoiled != first.spoiled) {
            let (_, action) = attempt(&[first, second]);

            assert_eq!(action, first.outcome, "{n}: {} and {}", first.spoiled, second.spoiled);
        }
    }
}

#[test]
fn an_enclave_page_is_no_secs_and_without_sgx2_that_is_gp() {
    let mut cpuid = host::everything();
    for (features, expected) in
        [(cpuid.capabilities.features, sgx_fault(epc(1))), (SgxFeatures::SGX1, GP)]
    {
        cpuid.capabilities.features = features;
        let mut guest = Guest::new(host::vm(cpuid));
        create(&mut guest, &secs(), 0);
        fill(&mut guest, 0, 1);

        let action = init(&mut guest, &sigstruct(&secs(), 1, Signer::trusted()), 1);

        assert_eq!(action, expected);
    }
}

#[test]
fn every_operand_is_read_once() {
    let mut guest = guest();
    create(&mut guest, &secs(), 0);
    guest.reads.clear();

    init(&mut guest, &sigstruct(&secs(), 0, Signer::trusted()), 0);

    assert_eq!(guest.reads, [(SIGSTRUCT, 1808), (TOKEN, 304)]);
}
