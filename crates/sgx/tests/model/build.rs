//! ECREATE, EADD, EEXTEND, EREMOVE, EDBGRD and EDBGWR.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags, Secs};
use cloister_sgx::{
    AttributeFlags, Attributes, Capabilities, EpcIndex, EpcmFlags, PageType, PlatformConfig,
    PlatformIdentity, SgxFeatures, SgxStatus, Stop,
};
use cloister_x86::{Exception, Gpa, PageFaultCode};

use crate::enclave::{BASE, CODE, PAGEINFO, Page, SECINFO, SOURCE, Spec, TCS, started, tcs};
use crate::machine::{GP, Machine, Mapping, epcm_fault};
use crate::signer::Signer;

const W: PageFaultCode = PageFaultCode::WRITE;
const RW: SecInfoFlags = SecInfoFlags::R.union(SecInfoFlags::W);

/// ECREATE with a source SECS that `change` made of a good one.
fn ecreate(change: impl FnOnce(&mut Secs)) -> Result<(), Stop> {
    let mut machine = Machine::new(8);
    let mut secs = Spec::simple().secs();
    change(&mut secs);
    machine.operand(SOURCE, &secs);
    machine.operand(SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Secs));
    let pageinfo =
        PageInfo { srcpge: SOURCE.into(), secinfo: SECINFO.into(), ..PageInfo::default() };
    machine.operand(PAGEINFO, &pageinfo);
    machine.encls(leaf::ECREATE, PAGEINFO, Machine::window(0), 0).map(drop)
}

#[test]
fn ecreate_makes_a_valid_secs_page() {
    let mut machine = Machine::new(8);

    let outcome = Spec::simple().ecreate(&mut machine, 3);

    assert_eq!(outcome.map(|outcome| outcome.status), Ok(None));
    let view = machine.platform.epcm(EpcIndex(3));
    assert!(view.is(PageType::Secs));
    assert_eq!(view.flags, EpcmFlags::VALID);
    assert_eq!(view.address, 0);
}

#[test]
fn ecreate_rejects_each_illegal_secs() {
    assert_eq!(ecreate(|_| {}), Ok(()));
    let flags = |flags: u64, xfrm: u64| Attributes { flags: flags.into(), xfrm: xfrm.into() };
    assert_eq!(ecreate(|secs| secs.attributes = flags(4, 1)), Err(GP), "XFRM without SSE");
    assert_eq!(ecreate(|secs| secs.attributes = flags(4, 7)), Err(GP), "XFRM not announced");
    assert_eq!(ecreate(|secs| secs.attributes = flags(4, 3 | 1 << 63)), Err(GP), "XFRM bit 63");
    assert_eq!(ecreate(|secs| secs.attributes = flags(5, 3)), Err(GP), "INIT");
    assert_eq!(ecreate(|secs| secs.attributes = flags(4 | 1 << 3, 3)), Err(GP), "reserved bit");
    assert_eq!(ecreate(|secs| secs.attributes = flags(4 | 1 << 6, 3)), Err(GP), "CET");
    assert_eq!(ecreate(|secs| secs.miscselect = 2.into()), Err(GP), "MISCSELECT");
    assert_eq!(ecreate(|secs| secs.ssaframesize = 0.into()), Err(GP), "SSAFRAMESIZE");
    assert_eq!(ecreate(|secs| secs.size = 4096.into()), Err(GP), "one page");
    assert_eq!(ecreate(|secs| secs.size = 0x18000.into()), Err(GP), "not a power of two");
    assert_eq!(
        ecreate(|secs| {
            secs.baseaddr = 0.into();
            secs.size = (1u64 << 36).into();
        }),
        Err(GP),
        "2 to the announced power"
    );
    assert_eq!(ecreate(|secs| secs.baseaddr = (BASE + 0x1000).into()), Err(GP), "alignment");
    assert_eq!(ecreate(|secs| secs.baseaddr = (1u64 << 47).into()), Err(GP), "not canonical");
    assert_eq!(ecreate(|secs| secs.reserved1[3] = 1), Err(GP), "reserved");
    assert_eq!(ecreate(|secs| secs.reserved5[3000] = 1), Err(GP), "reserved");
    assert_eq!(ecreate(|secs| secs.eid = 1.into()), Err(GP), "implementation specific");
    assert_eq!(ecreate(|secs| secs.cet_attributes = 1), Err(GP), "CET attributes");
    assert_eq!(ecreate(|secs| secs.cet_leg_bitmap_offset = 4096.into()), Err(GP), "CET bitmap");
    assert_eq!(ecreate(|secs| secs.configid[63] = 1), Err(GP), "CONFIGID without KSS");
    assert_eq!(ecreate(|secs| secs.configsvn = 1.into()), Err(GP), "CONFIGSVN without KSS");
    assert_eq!(
        ecreate(|secs| {
            secs.attributes = flags(4 | 1 << 7, 3);
            secs.configid[63] = 1;
        }),
        Ok(()),
        "CONFIGID with KSS"
    );
    assert_eq!(ecreate(|secs| secs.mrsigner = [1; 32]), Ok(()), "not reserved");
}

