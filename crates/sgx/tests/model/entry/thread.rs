//! The thread that is entered, and the conditions that EENTER and ERESUME have in common.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::SecInfoFlags;
use cloister_sgx::{AttributeFlags, EpcIndex, PageType};
use cloister_x86::PageFaultCode;

use crate::machine::{GP, Machine, epcm_fault};
use crate::order::{Condition, Outcome};
use crate::scenario::{
    AEP, CODE, ONE, Scenario, TCS, TCS_2, UNUSED, VA, epc, make_va, map, modify, outside,
};
use crate::unfit::Unfit;

/// The access of an entry to its TCS and SSA.
pub(super) const WU: PageFaultCode = PageFaultCode::WRITE.union(PageFaultCode::USER);

/// Offsets of TCS fields.
pub(super) mod tcs {
    pub(in crate::entry) const STATE: usize = 0;
    pub(in crate::entry) const FLAGS: usize = 8;
    pub(in crate::entry) const OSSA: usize = 16;
    pub(in crate::entry) const CSSA_NSSA: usize = 24;
    pub(in crate::entry) const OENTRY: usize = 32;
    pub(in crate::entry) const OFSBASE: usize = 48;
    pub(in crate::entry) const OGSBASE: usize = 56;
}

/// Offsets of ATTRIBUTES in the SECS.
const SECS_FLAGS: usize = 48;

/// A processor outside the enclave with the operands of an entry.
pub(super) fn ready(flags: AttributeFlags) -> Scenario {
    Scenario { machine: outside(flags), rbx: TCS, rcx: AEP, rdx: 0 }
}

/// A field of the TCS that ends the entry with `outcome`.
pub(super) fn field(
    name: &'static str,
    at: usize,
    value: u64,
    outcome: Outcome,
) -> Condition<Scenario> {
    let part = match at {
        tcs::STATE => "TCS.STATE",
        tcs::FLAGS => "TCS.FLAGS",
        tcs::OSSA => "TCS.OSSA",
        tcs::CSSA_NSSA => "TCS.CSSA",
        tcs::OENTRY => "TCS.OENTRY",
        _ => "TCS.OFSBASE",
    };
    Condition::new(name, part, outcome, move |scenario: &mut Scenario| {
        scenario.machine.platform.page(EpcIndex(epc(TCS))).store(at, value);
    })
}

/// The state of the processor or of the SECS ends the entry with #GP(0).
fn state(name: &'static str, part: &'static str, change: fn(&mut Machine)) -> Condition<Scenario> {
    Condition::new(name, part, Err(GP), move |scenario: &mut Scenario| {
        change(&mut scenario.machine);
    })
}

/// The page tables lead RBX to another EPC page.
fn replaced(
    name: &'static str,
    page: u32,
    prepare: impl Fn(&mut Machine) + 'static,
) -> Condition<Scenario> {
    let fault = Err(epcm_fault(TCS, WU));
    Condition::new(name, "TCS page", fault, move |scenario: &mut Scenario| {
        prepare(&mut scenario.machine);
        map(&mut scenario.machine, TCS, page);
    })
}

/// From the alignment of the TCS to its EPCM entry.
fn operands() -> Vec<Condition<Scenario>> {
    let unresolved = [Unfit::Unmapped, Unfit::ReadOnly, Unfit::NotEpc].map(|unfit| {
        let fault = Err(unfit.fault(TCS, WU));
        Condition::new(format!("TCS {unfit:?}"), "TCS page", fault, move |scenario| {
            let scenario: &mut Scenario = scenario;
            unfit.make(&mut scenario.machine, TCS, epc(TCS));
        })
    });
    let mut conditions = vec![
        Condition::new("RBX not aligned", "RBX", Err(GP), |scenario: &mut Scenario| {
            scenario.rbx |= 8;
        }),
        Condition::new("RBX not canonical", "RBX", Err(GP), |scenario: &mut Scenario| {
            scenario.rbx = 1 << 47;
        }),
    ];
    conditions.extend(unresolved);
    conditions.push(Condition::new("AEP not canonical", "RCX", Err(GP), |scenario| {
        let scenario: &mut Scenario = scenario;
        scenario.rcx = 1 << 47;
    }));
    conditions.push(replaced("not VALID", UNUSED, |_| {}));
    conditions.push(replaced("BLOCKED", epc(TCS), |machine| {
        machine.status(leaf::EBLOCK, 0, Machine::window(epc(TCS)), 0);
    }));
    conditions.push(replaced("at another address", epc(TCS_2), |_| {}));
    conditions.push(replaced("PT_SECS", 0, |_| {}));
    conditions.push(replaced("PT_VA", VA, make_va));
    let regular = Err(epcm_fault(ONE, WU));
    let to_regular = |scenario: &mut Scenario| scenario.rbx = ONE | scenario.rbx & 0xfff;
    conditions.push(Condition::new("PT_REG", "RBX", regular, to_regular).and("TCS page"));
    conditions.push(replaced("PENDING", epc(TCS) + 40, |machine| {
        Unfit::Pending.make(machine, TCS, epc(TCS));
    }));
    conditions.push(replaced("MODIFIED", epc(TCS), |machine| {
        modify(machine, leaf::EMODT, epc(TCS), SecInfoFlags::empty(), PageType::Trim);
    }));
    conditions
}

