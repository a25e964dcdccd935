//! The local descriptor table of 16-bit and 32-bit cases, which both sides load.

use super::case::{CODE, DATA};

/// Numbers of the segment registers, in encoding order.
pub(crate) const ES: usize = 0;
pub(crate) const CS: usize = 1;
pub(crate) const SS: usize = 2;
pub(crate) const DS: usize = 3;
pub(crate) const FS: usize = 4;
pub(crate) const GS: usize = 5;

/// What `modify_ldt` can say of a segment. They all have a privilege level of 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) base: u64,
    pub(crate) limit: u32,
    /// G: the limit counts pages.
    pub(crate) pages: bool,
    /// D or B.
    pub(crate) wide: bool,
    pub(crate) kind: Kind,
    pub(crate) present: bool,
}

/// Types of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Data,
    ReadOnly,
    ExpandDown,
    Code,
    /// Code that cannot be read.
    ExecuteOnly,
}

/// Scratch memory begins at this offset of the segments that do not begin at 0.
pub(crate) const DATA_OFFSET: u64 = 0x8000;
const WINDOW: u64 = DATA - DATA_OFFSET;
const CODE_PAGE: u64 = CODE & !0xfff;

const fn entry(kind: Kind, wide: bool, base: u64, limit: u32) -> Entry {
    Entry { base, limit, pages: false, wide, kind, present: true }
}

const fn flat(kind: Kind) -> Entry {
    Entry { base: 0, limit: 0xf_ffff, pages: true, wide: true, kind, present: true }
}

const fn absent(entry: Entry) -> Entry {
    Entry { present: false, ..entry }
}

/// The table.
pub(crate) const TABLE: [Entry; 15] = [
    flat(Kind::Code),
    entry(Kind::Code, true, CODE_PAGE, 0x85f),
    flat(Kind::ExecuteOnly),
    entry(Kind::Code, false, CODE_PAGE, 0xffff),
    entry(Kind::Code, false, CODE_PAGE, 0x85f),
    entry(Kind::ExecuteOnly, false, CODE_PAGE, 0xffff),
    flat(Kind::Data),
    entry(Kind::Data, false, WINDOW, 0xffff),
    entry(Kind::Data, true, WINDOW, 0x9fff),
    entry(Kind::Data, false, WINDOW, 0x9dff),
    entry(Kind::ExpandDown, false, WINDOW, 0x8200),
    entry(Kind::ExpandDown, true, WINDOW, 0x8200),
    entry(Kind::ReadOnly, false, WINDOW, 0xffff),
    entry(Kind::ReadOnly, true, WINDOW, 0x9fff),
    absent(entry(Kind::Data, true, WINDOW, 0xffff)),
];

/// Selector of an entry, with a requestor privilege level of 3.
pub(crate) const fn selector(index: usize) -> u16 {
    (index << 3 | 7) as u16
}

const fn selectors<const N: usize>(indices: [usize; N]) -> [u16; N] {
    let mut out = [0; N];
    let mut n = 0;
    while n < N {
        out[n] = selector(indices[n]);
        n += 1;
    }
    out
}

/// Code segments of 32-bit cases, the common one more often.
pub(crate) const CODE_32: [u16; 5] = selectors([0, 0, 0, 1, 2]);
/// Code segments of 16-bit cases.
pub(crate) const CODE_16: [u16; 5] = selectors([3, 3, 3, 4, 5]);
/// Data segments of 32-bit cases.
pub(crate) const DATA_32: [u16; 12] = selectors([6, 6, 6, 6, 6, 8, 8, 7, 9, 11, 10, 13]);
/// Data segments of 16-bit cases.
pub(crate) const DATA_16: [u16; 12] = selectors([7, 7, 7, 7, 7, 9, 9, 8, 10, 11, 12, 6]);
/// Stack segments of 32-bit cases.
pub(crate) const STACK_32: [u16; 8] = selectors([6, 6, 6, 6, 8, 7, 11, 10]);
/// Stack segments of 16-bit cases.
pub(crate) const STACK_16: [u16; 8] = selectors([7, 7, 7, 7, 9, 8, 10, 11]);
/// Flat data of Linux's own table.
pub(crate) const USER_DS: u16 = 0x2b;

/// The segment of a selector that a case may hold; `None` for a null one.
pub(crate) fn find(selector: u16) -> Option<Entry> {
    match selector {
        USER_DS => Some(flat(Kind::Data)),
        _ if selector & 4 != 0 => TABLE.get(usize::from(selector >> 3)).copied(),
        _ => None,
    }
}

impl Entry {
    /// The descriptor as Linux writes it, which sets the accessed bit itself.
    pub(crate) fn descriptor(self) -> u64 {
        let kind: u64 = match self.kind {
            Kind::Data => 3,
            Kind::ReadOnly => 1,
            Kind::ExpandDown => 7,
            Kind::Code => 0xb,
            Kind::ExecuteOnly => 9,
        };
        let limit = u64::from(self.limit);
        limit & 0xffff
            | (self.base & 0xff_ffff) << 16
            | (kind | 0x70 | u64::from(self.present) << 7) << 40
            | (limit >> 16) << 48
            | u64::from(self.wide) << 54
            | u64::from(self.pages) << 55
            | (self.base >> 24) << 56
    }

    /// The last byte below the limit.
    pub(crate) fn last(self) -> u32 {
        if self.pages { self.limit << 12 | 0xfff } else { self.limit }
    }

    /// The flags of `struct user_desc`: seg_32bit, contents, read_exec_only, limit_in_pages and
    /// seg_not_present, from bit 0.
    pub(crate) fn user_desc_flags(self) -> u32 {
        let contents = match self.kind {
            Kind::Data | Kind::ReadOnly => 0,
            Kind::ExpandDown => 1,
            Kind::Code | Kind::ExecuteOnly => 2,
        };
        let restricted = matches!(self.kind, Kind::ReadOnly | Kind::ExecuteOnly);
        u32::from(self.wide)
            | contents << 1
            | u32::from(restricted) << 3
            | u32::from(self.pages) << 4
            | u32::from(!self.present) << 5
    }
}
