//! Guest segments in a VMCS, and their checks (SDM Vol. 3C, 26.3.1.2).

use cloister_x86::addr::is_canonical;
use cloister_x86::segment::seg;
use cloister_x86::vmcs::Field;
use cloister_x86::{Rights, Segment};

use super::region::Region;

/// Numbers of segment registers in the order that a VMCS has them in.
const ORDER: [usize; 8] =
    [seg::ES, seg::CS, seg::SS, seg::DS, seg::FS, seg::GS, seg::LDTR, seg::TR];
/// Bits of access rights that are reserved.
const RESERVED: u32 = 0xfffe_0f00;

/// Reads the guest's segment registers.
pub(super) fn read(vmcs: Region<'_>) -> [Segment; 8] {
    let mut segments = [Segment::default(); 8];
    for (n, number) in (0..).zip(ORDER) {
        segments[number] = Segment {
            selector: vmcs.read(Field::GUEST_ES_SELECTOR.plus(n)) as u16,
            base: vmcs.read(Field::GUEST_ES_BASE.plus(n)),
            limit: vmcs.read_32(Field::GUEST_ES_LIMIT.plus(n)),
            rights: Rights(vmcs.read_32(Field::GUEST_ES_RIGHTS.plus(n))),
        };
    }
    segments
}

/// Saves them.
pub(super) fn save(vmcs: Region<'_>, segments: &[Segment; 8]) {
    for (n, number) in (0..).zip(ORDER) {
        let segment = segments[number];
        vmcs.write(Field::GUEST_ES_SELECTOR.plus(n), segment.selector.into());
        vmcs.write(Field::GUEST_ES_BASE.plus(n), segment.base);
        vmcs.write(Field::GUEST_ES_LIMIT.plus(n), segment.limit.into());
        vmcs.write(Field::GUEST_ES_RIGHTS.plus(n), segment.rights.0.into());
    }
}

/// What the checks of segments depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// EFLAGS.VM.
    pub(super) virtual_8086: bool,
    /// CR0.PE.
    pub(super) protected: bool,
    /// The IA-32e-mode-guest control.
    pub(super) ia32e: bool,
    /// The unrestricted-guest control.
    pub(super) unrestricted: bool,
}

/// Whether VM entry takes the segments.
pub(super) fn are_valid(segments: &[Segment; 8], setting: Setting) -> bool {
    selectors_valid(segments, setting)
        && bases_valid(segments, setting)
        && (if setting.virtual_8086 {
            virtual_8086_valid(segments)
        } else {
            code_valid(segments, setting)
                && stack_valid(segments, setting)
                && [seg::DS, seg::ES, seg::FS, seg::GS]
                    .iter()
                    .all(|&n| data_valid(&segments[n], setting))
        })
        && task_valid(&segments[seg::TR], setting)
        && local_table_valid(&segments[seg::LDTR])
}

fn selectors_valid(segments: &[Segment; 8], setting: Setting) -> bool {
    let [cs, ss] = [segments[seg::CS].selector, segments[seg::SS].selector];
    let ldtr = &segments[seg::LDTR];
    segments[seg::TR].selector & 4 == 0
        && (ldtr.rights.unusable() || ldtr.selector & 4 == 0)
        && (setting.virtual_8086 || setting.unrestricted || cs & 3 == ss & 3)
}

fn bases_valid(segments: &[Segment; 8], setting: Setting) -> bool {
    let real = |segment: &Segment| segment.base == u64::from(segment.selector) << 4;
    let low = |n: usize| segments[n].rights.unusable() || segments[n].base >> 32 == 0;
    let ldtr = &segments[seg::LDTR];
    (!setting.virtual_8086 || segments[..6].iter().all(real))
        && [seg::TR, seg::FS, seg::GS].iter().all(|&n| is_canonical(segments[n].base))
        && (ldtr.rights.unusable() || is_canonical(ldtr.base))
        && segments[seg::CS].base >> 32 == 0
        && [seg::SS, seg::DS, seg::ES].into_iter().all(low)
}

fn virtual_8086_valid(segments: &[Segment; 8]) -> bool {
    segments[..6].iter().all(|segment| segment.limit == 0xffff && segment.rights.0 == 0xf3)
}

/// P, the reserved bits, and G against the limit.
fn common_valid(segment: &Segment) -> bool {
    let Segment { limit, rights, .. } = *segment;
    rights.present()
        && rights.0 & RESERVED == 0
        && (limit & 0xfff == 0xfff || !rights.granular())
        && (limit >> 20 == 0 || rights.granular())
}

fn code_valid(segments: &[Segment; 8], setting: Setting) -> bool {
    let rights = segments[seg::CS].rights;
    let stack = segments[seg::SS].rights.dpl();
    let privilege = match rights.kind() {
        // Data: real-address mode, or on the way to it.
        3 => setting.unrestricted && rights.dpl() == 0,
        9 | 11 => rights.dpl() == stack,
        13 | 15 => rights.dpl() <= stack,
        _ => false,
    };
    privilege
        && rights.is_code_or_data()
        && !rights.unusable()
        && !(setting.ia32e && rights.long() && rights.big())
        && common_valid(&segments[seg::CS])
}

fn stack_valid(segments: &[Segment; 8], setting: Setting) -> bool {
    let ss = &segments[seg::SS];
    let dpl = ss.rights.dpl();
    let ring_0 = segments[seg::CS].rights.kind() == 3 || !setting.protected;
    (setting.unrestricted || u16::from(dpl) == ss.selector & 3)
        && (!ring_0 || dpl == 0)
        && (ss.rights.unusable()
            || (matches!(ss.rights.kind(), 3 | 7)
                && ss.rights.is_code_or_data()
                && common_valid(ss)))
}

fn data_valid(segment: &Segment, setting: Setting) -> bool {
    let rights = segment.rights;
    let accessed = rights.kind() & 1 != 0 && (!rights.is_code() || rights.bit_rw());
    let conforming = rights.kind() >= 12;
    rights.unusable()
        || (accessed
            && rights.is_code_or_data()
            && (setting.unrestricted
                || conforming
                || u16::from(rights.dpl()) >= segment.selector & 3)
            && common_valid(segment))
}

fn task_valid(segment: &Segment, setting: Setting) -> bool {
    let rights = segment.rights;
    (rights.kind() == 11 || (rights.kind() == 3 && !setting.ia32e))
        && !rights.is_code_or_data()
        && !rights.unusable()
        && common_valid(segment)
}

fn local_table_valid(segment: &Segment) -> bool {
    let rights = segment.rights;
    rights.unusable() || (rights.kind() == 2 && !rights.is_code_or_data() && common_valid(segment))
}
