//! What the leaves of the model cost: `cargo xtask bench` runs this and shows it beside hardware.
//!
//! Each line of the output is `leaf NAME NANOSECONDS CYCLES`, per operation, with cycles of the
//! time-stamp counter where the host has one and 0 elsewhere; or `size NAME BYTES`.
#![expect(clippy::print_stdout, reason = "the report of a benchmark")]

#[path = "../../tests/model/signer.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod signer;

mod flat;
mod measured;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags, Secs};
use cloister_sgx::{
    AttributeFlags, Attributes, EpcIndex, ExitingEvent, PageType, Platform, PlatformConfig,
    PlatformIdentity, SgxStatus,
};
use sgxs::sigstruct::EnclaveHash;
use sha2::{Digest as _, Sha256};
use signer::{Hasher, Signer};
use zerocopy::{FromBytes as _, FromZeros as _};

use flat::{EPC_WINDOW, Processor};
use measured::Measured;

/// Operands of the leaves, in ordinary memory.
const PAGEINFO: u64 = 0x0;
const SECINFO: u64 = 0x40;
const SOURCE: u64 = 0x1000;
const SIGSTRUCT: u64 = 0x2000;
const TOKEN: u64 = 0x3000;
const PCMD: u64 = 0x4000;
/// First byte of every enclave here.
const BASE: u64 = 0x7000_0000_0000;
/// Pages of an evicted or added batch: the slots of one version array.
const BATCH: u32 = 512;
/// SECINFO flags of a readable and writable PT_REG page, and of a PT_TCS page.
const DATA: u64 = 0x203;
const PT_TCS: u64 = 0x100;
/// Where the asynchronous exit pointer is.
const AEP: u64 = 0x40_2000;

fn main() {
    // `cargo test --all-targets` runs benchmarks too, without this argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    // First, while nothing that was freed makes the process look smaller than it is.
    large_enclave();
    build_pages();
    einit();
    entries();
    paging();
    augmented_pages();
}

/// Wall-clock nanoseconds and time-stamp cycles of `work`, divided by `operations`.
fn measure(operations: u64, work: impl FnOnce()) -> (f64, f64) {
    let (start, cycles) = (Instant::now(), flat::time_stamp());
    work();
    let (nanoseconds, cycles) = (start.elapsed().as_nanos(), flat::time_stamp() - cycles);
    (nanoseconds as f64 / operations as f64, cycles as f64 / operations as f64)
}

fn show(name: &str, (nanoseconds, cycles): (f64, f64)) {
    println!("leaf {name} {nanoseconds:.0} {cycles:.0}");
}

fn report(name: &str, operations: u64, work: impl FnOnce()) {
    show(name, measure(operations, work));
}

fn processor(pages: u32) -> Processor {
    let identity = PlatformIdentity::from_seed(&[7; 32]);
    let platform = Platform::new(PlatformConfig::single(pages, identity)).expect("a platform");
    Processor::new(Arc::new(platform), BASE)
}

fn window(page: u32) -> u64 {
    EPC_WINDOW + u64::from(page) * 4096
}

/// ECREATE in EPC page 0.
fn ecreate(processor: &mut Processor, size: u64) {
    let mut secs = Secs::new_zeroed();
    secs.size = size.into();
    secs.baseaddr = BASE.into();
    secs.ssaframesize = 1.into();
    secs.attributes = Attributes::new(AttributeFlags::MODE64BIT, 3);
    processor.put(SOURCE, &secs);
    processor.put(SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Secs));
    let pageinfo =
        PageInfo { srcpge: SOURCE.into(), secinfo: SECINFO.into(), ..PageInfo::default() };
    processor.put(PAGEINFO, &pageinfo);
    processor.encls(leaf::ECREATE, PAGEINFO, window(0), 0);
}

/// EADD of the page at SOURCE to the enclave whose SECS is in EPC page 0.
fn eadd(processor: &mut Processor, offset: u64, target: u32, secinfo: SecInfo) {
    processor.put(SECINFO, &secinfo);
    let pageinfo = PageInfo {
        linaddr: (BASE + offset).into(),
        srcpge: SOURCE.into(),
        secinfo: SECINFO.into(),
        secs: window(0).into(),
    };
    processor.put(PAGEINFO, &pageinfo);
    processor.encls(leaf::EADD, PAGEINFO, window(target), 0);
    processor.map(offset, target);
}

fn eextend(processor: &mut Processor, target: u32) {
    for chunk in 0..16 {
        processor.encls(leaf::EEXTEND, window(0), window(target) + chunk * 256, 0);
    }
}

fn data_page() -> SecInfo {
    SecInfo::new(SecInfoFlags::R | SecInfoFlags::W, PageType::Reg)
}