#[test]
fn ecreate_outside_64_bit_mode_needs_a_small_low_enclave() {
    let flags = |flags: u64| Attributes { flags: flags.into(), xfrm: 3.into() };
    let low = |base: u64, size: u64| {
        ecreate(|secs| {
            secs.attributes = flags(0);
            secs.baseaddr = base.into();
            secs.size = size.into();
        })
    };
    assert_eq!(low(0x8000_0000, 0x1000_0000), Ok(()));
    assert_eq!(low(0x1_0000_0000, 0x1000_0000), Err(GP));
    assert_eq!(low(0, 1 << 31), Err(GP));
}

#[test]
fn ecreate_checks_its_operands_in_order() {
    let mut machine = Machine::new(8);
    Spec::simple().ecreate(&mut machine, 0).expect("a good ECREATE");
    let mut run = |rbx: u64, rcx: u64| machine.encls(leaf::ECREATE, rbx, rcx, 0).unwrap_err();

    assert_eq!(run(PAGEINFO + 8, Machine::window(1)), GP, "PAGEINFO alignment");
    assert_eq!(run(PAGEINFO, Machine::window(1) + 8), GP, "target alignment");
    assert_eq!(run(PAGEINFO, 1 << 47), GP, "canonical");
    assert_eq!(run(PAGEINFO, SOURCE), epcm_fault(SOURCE, W), "not in the EPC");
    assert_eq!(
        run(0x5000_0000, Machine::window(1)),
        Stop::Fault(Exception::pf(0x5000_0000, PageFaultCode::empty())),
        "PAGEINFO not mapped"
    );
    assert_eq!(run(PAGEINFO, Machine::window(0)), epcm_fault(Machine::window(0), W), "VALID");
}

#[test]
fn ecreate_checks_pageinfo_and_secinfo() {
    let mut machine = Machine::new(8);
    Spec::simple().ecreate(&mut machine, 0).expect("a good ECREATE");
    let good = PageInfo { srcpge: SOURCE.into(), secinfo: SECINFO.into(), ..PageInfo::default() };
    let secs = SecInfo::new(SecInfoFlags::empty(), PageType::Secs);
    let mut run = |pageinfo: PageInfo, secinfo: SecInfo| {
        machine.operand(PAGEINFO, &pageinfo);
        machine.operand(SECINFO, &secinfo);
        machine.encls(leaf::ECREATE, PAGEINFO, Machine::window(1), 0).unwrap_err()
    };

    assert_eq!(run(PageInfo { linaddr: 4096.into(), ..good }, secs), GP, "LINADDR");
    assert_eq!(run(PageInfo { secs: 4096.into(), ..good }, secs), GP, "SECS");
    assert_eq!(run(PageInfo { srcpge: (SOURCE + 64).into(), ..good }, secs), GP, "SRCPGE");
    assert_eq!(run(PageInfo { secinfo: (SECINFO + 32).into(), ..good }, secs), GP, "SECINFO");
    assert_eq!(run(good, SecInfo::new(RW, PageType::Reg)), GP, "type");
    assert_eq!(run(good, SecInfo { flags: (1u64 << 6).into(), ..secs }), GP, "reserved flag");
    assert_eq!(run(good, SecInfo { reserved: [1; 56], ..secs }), GP, "reserved bytes");
}