/// From the first condition to the one on AEXNOTIFY, in 64-bit mode.
pub(super) fn common() -> Vec<Condition<Scenario>> {
    let mut conditions = operands();
    conditions.extend([
        field("OSSA not aligned", tcs::OSSA, 0x4008, Err(GP)),
        field("OFSBASE not aligned", tcs::OFSBASE, 8, Err(GP)),
        field("OGSBASE not aligned", tcs::OGSBASE, 0x800, Err(GP)),
        field("FLAGS bit 2", tcs::FLAGS, 4, Err(GP)),
        field("FLAGS bit 63", tcs::FLAGS, 1 << 63, Err(GP)),
        state("not initialized", "INIT", |machine| {
            let secs = machine.platform.page(EpcIndex(0));
            secs.store(SECS_FLAGS, secs.load(SECS_FLAGS) & !1);
        }),
        state("a 32-bit enclave in 64-bit mode", "MODE64BIT", |machine| {
            let secs = machine.platform.page(EpcIndex(0));
            secs.store(SECS_FLAGS, secs.load(SECS_FLAGS) & !4);
        }),
        state("CR4.OSFXSR clear", "CR4", |machine| machine.cpu.osfxsr = false),
        state("XFRM not 3 without XSAVE", "XFRM", |machine| {
            machine.cpu.osxsave = false;
            machine.platform.page(EpcIndex(0)).store(SECS_FLAGS + 8, 7);
        }),
        state("XFRM not within XCR0", "XFRM", |machine| machine.cpu.xcr0 = 1),
        field("AEXNOTIFY in the TCS alone", tcs::FLAGS, 2, Err(GP)),
        state("AEXNOTIFY in the SECS alone", "SECS.AEXNOTIFY", |machine| {
            let secs = machine.platform.page(EpcIndex(0));
            let notify = AttributeFlags::AEXNOTIFY.bits();
            secs.store(SECS_FLAGS, secs.load(SECS_FLAGS) | notify);
        }),
    ]);
    conditions
}

/// The pages of the SSA frame that begins at `frame`: the XSAVE area in its first page, the
/// GPRSGX region at the end of its second.
pub(super) fn frame(frame: u64) -> Vec<Condition<Scenario>> {
    let mut conditions = Vec::new();
    for (page, fault_at, part) in
        [(frame, frame, "XSAVE page"), (frame + 0x1000, frame + 0x2000 - 184, "GPRSGX page")]
    {
        for unfit in [
            Unfit::Unmapped,
            Unfit::ReadOnly,
            Unfit::NotEpc,
            Unfit::NotValid,
            Unfit::Blocked,
            Unfit::Pending,
            Unfit::Modified,
            Unfit::OtherAddress,
            Unfit::OtherEnclave,
            Unfit::NoRead,
            Unfit::NoWrite,
        ] {
            let fault = Err(unfit.fault(fault_at, WU));
            let name = format!("{part} {page:x} {unfit:?}");
            let spoil = move |scenario: &mut Scenario| {
                unfit.make(&mut scenario.machine, page, epc(page));
            };
            // The GPRSGX region is where TCS.OSSA says.
            conditions.push(Condition::new(name, part, fault, spoil).and("TCS.OSSA"));
        }
    }
    conditions
}

/// OSSA puts the frame, number `number` of two pages each, where its first page is not a regular one.
pub(super) fn frame_in_a_thread(number: u64) -> Condition<Scenario> {
    let at = TCS_2;
    let ossa = (at - TCS).wrapping_sub(number * 0x2000);
    field("the frame in a TCS", tcs::OSSA, ossa, Err(epcm_fault(at, WU))).and("XSAVE page")
}

/// The entry point is in a page that the enclave may not execute: no condition of an entry.
pub(super) const ENTRY: u64 = CODE + 0x10;
