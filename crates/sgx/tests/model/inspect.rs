//! Looking at pages and enclaves from the outside.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{EinitToken, Secs};
use cloister_sgx::{
    AttributeFlags, Attributes, EnclaveIdentity, EnclaveView, EpcIndex, EpcmFlags, ExitingEvent,
    MISCSELECT_EXINFO, Platform, PlatformConfig, PlatformIdentity, SgxStatus,
};

use crate::enclave::{BASE, Spec, TCS, TCS_2, started};
use crate::machine::Machine;
use crate::signer::Signer;

const SECS: EpcIndex = EpcIndex(0);

fn identity(spec: &Spec, signer: &Signer) -> EnclaveIdentity {
    EnclaveIdentity {
        mrenclave: spec.mrenclave(),
        mrsigner: signer.mrsigner(),
        isvprodid: spec.isvprodid,
        isvsvn: spec.isvsvn,
    }
}

#[test]
fn an_enclave_shows_its_secs_and_since_einit_its_identity() {
    let mut machine = Machine::new(32);
    let spec = Spec::simple();
    spec.load(&mut machine, 0).expect("the enclave can be built");
    let flags = AttributeFlags::MODE64BIT | AttributeFlags::DEBUG;
    let before = EnclaveView {
        secs: SECS,
        eid: 1,
        size: 0x10000,
        base: BASE,
        attributes: Attributes::new(flags, 3),
        miscselect: MISCSELECT_EXINFO,
        identity: None,
        threads_inside: 0,
        children: 8,
        virtual_children: 0,
    };
    assert_eq!(machine.platform.enclave(SECS), Some(before));

    machine.memory.le_hash = Signer::a().mrsigner();
    let sigstruct = spec.sigstruct(Signer::a());
    let status = spec.einit(&mut machine, 0, &sigstruct, &EinitToken::none());

    assert_eq!(status, Ok(SgxStatus::Success));
    let after = EnclaveView {
        attributes: Attributes::new(flags | AttributeFlags::INIT, 3),
        identity: Some(identity(&spec, Signer::a())),
        ..before
    };
    assert_eq!(machine.platform.enclave(SECS), Some(after));
}

#[test]
fn processors_count_as_inside_from_entry_to_exit() {
    let mut first = started();
    let mut second = Machine::on(first.platform.clone());
    Spec::simple().map(&mut second, 0);
    second.xsave.image_mut(3).fill(0);
    let platform = first.platform.clone();
    let inside = || platform.enclave(SECS).expect("an SECS").threads_inside;

    first.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER");
    assert_eq!(inside(), 1);
    second.enclu(user::EENTER, TCS_2, 0x40_2000, 0).expect("EENTER");
    assert_eq!(inside(), 2);
    // Those that entered before count as well.
    assert_eq!(first.status(leaf::ETRACK, 0, Machine::window(0), 0), SgxStatus::Success);
    assert_eq!(inside(), 2);
    second.aex(ExitingEvent::Interrupt).expect("inside");
    assert_eq!(inside(), 1);
    first.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT");
    assert_eq!(inside(), 0);
}

#[test]
fn children_and_virtual_children_are_counted() {
    let mut machine = started();
    let virtchildcnt = core::mem::offset_of!(Secs, virtchildcnt);
    machine.platform.page(SECS).store(virtchildcnt, 5);

    assert_eq!(machine.eremove(8), SgxStatus::Success);

    let view = machine.platform.enclave(SECS).expect("an SECS");
    assert_eq!((view.children, view.virtual_children), (7, 5));
}

#[test]
fn what_is_no_secs_is_no_enclave() {
    let mut machine = started();
    machine.encls(leaf::EPA, 3, Machine::window(20), 0).expect("EPA");

    for (page, what) in [(1, "TCS"), (3, "REG"), (20, "VA"), (21, "unused")] {
        assert_eq!(machine.platform.enclave(EpcIndex(page)), None, "{what}");
    }
    for page in (0..9).rev() {
        assert_eq!(machine.eremove(page), SgxStatus::Success);
    }
    assert_eq!(machine.platform.enclave(SECS), None, "removed");
}

#[test]
fn looking_at_unused_pages_backs_none() {
    const PAGES: u32 = 1 << 27;
    let config = PlatformConfig::single(PAGES, PlatformIdentity::from_seed(&[7; 32]));
    let platform = Platform::new(config).expect("a valid platform");

    for page in (0..PAGES).step_by(256) {
        assert_eq!(platform.epcm(EpcIndex(page)).flags, EpcmFlags::empty());
        assert_eq!(platform.enclave(EpcIndex(page)), None);
    }

    assert_eq!(platform.backed_pages(), 0);
}

/// Two enclaves that have nothing in common live in one SECS page, one after the other.
#[test]
fn a_view_belongs_to_one_enclave_and_no_leaf_notices_the_viewer() {
    let mut small = Spec::simple();
    small.pages.truncate(1);
    small.pages[0].measured = 0;
    let large = Spec {
        base: BASE + 0x100_0000,
        size: 0x2_0000,
        miscselect: 0,
        attributes: Attributes::new(AttributeFlags::MODE64BIT, 7),
        isvsvn: 77,
        isvprodid: 88,
        ..small.clone()
    };
    let specs = [(small, Signer::a()), (large, Signer::b())];
    let expected = specs.each_ref().map(|(spec, signer)| (spec.secs(), identity(spec, signer)));
    let signed = specs.each_ref().map(|(spec, signer)| spec.sigstruct(signer));
    let mut machine = Machine::new(4);
    let platform = machine.platform.clone();
    let (built, seen) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 2]);

    thread::scope(|scope| {
        let viewer = scope.spawn(|| {
            while !built.load(Ordering::Relaxed) {
                let Some(view) = platform.enclave(SECS) else { continue };
                let which = usize::from(view.base != BASE);
                let (secs, identity) = &expected[which];
                assert_eq!(view.base, secs.baseaddr.get());
                assert_eq!(view.size, secs.size.get());
                assert_eq!(view.miscselect, secs.miscselect.get());
                assert_eq!(view.attributes.xfrm, secs.attributes.xfrm);
                let initialized = view.attributes.has(AttributeFlags::INIT);
                assert_eq!(view.identity, initialized.then_some(*identity));
                seen[which].fetch_add(usize::from(initialized), Ordering::Relaxed);
                let epcm = platform.epcm(EpcIndex(1));
                assert!(!epcm.valid() || epcm.secs == SECS);
            }
        });
        let mut round = 0;
        let unseen = || seen.iter().any(|seen| seen.load(Ordering::Relaxed) == 0);
        while !viewer.is_finished() && (round < 500 || unseen()) {
            let which = round % 2;
            let (spec, signer) = &specs[which];
            machine.memory.le_hash = signer.mrsigner();
            spec.load(&mut machine, 0).expect("no conflict");
            let status = spec.einit(&mut machine, 0, &signed[which], &EinitToken::none());
            assert_eq!(status, Ok(SgxStatus::Success));
            for page in [1, 0] {
                assert_eq!(machine.eremove(page), SgxStatus::Success);
            }
            round += 1;
        }
        built.store(true, Ordering::Relaxed);
    });

    assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) != 0));
}
