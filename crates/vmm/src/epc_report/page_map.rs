//! Makes the page map of a section from its EPCM entries.

use std::collections::HashMap;

use cloister_epc_view::{CellKind, MAX_CELLS, OwnedCells, PageMap};
use cloister_sgx::{EpcIndex, EpcmFlags, EpcmView, PageType};

/// The kind of a backed page.
const fn kind_of(view: &EpcmView) -> CellKind {
    if !view.valid() {
        return CellKind::Unused;
    }
    if view.flags.contains(EpcmFlags::BLOCKED) {
        return CellKind::Blocked;
    }
    match view.page_type {
        PageType::Secs => CellKind::Secs,
        PageType::Tcs => CellKind::Tcs,
        PageType::Reg => CellKind::Reg,
        PageType::Va => CellKind::Va,
        PageType::Trim => CellKind::Trim,
        PageType::SsFirst | PageType::SsRest => CellKind::ShadowStack,
    }
}

/// The enclave that a page belongs to, by its SECS.
fn owner_of(view: &EpcmView) -> Option<EpcIndex> {
    (view.valid() && view.page_type != PageType::Va).then_some(view.secs)
}

/// The enclave that has most pages of a cell, by a vote in which each other's page takes one of its own away: whoever has
/// more than half wins it.
#[derive(Clone, Copy, Default)]
struct Vote {
    first: Option<EpcIndex>,
    lead: u32,
}

impl Vote {
    fn add(&mut self, owner: EpcIndex) {
        if self.lead == 0 {
            self.first = Some(owner);
        }
        if self.first == Some(owner) {
            self.lead += 1;
        } else {
            self.lead -= 1;
        }
    }
}

/// Makes the map of a section from its backed pages.
pub(super) struct Mapper {
    pages_per_cell: usize,
    /// Backed pages of each cell by kind.
    cells: Vec<[u32; CellKind::ALL.len()]>,
    /// Whose each cell is.
    votes: Vec<Vote>,
}

impl Mapper {
    /// The map of a section of `pages` pages, none of which is backed.
    pub(super) fn new(pages: usize) -> Self {
        let pages_per_cell = pages.div_ceil(MAX_CELLS).next_power_of_two();
        let cells = vec![[0; CellKind::ALL.len()]; pages.div_ceil(pages_per_cell)];
        let votes = vec![Vote::default(); cells.len()];
        Self { pages_per_cell, cells, votes }
    }

    /// Page `number` is backed and has this EPCM entry.
    pub(super) fn add(&mut self, number: usize, view: &EpcmView) {
        let cell = number / self.pages_per_cell;
        self.cells[cell][kind_of(view) as usize] += 1;
        if let Some(owner) = owner_of(view) {
            self.votes[cell].add(owner);
        }
    }

    /// A cell of several pages shows what most of its pages that are in use are. Enclaves have these numbers.
    pub(super) fn finish(self, numbers: &HashMap<EpcIndex, u64>) -> PageMap {
        let letter = |cell: &[u32; CellKind::ALL.len()]| {
            let in_use = CellKind::ALL[CellKind::Secs as usize..].iter();
            let most = in_use.copied().max_by_key(|&kind| cell[kind as usize]);
            let most = most.filter(|&kind| cell[kind as usize] != 0);
            let unused = cell[CellKind::Unused as usize] != 0;
            let rest = if unused { CellKind::Unused } else { CellKind::Unbacked };
            most.unwrap_or(rest).letter()
        };
        PageMap {
            pages_per_cell: self.pages_per_cell as u64,
            cells: self.cells.iter().map(letter).collect(),
            owners: self.owners(numbers),
        }
    }

    fn owners(&self, numbers: &HashMap<EpcIndex, u64>) -> Vec<OwnedCells> {
        let number = |vote: &Vote| numbers.get(&vote.first?).copied();
        let mut first = 0;
        let runs = self.votes.chunk_by(|a, b| a.first == b.first).filter_map(|votes| {
            let (begin, count) = (first, votes.len() as u64);
            first += count;
            Some(OwnedCells { enclave: number(&votes[0])?, first: begin, count })
        });
        runs.collect()
    }
}

