//! Translation lookaside buffers (SDM Vol. 3A, 4.10).
//!
//! Three direct-mapped TLBs (read, write, execute) for each [`MmuMode`]. An entry's tag is the
//! page's linear address with, in the low 12 bits, the number of the *context* it was made in. A
//! context stands for a PCID; loading CR3 changes the current context, and dropping a context's
//! translations is giving it a new number. A hypervisor and its guests have contexts each of their own
//! ([`World`]). Entries of global pages outlive their context: the slow
//! path takes them over into the current one. The entry that another one replaced is kept beside it for
//! the slow path, which exchanges the two and saves a walk.
#![cfg_attr(
    not(test),
    expect(clippy::cast_possible_truncation, reason = "contexts and slots have less than 16 bits")
)]
#![expect(unsafe_code, reason = "an entry gives back the memory that it was filled with")]

use std::ptr::NonNull;

use super::PageBytes;
use super::enclave_code::EnclaveCode;
use super::table_cache::{PageTable, TableCache};
use super::world::{Paging, World, WorldKey};
use crate::phys::{CodeTrack, Tracker};

/// Entries in each TLB.
pub(crate) const ENTRIES: usize = 1024;
/// A context number that no entry carries: with it every access takes the slow path.
const NO_CONTEXT: u64 = 0;
/// The context number of empty entries, which is never current.
const EMPTY_CONTEXT: u64 = 0xfff;
const LAST_CONTEXT: u64 = 0xffe;
/// Worlds that are kept besides the current one.
const MOST_PARKED: usize = 16;
/// From how many entries on all those of enclaves are emptied together.
const ENCLAVE_SLOTS: usize = 256;

// A slot's number fits in 16 bits.
const _: () = assert!(ENTRIES * 12 <= 1 << 16);

/// Whose rights an access has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum MmuMode {
    /// Supervisor; with CR4.SMAP, no user pages.
    Supervisor = 0,
    /// User.
    User = 1,
    /// Supervisor with EFLAGS.AC set: SMAP does not apply to explicit accesses.
    SupervisorAc = 2,
    /// User inside an enclave.
    Enclave = 3,
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum AccessKind {
    /// Data read.
    Read = 0,
    /// Data write, or the read of a read-modify-write.
    Write = 1,
    /// Instruction fetch.
    Execute = 2,
}

/// One translation. 32 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Entry {
    /// Linear page address | context.
    pub(crate) tag: u64,
    /// Host address minus linear address, modulo 2^64.
    pub(crate) addend: u64,
    /// The page's code tracking; [`NOWHERE`] in an empty entry.
    pub(crate) track: Tracker,
    /// The physical page, with the global epoch (1 to FFFH) of a global translation, else 0, in
    /// the low 12 bits.
    page: u64,
}

const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    /// Identity of the physical page: guest-physical page address, or for EPC the index and
    /// [`PHYS_EPC`](super::translate::PHYS_EPC).
    #[inline(always)]
    #[must_use]
    pub(crate) fn phys(&self) -> u64 {
        self.page & !0xfff
    }

    fn global(&self) -> u64 {
        self.page & 0xfff
    }
}

/// Stands for the code tracking of a page that is not there.
static NOWHERE: CodeTrack = CodeTrack::new();

const EMPTY: Entry = Entry { tag: EMPTY_CONTEXT, addend: 0, track: Tracker::of(&NOWHERE), page: 0 };

/// All TLBs of a processor.
#[derive(Debug)]
pub(crate) struct Tlb {
    entries: Box<[Entry; ENTRIES * 12]>,
    /// What was last replaced in each slot: a second way, looked at where more has to be done anyway.
    replaced: Box<[Entry; ENTRIES * 12]>,
    /// Page tables that walks found.
    tables: TableCache,
    /// Number of the current context, or [`NO_CONTEXT`] while every access must take the slow path.
    context: u64,
    /// Entries made inside an enclave since the last flush of those: all, if there are fewer than
    /// [`ENCLAVE_SLOTS`]. An enclave that is left soon, as by an interrupt, made only a few.
    enclave_slots: Vec<u16>,
    /// What the entries of the current context belong to.
    world: World,
    /// Translations of enclave code.
    enclave: EnclaveCode,
    /// Other worlds, the one that was left last at the end.
    parked: Vec<World>,
    next_context: u64,
    last_global_epoch: u64,
    /// Numbers for [`World::code_epoch`] and [`World::code_flushes`].
    last_change: u64,
    /// Stands for the translations in force, as far as code was found through them: lookups of
    /// decoded code by linear address depend on it. Below 2^48.
    pub(crate) epoch: u64,
    slow_only: bool,
}

