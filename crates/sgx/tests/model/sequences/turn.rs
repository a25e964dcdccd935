//! One processor's turn: its choice of pages and operands, and what a hostile one does to them.

use cloister_sgx::layout::{PageInfo, SecInfo};
use cloister_sgx::{EncluOutcome, EpcIndex, EpcmFlags, EpcmView, LeafOutcome, PageType, Stop};
use cloister_x86::Gpa;

use crate::choices::Choices;
use crate::enclave::{BASE, PAGEINFO, SECINFO, SIGSTRUCT, SOURCE, TOKEN};
use crate::machine::{Machine, Mapping};

use super::world::{EPC, Shared};

/// A processor that is to execute a leaf.
pub(crate) struct Turn<'a, 'c> {
    pub(crate) machine: &'a mut Machine,
    pub(crate) shared: &'a Shared,
    pub(crate) choices: &'a mut Choices<'c>,
    /// Whether the operands are spoiled before the leaf is executed.
    pub(crate) hostile: bool,
}

/// What a hostile turn must put back after its leaf.
enum Undo {
    Nothing,
    Mapping(u64, Option<Mapping>),
    Mode,
    Event,
    Virtualization,
    Hash([u8; 32]),
}

impl Turn<'_, '_> {
    /// A page whose EPCM entry satisfies `wanted`; any page if there is none.
    pub(crate) fn page(&mut self, wanted: impl Fn(u32, &EpcmView) -> bool) -> u32 {
        let pages = self.shared.pages(wanted);
        match self.choices.of(&pages) {
            Some(page) => page,
            None => self.choices.below(EPC as usize) as u32,
        }
    }

    /// A page that is not in use; any page if there is none.
    pub(crate) fn unused(&mut self) -> u32 {
        self.page(|_, view| !view.valid())
    }

    /// An SECS whose enclave was initialized or not.
    pub(crate) fn secs(&mut self, initialized: bool) -> u32 {
        let shared = self.shared;
        self.page(|page, view| view.is(PageType::Secs) && shared.initialized(page) == initialized)
    }

    /// An address that no leaf expects.
    fn address(&mut self) -> u64 {
        let page = self.choices.below(EPC as usize + 2) as u32;
        let place = self.choices.below(16) as u64 * 4096;
        match self.choices.below(8) {
            0 => 0,
            1 => 0x8000_0000_0000_0000,
            2 => 0x7fff_ffff_f000,
            3 => self.choices.word(),
            4 => BASE + place,
            5 => [PAGEINFO, SECINFO, SOURCE, SIGSTRUCT, TOKEN][self.choices.below(5)],
            _ => Machine::window(page),
        }
    }

    /// Spoils operands, what they point to, or what the processor makes of them.
    fn spoil(&mut self, operands: &mut [u64; 3]) -> Undo {
        let which = self.choices.below(3);
        match self.choices.below(10) {
            0 => operands[which] = self.address(),
            1 => operands[which] ^= 1 << self.choices.below(64),
            2 => operands[which] = operands[which].wrapping_add(self.choices.below(4096) as u64),
            3 => {
                let (start, size) = [(PAGEINFO, 32), (SECINFO, 64), (SOURCE, 4096)][which];
                let mut bytes = self.machine.memory.get(start, size);
                self.choices.spoil(&mut bytes);
                self.machine.memory.put(start, &bytes);
            }
            4 => {
                // Another address in PAGEINFO.
                let address = self.address();
                let field = PAGEINFO + self.choices.below(4) as u64 * 8;
                self.machine.memory.put(field, &address.to_le_bytes());
            }
            5 => {
                self.machine.memory.mode64 = false;
                return Undo::Mode;
            }
            6 => {
                self.machine.memory.event = true;
                return Undo::Event;
            }
            7 => {
                self.machine.memory.epc_virtualization = true;
                return Undo::Virtualization;
            }
            8 => return Undo::Hash(std::mem::replace(&mut self.machine.memory.le_hash, [1; 32])),
            _ => {
                let from = [operands[which], PAGEINFO, SOURCE, SECINFO][self.choices.below(4)];
                let la = from & !0xfff;
                let index = EpcIndex(self.choices.below(EPC as usize) as u32);
                let mappings = &mut self.machine.memory.mappings;
                let before = match self.choices.below(5) {
                    0 => mappings.remove(&la),
                    1 => mappings.insert(la, Mapping::Ram { writable: false }),
                    2 => mappings.insert(la, Mapping::Unbacked { gpa: Gpa(la) }),
                    3 => mappings.insert(la, Mapping::Epc { index, writable: false }),
                    _ => mappings.insert(la, Mapping::Epc { index, writable: true }),
                };
                return Undo::Mapping(la, before);
            }
        }
        Undo::Nothing
    }