/// Puts a SIGSTRUCT for an enclave that measures so in place, and trusts its signer.
fn sign(processor: &mut Processor, measured: Measured) {
    let mut author = sgxs::sigstruct::Signer::new(EnclaveHash::new(measured.finish()));
    author
        .attributes_flags(sgx_isa::AttributesFlags::MODE64BIT, !0)
        .attributes_xfrm(3, !0)
        .isvsvn(1)
        .isvprodid(1);
    let signed = author.sign::<_, Hasher>(Signer::a()).expect("the key can sign");
    let bytes: &[u8] = signed.as_ref();
    let sigstruct =
        cloister_sgx::layout::SigStruct::read_from_prefix(bytes).expect("a SIGSTRUCT").0;
    processor.put(SIGSTRUCT, &sigstruct);
    processor.put(TOKEN, &EinitToken::none());
    processor.trust(Signer::a().mrsigner());
}

/// EADD with 16 EEXTENDs, and SHA-256 alone over the same bytes, in turns; of each the quickest turn
/// counts, so that a host that does something else besides changes the ratio little. In the first
/// turn the EPC gets its memory from the host, which the enclave of 1 GiB shows.
fn build_pages() {
    const PAGES: u32 = 512;
    const TURNS: u32 = 32;
    let mut processor = processor(PAGES + 1);
    ecreate(&mut processor, 1 << 26);
    processor.put(SOURCE, &[0x5a_u8; 4096]);
    // The blocks of EADD and of the EEXTENDs, and the 256 bytes after each of these.
    let block = [0x5a_u8; 64 + 16 * (64 + 256)];
    let (mut model, mut hash) = ((f64::INFINITY, 0.0), (f64::INFINITY, 0.0));
    let quicker = |one: (f64, f64), other: (f64, f64)| if other.0 < one.0 { other } else { one };
    for turn in 0..TURNS {
        let first = turn * PAGES;
        let took = measure(PAGES.into(), || {
            for page in 0..PAGES {
                eadd(&mut processor, u64::from(first + page) * 4096, page + 1, data_page());
                eextend(&mut processor, page + 1);
            }
        });
        if turn != 0 {
            model = quicker(model, took);
        }
        for page in 0..PAGES {
            let status = processor.encls(leaf::EREMOVE, 0, window(page + 1), 0);
            assert_eq!(status, Some(SgxStatus::Success));
        }
        let took = measure(PAGES.into(), || {
            let mut hash = Sha256::new();
            for _ in 0..PAGES {
                hash.update(black_box(&block));
            }
            black_box(hash.finalize());
        });
        hash = quicker(hash, took);
    }
    show("EADD+16*EEXTEND", model);
    show("SHA-256-of-the-same", hash);
    println!("ratio EADD+16*EEXTEND/SHA-256 {:.2}", model.0 / hash.0);
}

/// EINIT with a signature of RSA-3072.
fn einit() {
    const ENCLAVES: u64 = 64;
    let mut processors: Vec<Processor> = (0..ENCLAVES)
        .map(|_| {
            let mut processor = processor(4);
            ecreate(&mut processor, 8192);
            processor.put(SOURCE, &[1_u8; 4096]);
            eadd(&mut processor, 0, 1, data_page());
            let mut measured = Measured::new(8192);
            measured.page(0, DATA, &[1; 4096], false);
            sign(&mut processor, measured);
            processor
        })
        .collect();
    report("EINIT", ENCLAVES, || {
        for processor in &mut processors {
            let status = processor.encls(leaf::EINIT, SIGSTRUCT, window(0), TOKEN);
            assert_eq!(status, Some(SgxStatus::Success));
        }
    });
}

/// A TCS at 0 with its SSA at 4096, and EINIT.
fn threaded(pages: u32, size: u64) -> Processor {
    let mut processor = processor(pages);
    ecreate(&mut processor, size);
    let mut tcs = [0_u8; 4096];
    tcs[16..24].copy_from_slice(&0x1000_u64.to_le_bytes());
    tcs[28..32].copy_from_slice(&1_u32.to_le_bytes());
    processor.put(SOURCE, &tcs);
    eadd(&mut processor, 0, 1, SecInfo::new(SecInfoFlags::empty(), PageType::Tcs));
    processor.put(SOURCE, &[0_u8; 4096]);
    eadd(&mut processor, 0x1000, 2, data_page());
    let mut measured = Measured::new(size);
    measured.page(0, PT_TCS, &tcs, false);
    measured.page(0x1000, DATA, &[0; 4096], false);
    sign(&mut processor, measured);
    let status = processor.encls(leaf::EINIT, SIGSTRUCT, window(0), TOKEN);
    assert_eq!(status, Some(SgxStatus::Success));
    processor
}

fn entries() {
    const TIMES: u64 = 200_000;
    let mut processor = threaded(4, 0x10000);
    report("EENTER+EEXIT", TIMES, || {
        for _ in 0..TIMES {
            processor.enclu(user::EENTER, BASE, AEP, 0);
            processor.enclu(user::EEXIT, 0x40_3000, 0, 0);
        }
    });
    processor.enclu(user::EENTER, BASE, AEP, 0);
    processor.initialize_xsave();
    report("AEX+ERESUME", TIMES, || {
        for _ in 0..TIMES {
            processor.aex(ExitingEvent::Interrupt);
            processor.enclu(user::ERESUME, BASE, AEP, 0);
        }
    });
}