impl Default for Tlb {
    fn default() -> Self {
        let mut tlb = Self {
            entries: empty_entries(),
            replaced: empty_entries(),
            tables: TableCache::default(),
            context: NO_CONTEXT,
            enclave_slots: Vec::with_capacity(ENCLAVE_SLOTS),
            world: World::new(WorldKey::default()),
            enclave: EnclaveCode::default(),
            parked: Vec::new(),
            next_context: 1,
            last_global_epoch: 0,
            last_change: 0,
            epoch: 0,
            slow_only: false,
        };
        tlb.flush_all();
        tlb
    }
}

fn empty_entries() -> Box<[Entry; ENTRIES * 12]> {
    match vec![EMPTY; ENTRIES * 12].into_boxed_slice().try_into() {
        Ok(entries) => entries,
        Err(_) => unreachable!("the length is the array's"),
    }
}

impl Tlb {
    /// Where a TLB has the number of the current context, for translated code.
    pub(crate) const CONTEXT: usize = std::mem::offset_of!(Self, context);

    #[inline(always)]
    fn slot(kind: AccessKind, mode: MmuMode, la: u64) -> usize {
        ((mode as usize * 3 + kind as usize) * ENTRIES) | ((la >> 12) as usize & (ENTRIES - 1))
    }

    /// The entry that would translate `la`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn entry(&self, kind: AccessKind, mode: MmuMode, la: u64) -> &Entry {
        &self.entries[Self::slot(kind, mode, la)]
    }

    /// Whether `entry` translates `la` in the current context.
    #[inline(always)]
    #[must_use]
    pub(crate) fn hits(&self, entry: &Entry, la: u64) -> bool {
        entry.tag == ((la & !0xfff) | self.context)
    }

    /// Where the byte at `la` can be read without further checks.
    #[inline(always)]
    #[must_use]
    pub(crate) fn readable(&self, mode: MmuMode, la: u64) -> Option<PageBytes> {
        let entry = self.entry(AccessKind::Read, mode, la);
        if self.hits(entry, la) { Self::bytes(entry, la) } else { None }
    }

    /// Where the byte at `la` can be written without further checks: its page holds no code.
    #[inline(always)]
    #[must_use]
    pub(crate) fn writable(&self, mode: MmuMode, la: u64) -> Option<PageBytes> {
        let entry = self.entry(AccessKind::Write, mode, la);
        if self.hits(entry, la) && !entry.track.holds_code() {
            Self::bytes(entry, la)
        } else {
            None
        }
    }

    /// The memory at `la` by an entry that translates it.
    #[inline(always)]
    fn bytes(entry: &Entry, la: u64) -> Option<PageBytes> {
        let host = NonNull::new(entry.addend.wrapping_add(la) as *mut u8)?;
        // SAFETY: only `fill` makes entries that translate anything, of a page's `PageBytes`, which
        // the one that gave them promised to be valid while they are used.
        Some(unsafe { PageBytes::new(host, entry.track) })
    }

    /// The memory at `la` and the identity of its page ([`Entry::phys`]), also where accesses must
    /// take the slow path, and also by the entry of a global page that was made in another context.
    pub(crate) fn find(
        &mut self,
        kind: AccessKind,
        mode: MmuMode,
        la: u64,
    ) -> Option<(PageBytes, u64)> {
        let page = la & !0xfff;
        let (context, epoch) = (self.world.context, self.world.global_epoch);
        let translates = |entry: &mut Entry| {
            if entry.tag & !0xfff == page && entry.global() == epoch {
                entry.tag = page | context;
            }
            entry.tag == page | context
        };
        let slot = Self::slot(kind, mode, la);
        if !translates(&mut self.entries[slot]) {
            if !translates(&mut self.replaced[slot]) {
                return None;
            }
            std::mem::swap(&mut self.entries[slot], &mut self.replaced[slot]);
        }
        let entry = &self.entries[slot];
        Some((Self::bytes(entry, la)?, entry.phys()))
    }

    /// Enters a translation of `la` to `bytes`, of a page whose identity is `phys` (see
    /// [`Entry::phys`]).
    #[expect(clippy::too_many_arguments, reason = "the fields of one entry")]
    pub(crate) fn fill(
        &mut self,
        kind: AccessKind,
        mode: MmuMode,
        la: u64,
        bytes: PageBytes,
        phys: u64,
        global: bool,
        page_size: u64,
    ) {
        let page = la & !0xfff;
        if page_size > 4096 {
            self.world.large.insert(la >> 21);
            if page_size > 1 << 21 {
                self.world.huge.insert(la >> 30);
            }
        }
        let slot = Self::slot(kind, mode, la);
        if mode == MmuMode::Enclave && self.enclave_slots.len() < ENCLAVE_SLOTS {
            self.enclave_slots.push(slot as u16);
        }
        let entry = Entry {
            tag: page | self.world.context,
            // Of the page's first byte: an access to the page stays in it whatever `bytes` began
            // at.
            addend: (bytes.host().as_ptr() as u64 & !0xfff).wrapping_sub(page),
            track: bytes.track(),
            page: phys
                | if global && mode != MmuMode::Enclave { self.world.global_epoch } else { 0 },
        };
        let old = std::mem::replace(&mut self.entries[slot], entry);
        if old.tag & !0xfff != page {
            self.replaced[slot] = old;
        }
    }

    /// Makes every access take the slow path (data breakpoints, alignment checks), or ends that.
    pub(crate) fn set_slow_only(&mut self, on: bool) {
        self.slow_only = on;
        self.context = if on { NO_CONTEXT } else { self.world.context };
    }

    /// Whether every access takes the slow path.
    #[must_use]
    pub(crate) fn is_slow_only(&self) -> bool {
        self.slow_only
    }

    fn empty(&mut self) {
        self.entries.fill(EMPTY);
        self.replaced.fill(EMPTY);
        self.tables.clear();
    }

    /// The page table that maps `la`, if a walk has found it (SDM Vol. 3A, 4.10.3).
    pub(super) fn find_table(&mut self, la: u64) -> Option<PageTable> {
        self.tables.find(la, self.world.context)
    }

    /// Enters the page table that maps `la`.
    pub(super) fn fill_table(&mut self, la: u64, table: PageTable) {
        self.tables.fill(la, self.world.context, table);
    }

    /// Drops what is known of the page table that maps `la`.
    pub(super) fn drop_table(&mut self, la: u64) {
        self.tables.drop_one(la);
    }

    /// A number for code that may be found through other translations from now on.
    fn new_change(&mut self) -> u64 {
        self.last_change = (self.last_change + 1) & 0xf_ffff_ffff;
        self.last_change
    }

    fn new_context(&mut self) -> u64 {
        if self.next_context > LAST_CONTEXT {
            self.empty();
            self.parked.clear();
            self.world.contexts.fill(0);
            self.next_context = 1;
            self.world.large.clear();
            self.world.huge.clear();
            // Numbers come again: what was found under them before must not.
            self.world.code_flushes = self.new_change();
            self.enclave.forget(self.last_change);
        }
        let context = self.next_context;
        self.next_context += 1;
        context
    }

    fn enter(&mut self, context: u64) {
        self.world.contexts[usize::from(self.world.pcid)] = context as u16;
        self.world.context = context;
        self.context = if self.slow_only { NO_CONTEXT } else { context };
        self.set_epoch();
    }

    /// [`World::code_epoch`].
    #[inline(always)]
    pub(crate) fn code_epoch(&self) -> u64 {
        self.world.code_epoch
    }

    fn set_epoch(&mut self) {
        let flushes = self.enclave.flushes_inside().unwrap_or(self.world.code_flushes);
        self.epoch = flushes << 12 | self.world.context;
    }

    /// Remembers that code was found through the translation of `la` to the page whose identity is
    /// `phys`.
    pub(crate) fn note_code(&mut self, la: u64, phys: u64) {
        self.world.code_pages.insert(la >> 12);
        self.enclave.note(la & !0xfff, phys);
    }

    /// Makes `pcid` (0 to 4095) current, keeping its translations. For MOV to CR3 with bit 63 set.
    pub(crate) fn switch_to(&mut self, pcid: u16) {
        self.world.pcid = pcid & 0xfff;
        let mut context = u64::from(self.world.contexts[usize::from(self.world.pcid)]);
        if context == 0 {
            context = self.new_context();
        }
        self.enter(context);
    }

    /// Makes `pcid` current and drops its non-global translations: MOV to CR3.
    pub(crate) fn switch_to_flushed(&mut self, pcid: u16) {
        self.world.pcid = pcid & 0xfff;
        let context = self.new_context();
        self.enter(context);
    }

    /// Drops the non-global translations of `pcid`: INVPCID type 1.
    pub(crate) fn flush_pcid(&mut self, pcid: u16) {
        if pcid == self.world.pcid {
            self.switch_to_flushed(pcid);
        } else {
            self.world.contexts[usize::from(pcid & 0xfff)] = 0;
        }
    }

    /// Drops the non-global translations of all PCIDs: INVPCID type 3.
    pub(crate) fn flush_non_global(&mut self) {
        self.world.contexts.fill(0);
        self.switch_to_flushed(self.world.pcid);
    }

    /// Drops everything of the current world: INVPCID type 2, changes of CR0, CR4 and EFER.
    pub(crate) fn flush_all(&mut self) {
        self.last_global_epoch += 1;
        if self.last_global_epoch > 0xfff {
            self.empty();
            self.parked.clear();
            self.last_global_epoch = 1;
        }
        self.world.global_epoch = self.last_global_epoch;
        self.world.code_epoch = self.new_change();
        self.world.code_flushes = self.new_change();
        self.world.code_pages.clear();
        self.world.large.clear();
        self.world.huge.clear();
        self.flush_non_global();
    }

    /// Drops everything of all worlds: the physical map, A20.
    pub(crate) fn flush_worlds(&mut self) {
        self.parked.clear();
        self.flush_all();
    }

    /// Goes from one world, whose translations were made under `left`, to another, whose are made under
    /// `entered`: VM entry and VM exit.
    pub(crate) fn change_world(&mut self, key: WorldKey, left: Paging, entered: Paging) {
        self.world.paging = Some(left);
        // A VM entry that fails goes from a world to itself.
        if key != self.world.key {
            let parked = self.parked.iter().position(|world| world.key == key);
            let next = parked.map_or_else(|| World::new(key), |n| self.parked.remove(n));
            if self.parked.len() == MOST_PARKED {
                self.parked.remove(0);
            }
            self.parked.push(std::mem::replace(&mut self.world, next));
        }
        match self.world.paging {
            Some(paging) if paging == entered => self.enter(self.world.context),
            Some(paging) if (Paging { cr3: entered.cr3, ..paging }) == entered => {
                self.switch_to_flushed(entered.pcid());
            }
            _ => {
                self.flush_all();
                self.switch_to_flushed(entered.pcid());
            }
        }
    }

    /// Drops the worlds that `which` names: INVEPT and INVVPID.
    pub(crate) fn drop_worlds(&mut self, which: impl Fn(WorldKey) -> bool) {
        self.parked.retain(|world| !which(world.key));
    }

    /// Drops the translations of the page at `la`, global ones too, of the current PCID (and, as
    /// the SDM allows, of others): INVLPG, INVPCID type 0.
    pub(crate) fn flush_page(&mut self, la: u64) {
        if self.world.large.contains(la >> 21) || self.world.huge.contains(la >> 30) {
            // Part of a large page may lie in any slot.
            self.flush_all();
            return;
        }
        self.drop_page(la);
    }

    /// Drops what translates `la`, nothing else that its page may be part of, and all page tables.
    pub(crate) fn drop_page(&mut self, la: u64) {
        self.tables.clear();
        let page = la & !0xfff;
        let slot = (la >> 12) as usize & (ENTRIES - 1);
        let tables = self.entries.chunks_exact_mut(ENTRIES);
        for table in tables.chain(self.replaced.chunks_exact_mut(ENTRIES)) {
            if table[slot].tag & !0xfff == page {
                table[slot] = EMPTY;
            }
        }
        if self.world.code_pages.contains(la >> 12) {
            self.world.code_flushes = self.new_change();
            self.enclave.forget(self.last_change);
            self.set_epoch();
            if la >> 63 != 0 {
                self.world.code_epoch = self.new_change();
            }
        }
    }

    /// Whether code at `la`, just fetched with the rights of `mode`, lies in a global page of the
    /// upper half.
    #[must_use]
    pub(crate) fn is_global_code(&self, la: u64, mode: MmuMode) -> bool {
        la >> 63 != 0
            && self.entry(AccessKind::Execute, mode, la).global() == self.world.global_epoch
    }

    /// Enclave code that was found when the processor was last inside.
    pub(crate) fn enclave_code(&self) -> &EnclaveCode {
        &self.enclave
    }

    /// Drops all translations made inside an enclave: enclave entry. Where `code_stays`, lookups of
    /// the code in [`Tlb::enclave_code`] are kept.
    pub(crate) fn enter_enclave(&mut self, code_stays: bool) {
        self.drop_enclave_entries();
        if !code_stays {
            let change = self.new_change();
            self.enclave.forget(change);
        }
        self.enclave.set_inside(true);
        self.set_epoch();
    }

    /// Drops all translations made inside an enclave: enclave exit.
    pub(crate) fn leave_enclave(&mut self) {
        self.drop_enclave_entries();
        self.enclave.set_inside(false);
        self.set_epoch();
    }

    fn drop_enclave_entries(&mut self) {
        if self.enclave_slots.len() < ENCLAVE_SLOTS {
            for &slot in &self.enclave_slots {
                self.entries[usize::from(slot)] = EMPTY;
                self.replaced[usize::from(slot)] = EMPTY;
            }
        } else {
            let first = MmuMode::Enclave as usize * 3 * ENTRIES;
            self.entries[first..].fill(EMPTY);
            self.replaced[first..].fill(EMPTY);
        }
        self.enclave_slots.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(tlb: &mut Tlb, mode: MmuMode, la: u64) {
        // SAFETY: nothing reads or writes what this test translates to.
        let bytes = unsafe { PageBytes::new(NonNull::dangling(), Tracker::of(&NOWHERE)) };
        tlb.fill(AccessKind::Read, mode, la, bytes, la, false, 4096);
    }

    fn holds(tlb: &Tlb, mode: MmuMode, la: u64) -> bool {
        tlb.entry(AccessKind::Read, mode, la).tag == la | tlb.context
    }

    #[test]
    fn of_two_pages_in_one_slot_both_are_found_until_they_are_dropped() {
        let (one, other) = (0x1000, 0x1000 + ((ENTRIES as u64) << 12));
        let mut tlb = Tlb::default();
        fill(&mut tlb, MmuMode::User, one);
        fill(&mut tlb, MmuMode::User, other);
        // Not at the page's first byte, which `fill` has put at a null pointer.
        let finds = |tlb: &mut Tlb| {
            [one, other].map(|la| tlb.find(AccessKind::Read, MmuMode::User, la + 8).is_some())
        };

        assert_eq!(finds(&mut tlb), [true, true]);
        assert_eq!(finds(&mut tlb), [true, true]);
        tlb.flush_page(one);
        assert_eq!(finds(&mut tlb), [false, true]);
        fill(&mut tlb, MmuMode::User, one);
        tlb.flush_non_global();
        assert_eq!(finds(&mut tlb), [false, false]);
    }

    #[test]
    fn leaving_an_enclave_drops_what_it_translated_and_nothing_else() {
        let mut tlb = Tlb::default();
        for pages in [1, 2, ENCLAVE_SLOTS - 1, ENCLAVE_SLOTS, ENCLAVE_SLOTS + 1, ENTRIES, 1] {
            let pages = || (0..pages as u64).map(|page| (page + 1) << 12);
            fill(&mut tlb, MmuMode::User, 0x1000);
            pages().for_each(|la| fill(&mut tlb, MmuMode::Enclave, la));
            assert!(pages().all(|la| holds(&tlb, MmuMode::Enclave, la)));

            tlb.leave_enclave();

            assert!(!pages().any(|la| holds(&tlb, MmuMode::Enclave, la)));
            assert!(holds(&tlb, MmuMode::User, 0x1000));
        }
    }

    #[test]
    fn worlds_keep_their_translations_and_have_none_in_common() {
        use cloister_x86::regs::{Cr0, Cr4, Efer};
        let paging =
            |cr3| Paging { cr0: Cr0::PG, cr3, cr4: Cr4::PAE, efer: Efer::LMA, pdptes: [0; 4] };
        let key = |vpid| WorldKey { vpid, eptp: 0x1000 };
        let [host, guest] = [WorldKey::default(), key(1)];
        let mut tlb = Tlb::default();
        let finds = |tlb: &mut Tlb| tlb.find(AccessKind::Read, MmuMode::User, 0x1008).is_some();
        fill(&mut tlb, MmuMode::User, 0x1000);
        let code = (tlb.epoch, tlb.code_epoch());

        tlb.change_world(guest, paging(1), paging(2));
        assert!(!finds(&mut tlb));
        assert_ne!(tlb.epoch, code.0);
        assert_ne!(tlb.code_epoch(), code.1);
        tlb.change_world(host, paging(2), paging(1));
        assert!(finds(&mut tlb));
        assert_eq!((tlb.epoch, tlb.code_epoch()), code);

        // Not where the hypervisor's registers have changed.
        tlb.change_world(guest, paging(1), paging(2));
        tlb.change_world(host, paging(2), paging(3));
        assert!(!finds(&mut tlb));

        // The one that was not used for the longest gives way.
        fill(&mut tlb, MmuMode::User, 0x1000);
        for vpid in 1..=MOST_PARKED as u16 + 1 {
            tlb.change_world(key(vpid), paging(3), paging(3));
        }
        tlb.change_world(host, paging(3), paging(3));
        assert!(!finds(&mut tlb));
        assert_eq!(tlb.parked.len(), MOST_PARKED);
        tlb.drop_worlds(|key| key.vpid != 0);
        assert!(tlb.parked.is_empty());
    }
}
