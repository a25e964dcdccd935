//! What must be equal.

use super::case::{Case, RETIRED, State};
use super::variance::{Part, Trial};

/// CF, PF, AF, ZF, SF, OF.
pub(crate) const ARITHMETIC: u64 = 0x8d5;
/// TF, DF, NT, AC, ID: what user code can change besides the arithmetic flags.
const SYSTEM: u64 = 0x24_4500;

/// A difference, with the two values in words.
pub(crate) struct Difference {
    pub(crate) part: Part,
    pub(crate) text: String,
}

/// Differences between the native and the interpreted outcome of a case.
pub(crate) fn differences(trial: &Trial<'_>) -> Vec<Difference> {
    let mut out = Differences(Vec::new());
    let (native, soft) = trial.vectors();
    if native != soft {
        let text = format!("fault: native {:x?}, soft {:x?}", trial.native.fault, trial.soft.fault);
        out.0.push(Difference { part: Part::Vector, text });
        if native == RETIRED || soft == RETIRED {
            // Only one side did anything.
            return out.0;
        }
    } else {
        compare_faults(trial, &mut out);
    }
    compare_states(trial.native, trial.soft, &mut out);
    out.0
}

/// Differences between two outcomes of the same code.
pub(crate) fn outcomes_differ(one: &Case, other: &Case) -> Vec<Difference> {
    let mut out = Differences(Vec::new());
    if one.fault != other.fault {
        let text = format!("fault: native {:x?}, soft {:x?}", one.fault, other.fault);
        out.0.push(Difference { part: Part::Vector, text });
    }
    compare_states(one, other, &mut out);
    if one.code != other.code {
        let text = format!("code: native {:02x?}, soft {:02x?}", one.code, other.code);
        out.0.push(Difference { part: Part::Code, text });
    }
    out.0
}

fn compare_states(native: &Case, soft: &Case, out: &mut Differences) {
    compare_general(native, soft, out);
    compare_x87(&native.state, &soft.state, out);
    compare_vectors(&native.state, &soft.state, out);
    let (n, s) = (&native.state.data, &soft.state.data);
    if n != s {
        for (i, (a, b)) in n.iter().zip(s).enumerate() {
            out.check(Part::Byte(i), *a, *b);
        }
    }
}

struct Differences(Vec<Difference>);

impl Differences {
    fn check<T: PartialEq + std::fmt::LowerHex>(&mut self, part: Part, native: T, soft: T) {
        if native != soft {
            let text = format!("{part:x?}: native {native:#x}, soft {soft:#x}");
            self.0.push(Difference { part, text });
        }
    }

    fn check_bytes(&mut self, part: Part, native: &[u8], soft: &[u8]) {
        if native != soft {
            let text = format!("{part:x?}: native {native:02x?}, soft {soft:02x?}");
            self.0.push(Difference { part, text });
        }
    }

    fn check_bits(&mut self, part: fn(u64) -> Part, native: u64, soft: u64) {
        let differ = native ^ soft;
        for bit in (0..64).map(|n| 1 << n).filter(|bit| differ & bit != 0) {
            let part = part(bit);
            let text = format!("{part:x?}: native {native:#x}, soft {soft:#x}");
            self.0.push(Difference { part, text });
        }
    }
}

fn compare_faults(trial: &Trial<'_>, out: &mut Differences) {
    let (n, s) = (trial.native.fault, trial.soft.fault);
    // Linux tells a process that kernel addresses are present whatever is there.
    let hidden = u64::from(n.vector == 14 && n.address >= 0x7fff_ffff_f000);
    out.check(Part::ErrorCode, n.code | hidden, s.code | hidden);
    out.check(Part::Address, n.address, s.address);
}

fn compare_general(native: &Case, soft: &Case, out: &mut Differences) {
    let (n, s) = (&native.state, &soft.state);
    let mask = native.mode.register_mask();
    for i in 0..native.mode.registers() {
        out.check(Part::Gpr(i), n.gpr[i] & mask, s.gpr[i] & mask);
    }
    for i in 0..6 {
        out.check(Part::Selector(i), null(n.selectors[i]), null(s.selectors[i]));
    }
    out.check(Part::FsBase, n.fs_base, s.fs_base);
    out.check(Part::GsBase, n.gs_base, s.gs_base);
    out.check(Part::Rip, n.rip, s.rip);
    let flags = SYSTEM | ARITHMETIC;
    out.check_bits(Part::Flag, n.rflags & flags, s.rflags & flags);
}

/// A selector: the null ones are equal, since an interrupt in between makes them 0 (SDM Vol. 2A,
/// IRET).
fn null(selector: u16) -> u16 {
    if selector & !3 == 0 { 0 } else { selector }
}

fn compare_x87(native: &State, soft: &State, out: &mut Differences) {
    let (n, s) = (&native.fx, &soft.fx);
    out.check(Part::Control, n.control, s.control);
    out.check_bits(|bit| Part::Status(bit as u16), n.status.into(), s.status.into());
    out.check(Part::Tags, n.tags, s.tags);
    out.check(Part::Fop, n.fop, s.fop);
    out.check(Part::Fip, n.fip, s.fip);
    out.check(Part::Fdp, n.fdp, s.fdp);
    for (i, (a, b)) in n.st.iter().zip(&s.st).enumerate() {
        out.check_bytes(Part::St(i), &a[..10], &b[..10]);
    }
}

fn compare_vectors(native: &State, soft: &State, out: &mut Differences) {
    let (n, s) = (&native.fx, &soft.fx);
    out.check_bits(|bit| Part::Mxcsr(bit as u32), n.mxcsr.into(), s.mxcsr.into());
    for (i, (a, b)) in n.xmm.iter().zip(&s.xmm).enumerate() {
        out.check_bytes(Part::Xmm(i), a, b);
    }
    for (i, (a, b)) in native.high.iter().zip(&soft.high).enumerate() {
        out.check_bytes(Part::High(i), a, b);
    }
}