/// EWB and ELDU of one version array's worth of pages, again and again.
fn paging() {
    const ROUNDS: u64 = 16;
    let first = 4;
    let va = first + BATCH;
    let mut processor = processor(va + 1);
    ecreate(&mut processor, 1 << 24);
    processor.put(SOURCE, &[0xa5_u8; 4096]);
    for page in 0..BATCH {
        eadd(&mut processor, u64::from(page) * 4096, first + page, data_page());
    }
    processor.put_empty(PAGEINFO, 64);
    processor.encls(leaf::EPA, flat::PT_VA, window(va), 0);
    // Contents and PCMD of every page, and two forms of PAGEINFO.
    let contents = |page: u32| 0x10_0000 + u64::from(page) * 4096;
    let pcmd = |page: u32| PCMD + u64::from(page) * 128;
    let mut out = Vec::new();
    let mut back = Vec::new();
    for page in 0..BATCH {
        let pageinfo = PageInfo {
            srcpge: contents(page).into(),
            secinfo: pcmd(page).into(),
            ..PageInfo::default()
        };
        out.push(pageinfo);
        back.push(PageInfo {
            linaddr: (BASE + u64::from(page) * 4096).into(),
            secs: window(0).into(),
            ..pageinfo
        });
    }
    let block = |processor: &mut Processor| {
        for page in 0..BATCH {
            let status = processor.encls(leaf::EBLOCK, 0, window(first + page), 0);
            assert_eq!(status, Some(SgxStatus::Success));
        }
        assert_eq!(processor.encls(leaf::ETRACK, 0, window(0), 0), Some(SgxStatus::Success));
    };
    // Blocking and tracking are paid once for a batch, as in Linux, and shown with it.
    report("EBLOCK+EWB+ELDU", ROUNDS * u64::from(BATCH), || {
        for _ in 0..ROUNDS {
            block(&mut processor);
            for page in 0..BATCH {
                processor.put(PAGEINFO, &out[page as usize]);
                let slot = window(va) + u64::from(page) * 8;
                let status = processor.encls(leaf::EWB, PAGEINFO, window(first + page), slot);
                assert_eq!(status, Some(SgxStatus::Success));
            }
            for page in 0..BATCH {
                processor.put(PAGEINFO, &back[page as usize]);
                let slot = window(va) + u64::from(page) * 8;
                let status = processor.encls(leaf::ELDU, PAGEINFO, window(first + page), slot);
                assert_eq!(status, Some(SgxStatus::Success));
            }
        }
    });
}

/// EAUG by the kernel, EACCEPT by the enclave.
fn augmented_pages() {
    const PAGES: u32 = 16384;
    let mut processor = threaded(PAGES + 4, 1 << 27);
    let place = |page: u32| BASE + 0x10000 + u64::from(page) * 4096;
    let accept = SecInfoFlags::R | SecInfoFlags::W | SecInfoFlags::PENDING;
    // The enclave's operand has to lie in the enclave.
    let operand = BASE + 0x1000;
    processor.write_epc(EpcIndex(2), &SecInfo::new(accept, PageType::Reg));
    report("EAUG+EACCEPT", PAGES.into(), || {
        for page in 0..PAGES {
            let pageinfo = PageInfo {
                linaddr: place(page).into(),
                secs: window(0).into(),
                ..PageInfo::default()
            };
            processor.put(PAGEINFO, &pageinfo);
            processor.encls(leaf::EAUG, PAGEINFO, window(page + 4), 0);
            processor.map(place(page) - BASE, page + 4);
        }
        processor.enclu(user::EENTER, BASE, AEP, 0);
        for page in 0..PAGES {
            processor.enclu(user::EACCEPT, operand, place(page), 0);
            assert_eq!(processor.rax(), 0, "EACCEPT");
        }
    });
}

/// 1 GiB from ECREATE to EINIT, and what it takes of the host's memory beside its pages.
fn large_enclave() {
    const PAGES: u32 = 1 << 18;
    let contents = [0x5a; 4096];
    let mut measured = Measured::new(2 << 30);
    for page in 0..PAGES {
        measured.page(u64::from(page) * 4096, DATA, &contents, true);
    }
    let resident = flat::resident_bytes();
    let mut processor = processor(PAGES + 1);
    report("ECREATE..EINIT-of-1-GiB", 1, || {
        ecreate(&mut processor, 2 << 30);
        processor.put(SOURCE, &contents);
        for page in 0..PAGES {
            eadd(&mut processor, u64::from(page) * 4096, page + 1, data_page());
            eextend(&mut processor, page + 1);
        }
        sign(&mut processor, measured);
        let status = processor.encls(leaf::EINIT, SIGSTRUCT, window(0), TOKEN);
        assert_eq!(status, Some(SgxStatus::Success));
    });
    // The map of the enclave's addresses is the benchmark's own.
    let grown = flat::resident_bytes() - resident - processor.own_bytes();
    let beyond = grown as f64 / f64::from(PAGES) - 4096.0;
    println!("size per-EPC-page-beyond-4096 {beyond:.1}");
}