    fn undo(&mut self, undo: Undo) {
        let memory = &mut self.machine.memory;
        match undo {
            Undo::Nothing => {}
            Undo::Mapping(la, Some(mapping)) => {
                memory.mappings.insert(la, mapping);
            }
            Undo::Mapping(la, None) => {
                memory.mappings.remove(&la);
            }
            Undo::Mode => memory.mode64 = true,
            Undo::Event => memory.event = false,
            Undo::Virtualization => memory.epc_virtualization = false,
            Undo::Hash(hash) => memory.le_hash = hash,
        }
    }

    /// Executes a leaf, with other operands (RBX, RCX, RDX) if the turn is hostile.
    fn execute<R>(
        &mut self,
        mut operands: [u64; 3],
        leaf: impl FnOnce(&mut Machine, [u64; 3]) -> R,
    ) -> R {
        let undo = if self.hostile { self.spoil(&mut operands) } else { Undo::Nothing };
        let outcome = leaf(self.machine, operands);
        self.undo(undo);
        outcome
    }

    /// Executes an ENCLS leaf, with other operands if the turn is hostile.
    pub(crate) fn encls(
        &mut self,
        number: u32,
        rbx: u64,
        rcx: u64,
        rdx: u64,
    ) -> Result<LeafOutcome, Stop> {
        self.execute([rbx, rcx, rdx], |machine, [rbx, rcx, rdx]| {
            machine.encls(number, rbx, rcx, rdx)
        })
    }

    /// Executes an ENCLV leaf, with other operands if the turn is hostile.
    pub(crate) fn enclv(
        &mut self,
        number: u32,
        rbx: u64,
        rcx: u64,
        rdx: u64,
    ) -> Result<LeafOutcome, Stop> {
        self.execute([rbx, rcx, rdx], |machine, [rbx, rcx, rdx]| {
            machine.enclv(number, rbx, rcx, rdx)
        })
    }

    /// Executes an ENCLU leaf, with other operands if the turn is hostile.
    pub(crate) fn enclu(
        &mut self,
        number: u32,
        rbx: u64,
        rcx: u64,
        rdx: u64,
    ) -> Result<EncluOutcome, Stop> {
        self.execute([rbx, rcx, rdx], |machine, [rbx, rcx, rdx]| {
            machine.enclu(number, rbx, rcx, rdx)
        })
    }

    /// PAGEINFO at its place: `linaddr`, the source page, SECINFO and the SECS in page `secs`.
    pub(crate) fn pageinfo(&mut self, linaddr: u64, secs: Option<u32>) {
        let pageinfo = PageInfo {
            linaddr: linaddr.into(),
            srcpge: SOURCE.into(),
            secinfo: SECINFO.into(),
            secs: secs.map_or(0, Machine::window).into(),
        };
        self.machine.operand(PAGEINFO, &pageinfo);
    }

    /// SECINFO at its place.
    pub(crate) fn secinfo(&mut self, secinfo: &SecInfo) {
        self.machine.operand(SECINFO, secinfo);
    }

    /// Page tables for the enclave whose SECS is in page `secs`.
    pub(crate) fn map(&mut self, secs: EpcIndex) {
        for page in self.shared.pages(|page, view| child_of(secs, page, view)) {
            let mapping = Mapping::Epc { index: EpcIndex(page), writable: true };
            self.machine.memory.mappings.insert(self.shared.view(page).address, mapping);
        }
    }

    /// A page of the enclave that this processor executes, if one satisfies `wanted`.
    pub(crate) fn own(&mut self, wanted: impl Fn(&EpcmView) -> bool) -> Option<u32> {
        let (secs, _) = self.machine.state.active_pages()?;
        let pages = self.shared.pages(|page, view| child_of(secs, page, view) && wanted(view));
        self.choices.of(&pages)
    }

    /// A page of its own that the enclave's software can write now, and its address. Nobody can
    /// take it away while this processor is inside.
    pub(crate) fn data(&mut self) -> Option<(EpcIndex, u64)> {
        // Mostly not what is to be restored.
        let frames = self.choices.one_in(8);
        let page = self.own(|view| writable(view) && (frames || !holds_frames(view)))?;
        Some((EpcIndex(page), self.shared.view(page).address))
    }
}

fn child_of(secs: EpcIndex, page: u32, view: &EpcmView) -> bool {
    view.valid() && view.secs == secs && page != secs.0
}

/// Whether a page lies where the enclaves have their SSA frames.
pub(crate) fn holds_frames(view: &EpcmView) -> bool {
    (4..8).contains(&(view.address >> 12 & 0xf))
}

fn writable(view: &EpcmView) -> bool {
    let needed = EpcmFlags::R | EpcmFlags::W;
    let refused = EpcmFlags::PENDING | EpcmFlags::MODIFIED | EpcmFlags::BLOCKED;
    view.is(PageType::Reg) && view.flags.contains(needed) && !view.flags.intersects(refused)
}
