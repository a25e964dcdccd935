//! Another processor of the guest that rewrites the operands while they are judged: what is used
//! is what was checked.
//!
//! `CLOISTER_RACE_TRIES` sets the number of tries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags, Secs, SigStruct};
use cloister_sgx::{AttributeFlags, MISCSELECT_EXINFO, PageType, SgxStatus};
use cloister_virt::SgxCpuid;
use cloister_virt::encls::Action;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::enclave::{
    ISVPRODID, ISVSVN, create, mrenclave, pageinfo, place, secinfo, secs, sigstruct,
};
use crate::guest::{
    DONE, GP, Guest, PAGEINFO, Ram, SECINFO, SIGSTRUCT, SOURCE, SPARE, TOKEN, epc, reported,
};
use crate::host;
use crate::signer::Signer;

fn tries(default: usize) -> usize {
    let set = std::env::var("CLOISTER_RACE_TRIES").ok();
    set.map_or(default, |tries| tries.parse().expect("a number"))
}

/// A guest with a small share of the platform, and an SECS that asks for more in every field.
fn less() -> (Guest, Secs) {
    let mut cpuid: SgxCpuid = host::everything();
    cpuid.capabilities.miscselect = 0;
    cpuid.capabilities.attributes = AttributeFlags::DEBUG | AttributeFlags::MODE64BIT;
    cpuid.capabilities.xfrm = 3;
    cpuid.capabilities.max_enclave_size_64 = 24;
    let mut evil = secs();
    evil.attributes.flags = host::capabilities().attributes.bits().into();
    evil.attributes.xfrm = 7.into();
    evil.miscselect = MISCSELECT_EXINFO.into();
    evil.baseaddr = 0.into();
    evil.size = (1 << 35).into();
    (Guest::new(host::vm(cpuid)), evil)
}

/// The SECS in page 0 of the EPC, if there is one.
fn created(guest: &Guest) -> Option<Secs> {
    let index = guest.backing(0)?;
    let platform = guest.vm.platform();
    let mut secs = Secs::new_zeroed();
    platform.page(index).read(0, secs.as_mut_bytes());
    platform.epcm(index).is(PageType::Secs).then_some(secs)
}

fn assert_within_policy(secs: &Secs) {
    assert_eq!(secs.attributes.flags.get() & !6, 0);
    assert_eq!(secs.attributes.xfrm.get(), 3);
    assert_eq!(secs.miscselect.get(), 0);
    assert!(secs.size.get() < 1 << 24);
}

/// Runs `work` while another processor runs `disturb` over and over.
fn beside(ram: &Arc<Ram>, disturb: impl Fn(&Ram, usize) + Sync, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            (0..).take_while(|_| !done.load(Ordering::Relaxed)).for_each(|n| disturb(ram, n));
        });
        // Also when `work` panics: the scope waits for the writer.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&done);
        work();
    });
}

#[test]
fn an_secs_rewritten_right_after_it_was_read_is_created_as_it_was_judged() {
    let (mut guest, evil) = less();
    guest.after_read = Some(Box::new(move |ram, gva| match gva {
        SOURCE => ram.write(SOURCE, evil.as_bytes()),
        SECINFO => ram.write(SECINFO, &[0xff; 64]),
        _ => ram.write(PAGEINFO, &[0xff; 32]),
    }));

    assert_eq!(create(&mut guest, &secs(), 0), DONE);

    let secs = created(&guest).expect("created");
    assert_within_policy(&secs);
    assert_eq!(secs.size.get(), 0x1_0000);
}

#[test]
fn a_sigstruct_rewritten_right_after_it_was_read_counts_as_it_was_judged() {
    let (mut guest, _) = less();
    guest.trust(Signer::trusted());
    create(&mut guest, &secs(), 0);
    let theirs = sigstruct(&secs(), 0, Signer::other());
    guest.put(SIGSTRUCT, &sigstruct(&secs(), 0, Signer::trusted()));
    guest.put(TOKEN, &[0; 304]);
    guest.after_read = Some(Box::new(move |ram, gva| match gva {
        SIGSTRUCT => ram.write(SIGSTRUCT, theirs.as_bytes()),
        _ => ram.write(TOKEN, &[0xff; 304]),
    }));

    let action = guest.exit(leaf::EINIT, SIGSTRUCT, epc(0), TOKEN);

    assert_eq!(action, reported(SgxStatus::Success));
    assert_eq!(created(&guest).expect("an SECS").mrsigner, Signer::trusted().hash());
}