#[test]
fn eadd_enters_the_page_in_the_epcm() {
    let mut machine = Machine::new(32);
    let spec = Spec::simple();

    spec.load(&mut machine, 0).expect("the enclave can be built");

    let thread = machine.platform.epcm(EpcIndex(1));
    assert!(thread.is(PageType::Tcs));
    assert_eq!(thread.flags, EpcmFlags::VALID);
    assert_eq!(thread.address, TCS);
    assert_eq!(thread.secs, EpcIndex(0));
    let code = machine.platform.epcm(EpcIndex(3));
    assert_eq!(code.flags, EpcmFlags::VALID | EpcmFlags::R | EpcmFlags::X);
    assert_eq!(code.address, CODE);
    assert_eq!(machine.platform.page(EpcIndex(3)).to_bytes(), [0x90; 4096]);
}

#[test]
fn eadd_clears_what_software_may_not_set_in_a_tcs() {
    let mut machine = Machine::new(8);
    let spec = Spec::simple();
    let mut contents = tcs(0x4000, 2, 0x2010);
    contents[0] = 1;
    contents[8] = 1;
    contents[24] = 1;
    contents[40] = 1;
    spec.ecreate(&mut machine, 0).expect("a good ECREATE");

    spec.eadd(&mut machine, 0, 1, &Page::tcs(0, contents)).expect("a good EADD");

    assert_eq!(machine.platform.page(EpcIndex(1)).to_bytes(), tcs(0x4000, 2, 0x2010));
}

#[test]
fn eadd_rejects_each_illegal_page() {
    let spec = Spec::simple();
    let add = |page: &Page| {
        let mut machine = Machine::new(8);
        spec.ecreate(&mut machine, 0).expect("a good ECREATE");
        spec.eadd(&mut machine, 0, 1, page).map(drop)
    };
    let good = Page::reg(0, RW, [1; 4096]);
    let with = |flags: SecInfoFlags, page_type: PageType| Page {
        secinfo: SecInfo::new(flags, page_type),
        ..good.clone()
    };

    assert_eq!(add(&good), Ok(()));
    assert_eq!(add(&with(SecInfoFlags::W, PageType::Reg)), Err(GP), "W without R");
    assert_eq!(add(&with(RW, PageType::Secs)), Err(GP), "PT_SECS");
    assert_eq!(add(&with(RW, PageType::Va)), Err(GP), "PT_VA");
    assert_eq!(add(&with(RW, PageType::Trim)), Err(GP), "PT_TRIM");
    assert_eq!(add(&with(RW, PageType::SsFirst)), Err(GP), "no CET");
    assert_eq!(add(&with(RW | SecInfoFlags::PENDING, PageType::Reg)), Err(GP), "PENDING");
    assert_eq!(add(&Page { offset: 0x10000, ..good.clone() }), Err(GP), "beyond ELRANGE");
    assert_eq!(add(&Page { offset: u64::MAX - 0xfff, ..good.clone() }), Err(GP), "before ELRANGE");
    assert_eq!(add(&Page { offset: 8, ..good.clone() }), Err(GP), "LINADDR alignment");
    let mut contents = tcs(0x4000, 2, 0x2010);
    contents[72] = 1;
    assert_eq!(add(&Page::tcs(0, contents)), Err(GP), "reserved in TCS");
    let mut contents = tcs(0x4000, 2, 0x2010);
    contents[64] = 0;
    assert_eq!(add(&Page::tcs(0, contents)), Ok(()), "FSLIMIT counts outside 64-bit mode only");
}

#[test]
fn eadd_in_a_32_bit_enclave_checks_the_limits_of_a_tcs() {
    let mut spec = Spec::simple();
    spec.attributes = Attributes::new(AttributeFlags::empty(), 3);
    spec.base = 0x1000_0000;
    let mut machine = Machine::new(8);
    let mut contents = tcs(0x4000, 2, 0x2010);
    contents[64] = 0;
    spec.ecreate(&mut machine, 0).expect("a good ECREATE");

    let outcome = spec.eadd(&mut machine, 0, 1, &Page::tcs(0, contents));

    assert_eq!(outcome, Err(GP));
}