#[cfg(test)]
mod tests {
    use cloister_sgx::EpcIndex;

    use super::*;

    fn page_of(page_type: PageType) -> EpcmView {
        page(EpcmFlags::VALID, page_type)
    }

    fn page(flags: EpcmFlags, page_type: PageType) -> EpcmView {
        EpcmView { flags, page_type, secs: EpcIndex(0), address: 0 }
    }

    #[test]
    fn each_page_of_a_small_section_has_its_letter() {
        let mut mapper = Mapper::new(12);
        for (number, page_type) in [
            PageType::Secs,
            PageType::Tcs,
            PageType::Reg,
            PageType::Va,
            PageType::Trim,
            PageType::SsFirst,
            PageType::SsRest,
        ]
        .into_iter()
        .enumerate()
        {
            mapper.add(number + 1, &page(EpcmFlags::VALID, page_type));
        }
        mapper.add(8, &page(EpcmFlags::VALID | EpcmFlags::BLOCKED, PageType::Reg));
        mapper.add(9, &page(EpcmFlags::empty(), PageType::Secs));

        let map = mapper.finish(&HashMap::new());

        assert_eq!((map.pages_per_cell, map.cells.as_str()), (1, ".STRVXKKB-.."));
        assert!(map.cells.chars().all(|letter| CellKind::from_letter(letter).is_some()));
    }

    #[test]
    fn a_cell_of_several_pages_shows_what_most_in_use_are() {
        let mut mapper = Mapper::new(4 * MAX_CELLS - 1);
        for number in 0..3 {
            mapper.add(number, &page(EpcmFlags::empty(), PageType::Secs));
            mapper.add(4 + number, &page(EpcmFlags::VALID, PageType::Reg));
        }
        mapper.add(3, &page(EpcmFlags::VALID, PageType::Va));
        mapper.add(7, &page(EpcmFlags::VALID, PageType::Tcs));
        mapper.add(8, &page(EpcmFlags::empty(), PageType::Secs));

        let map = mapper.finish(&HashMap::new());

        assert_eq!((map.pages_per_cell, map.cells.len()), (4, MAX_CELLS));
        assert_eq!(&map.cells[..4], "VR-.");
    }

    #[test]
    fn cells_are_those_of_the_enclave_that_has_most_of_their_pages() {
        let mut mapper = Mapper::new(4 * MAX_CELLS);
        // Cells of four pages, by the SECS of each page.
        for (cell, owners) in
            [[1, 1, 1, 2], [2, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]].iter().enumerate()
        {
            for (page, &secs) in owners.iter().enumerate() {
                let view = EpcmView { secs: EpcIndex(secs), ..page_of(PageType::Reg) };
                mapper.add(cell * 4 + page, &view);
            }
        }
        mapper.add(16, &page_of(PageType::Va));

        let map = mapper.finish(&HashMap::from([(EpcIndex(1), 0), (EpcIndex(2), 7)]));

        // Enclave 3 is not listed, and a version array is nobody's.
        let runs = [(0, 0, 2), (7, 2, 1)];
        let runs = runs.map(|(enclave, first, count)| OwnedCells { enclave, first, count });
        assert_eq!(map.owners, runs);
    }

    #[test]
    fn no_section_has_more_cells_than_a_map_holds() {
        for (pages, pages_per_cell, cells) in [
            (1, 1, 1),
            (MAX_CELLS, 1, MAX_CELLS),
            (MAX_CELLS + 1, 2, MAX_CELLS / 2 + 1),
            (1 << 27, 1 << 13, MAX_CELLS),
            ((1 << 32) - 1, 1 << 18, MAX_CELLS),
        ] {
            let map = Mapper::new(pages).finish(&HashMap::new());

            assert_eq!((map.pages_per_cell, map.cells.len()), (pages_per_cell, cells));
        }
    }
}