#[test]
fn no_race_gets_an_secs_past_policy() {
    let (mut guest, evil) = less();
    let good = secs();
    place(&mut guest, &good);
    guest.put(SPARE, &evil);
    let elsewhere = PageInfo { srcpge: SPARE.into(), ..pageinfo() };
    let regular = SecInfo::new(SecInfoFlags::R, PageType::Reg);
    let disturb = move |ram: &Ram, n: usize| match n % 8 {
        0 => ram.write(PAGEINFO, elsewhere.as_bytes()),
        1 => ram.write(PAGEINFO, pageinfo().as_bytes()),
        2 => ram.write(SECINFO, regular.as_bytes()),
        3 => ram.write(SECINFO, secinfo().as_bytes()),
        // SIZE, BASEADDR, SSAFRAMESIZE, MISCSELECT, and then ATTRIBUTES.
        4 => ram.write(SOURCE, &evil.as_bytes()[..24]),
        5 => ram.write(SOURCE, &good.as_bytes()[..24]),
        6 => ram.write(SOURCE + 48, &evil.as_bytes()[48..64]),
        _ => ram.write(SOURCE + 48, &good.as_bytes()[48..64]),
    };
    let ram = guest.ram.clone();
    let (mut successes, mut refusals) = (0_usize, 0_usize);

    beside(&ram, disturb, || {
        while successes + refusals < tries(20_000) || successes == 0 || refusals == 0 {
            match guest.exit(leaf::ECREATE, PAGEINFO, epc(0), 0) {
                DONE => {
                    assert_within_policy(&created(&guest).expect("created"));
                    successes += 1;
                    let removed = guest.encls(leaf::EREMOVE, 0, epc(0), 0);
                    assert_eq!(removed, reported(SgxStatus::Success));
                }
                GP => {
                    assert!(created(&guest).is_none());
                    refusals += 1;
                }
                other => panic!("{other:?}"),
            }
            guest.reads.clear();
        }
    });
}

#[test]
fn no_race_gets_an_enclave_past_the_launch_control_hash() {
    let (mut guest, _) = less();
    guest.trust(Signer::trusted());
    let ours = sigstruct(&secs(), 0, Signer::trusted());
    let theirs = sigstruct(&secs(), 0, Signer::other());
    guest.put(SIGSTRUCT, &ours);
    guest.put(TOKEN, &[0; 304]);
    let modulus = core::mem::offset_of!(SigStruct, modulus);
    let product = core::mem::offset_of!(SigStruct, isvprodid);
    let (first, second) = (ours.clone(), theirs);
    let disturb = move |ram: &Ram, n: usize| {
        // Each step stays for a while: a SIGSTRUCT takes far longer to verify than to write.
        match n / 64 % 6 {
            0 => ram.write(SIGSTRUCT, second.as_bytes()),
            2 => ram.write(SIGSTRUCT + modulus as u64, &second.modulus),
            4 => ram.write(SIGSTRUCT + product as u64, &[0xff; 4]),
            _ => ram.write(SIGSTRUCT, first.as_bytes()),
        }
    };
    let ram = guest.ram.clone();
    let (mut successes, mut refusals) = (0_usize, 0_usize);

    beside(&ram, disturb, || {
        while successes + refusals < tries(1_000) || successes == 0 || refusals == 0 {
            assert_eq!(create(&mut guest, &secs(), 0), DONE);
            let action = guest.exit(leaf::EINIT, SIGSTRUCT, epc(0), TOKEN);
            let secs = created(&guest).expect("an SECS");
            let initialized = secs.attributes.has(AttributeFlags::INIT);
            assert_eq!(action == reported(SgxStatus::Success), initialized);
            if initialized {
                assert_eq!(secs.mrsigner, Signer::trusted().hash());
                assert_eq!(secs.mrenclave, mrenclave(0));
                assert_eq!((secs.isvprodid.get(), secs.isvsvn.get()), (ISVPRODID, ISVSVN));
                successes += 1;
            } else {
                assert!(matches!(action, Action::Retire(_)), "{action:?}");
                refusals += 1;
            }
            guest.encls(leaf::EREMOVE, 0, epc(0), 0);
            guest.reads.clear();
        }
    });
}