#[test]
fn eadd_checks_target_and_secs() {
    let mut machine = Machine::new(16);
    let spec = Spec::simple();
    let page = Page::reg(0x8000, RW, [1; 4096]);
    spec.load(&mut machine, 0).expect("the enclave can be built");

    let used = spec.eadd(&mut machine, 0, 3, &page);
    let no_secs = spec.eadd(&mut machine, 12, 11, &page);
    let child_as_secs = spec.eadd(&mut machine, 3, 11, &page);
    let itself = spec.eadd(&mut machine, 11, 11, &page);

    assert_eq!(used, Err(epcm_fault(Machine::window(3), W)));
    assert_eq!(no_secs, Err(epcm_fault(Machine::window(12), W)));
    assert_eq!(child_as_secs, Err(epcm_fault(Machine::window(3), W)));
    assert_eq!(itself, Err(GP), "a page cannot be shared and exclusive at once");
    assert!(!machine.platform.epcm(EpcIndex(11)).valid());
}

#[test]
fn eadd_and_eextend_end_with_einit() {
    let mut machine = started();
    let spec = Spec::simple();

    let added = spec.eadd(&mut machine, 0, 20, &Page::reg(0x8000, RW, [1; 4096]));
    let extended = machine.encls(leaf::EEXTEND, Machine::window(0), Machine::window(3), 0);

    assert_eq!(added, Err(GP));
    assert_eq!(extended, Err(GP));
}

#[test]
fn eextend_checks_chunk_and_secs() {
    let mut machine = Machine::new(32);
    let spec = Spec::simple();
    spec.load(&mut machine, 0).expect("the enclave can be built");
    spec.ecreate(&mut machine, 20).expect("a second enclave");
    let mut run = |rbx: u64, rcx: u64| machine.encls(leaf::EEXTEND, rbx, rcx, 0).map(drop);
    let read = PageFaultCode::empty();

    assert_eq!(run(Machine::window(0), Machine::window(3) + 0x300), Ok(()));
    assert_eq!(run(Machine::window(0), Machine::window(3) + 0x80), Err(GP), "alignment");
    assert_eq!(run(Machine::window(0) + 0x100, Machine::window(3)), Err(GP), "SECS alignment");
    assert_eq!(run(Machine::window(20), Machine::window(3)), Err(GP), "another enclave's page");
    let unused = Machine::window(30);
    assert_eq!(run(Machine::window(0), unused), Err(epcm_fault(unused, read)), "not VALID");
    let secs = Machine::window(0);
    assert_eq!(run(secs, secs), Err(epcm_fault(secs, read)), "PT_SECS");
    assert_eq!(run(secs, SOURCE), Err(epcm_fault(SOURCE, read)), "not in the EPC");
}

#[test]
fn eremove_takes_children_first_and_the_secs_last() {
    let mut machine = started();

    let early = machine.eremove(0);
    let children: Vec<_> = (1..=8).map(|page| machine.eremove(page)).collect();
    let late = machine.eremove(0);
    let again = machine.eremove(0);

    assert_eq!(early, SgxStatus::ChildPresent);
    assert_eq!(children, [SgxStatus::Success; 8]);
    assert_eq!(late, SgxStatus::Success);
    assert_eq!(again, SgxStatus::Success);
    assert!(!machine.platform.epcm(EpcIndex(0)).valid());
}

#[test]
fn eremove_of_a_page_without_backing_succeeds() {
    let mut machine = Machine::new(8);
    let unbacked = Mapping::Unbacked { gpa: Gpa(0x1_0000_0000) };
    machine.memory.mappings.insert(0x9000, unbacked);

    let removed = machine.encls_registers(leaf::EREMOVE, 0, 0x9000, 0).expect("it completes");

    assert_eq!(removed.rax, 0);
    assert_eq!(removed.rflags, 0x2);
}

#[test]
fn a_leaf_that_needs_an_unbacked_page_stops_before_it_commits() {
    let mut machine = Machine::new(8);
    let unbacked = Mapping::Unbacked { gpa: Gpa(0x1_0000_0000) };
    machine.memory.mappings.insert(0x9000, unbacked);
    Spec::simple().ecreate(&mut machine, 0).expect("operands for ECREATE");

    let stopped = machine.encls(leaf::ECREATE, PAGEINFO, 0x9000, 0);

    assert_eq!(stopped, Err(Stop::EpcMiss { gpa: Gpa(0x1_0000_0000) }));
}

#[test]
fn a_debugger_reads_and_writes_a_debug_enclave() {
    let mut machine = started();

    let written = machine.status(leaf::EDBGWR, 0x1122_3344_5566_7788, Machine::window(4) + 8, 0);
    let read = machine.encls(leaf::EDBGRD, 0, Machine::window(4) + 8, 0).expect("it completes");
    let optin = machine.status(leaf::EDBGWR, 1, Machine::window(1) + 8, 0);

    assert_eq!(written, SgxStatus::Success);
    assert_eq!(read.rbx, Some(0x1122_3344_5566_7788));
    assert_eq!(optin, SgxStatus::Success);
    assert_eq!(machine.platform.page(EpcIndex(1)).load(8), 1);
}

#[test]
fn a_debugger_meets_the_limits_of_edbgrd_and_edbgwr() {
    let mut machine = started();
    let window = Machine::window;
    let read = PageFaultCode::empty();
    let mut run = |number: u32, rcx: u64| machine.encls(number, 0, rcx, 0).map(drop);

    assert_eq!(run(leaf::EDBGRD, window(4) + 4), Err(GP), "8-byte alignment");
    assert_eq!(run(leaf::EDBGRD, window(0)), Err(epcm_fault(window(0), read)), "PT_SECS");
    assert_eq!(run(leaf::EDBGRD, window(30)), Err(epcm_fault(window(30), read)), "not VALID");
    assert_eq!(run(leaf::EDBGRD, window(1) + 64), Ok(()), "TCS within its limit");
    assert_eq!(run(leaf::EDBGRD, window(1) + 72), Err(GP), "TCS beyond its limit");
    assert_eq!(run(leaf::EDBGWR, window(1) + 16), Err(GP), "TCS beside FLAGS");
    assert_eq!(run(leaf::EDBGWR, window(0)), Err(epcm_fault(window(0), W)), "PT_SECS");
}

#[test]
fn a_production_enclave_cannot_be_debugged() {
    let mut machine = Machine::new(32);
    let mut spec = Spec::simple();
    spec.attributes = Attributes::new(AttributeFlags::MODE64BIT, 3);
    let status = spec.start(&mut machine, 0, Signer::a());

    let read = machine.encls(leaf::EDBGRD, 0, Machine::window(4), 0);
    let written = machine.encls(leaf::EDBGWR, 0, Machine::window(4), 0);

    assert_eq!(status, SgxStatus::Success);
    assert_eq!(read, Err(GP));
    assert_eq!(written, Err(GP));
}

#[test]
fn a_debugger_in_32_bit_mode_moves_4_bytes() {
    let mut machine = started();
    machine.memory.mappings.insert(0x9000, Mapping::Epc { index: EpcIndex(4), writable: true });
    machine.memory.mode64 = false;

    machine.status(leaf::EDBGWR, 0xffff_ffff_0102_0304, 0x9004, 0);
    let read = machine.encls(leaf::EDBGRD, 0, 0x9004, 0).expect("it completes");

    assert_eq!(read.rbx, Some(0x0102_0304));
    assert_eq!(machine.platform.page(EpcIndex(4)).load(0), 0x0102_0304_5a5a_5a5a);
}

#[test]
fn leaves_that_cpuid_does_not_announce_are_invalid() {
    let mut config = PlatformConfig::single(8, PlatformIdentity::from_seed(&[0; 32]));
    config.capabilities = Capabilities { features: SgxFeatures::SGX1, ..Capabilities::default() };
    let mut machine = Machine::with(config);

    for number in [leaf::EAUG, leaf::EMODPR, leaf::EMODT, 0x10, 0x11, 0x12, 0x13, 0x3f, u32::MAX] {
        assert_eq!(machine.encls(number, PAGEINFO, Machine::window(0), 0), Err(GP), "{number:#x}");
    }
}
