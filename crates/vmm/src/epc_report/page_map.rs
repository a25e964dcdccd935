//! Makes the page map of a section from its EPCM entries.

use cloister_epc_view::{CellKind, MAX_CELLS, PageMap};
use cloister_sgx::{EpcmFlags, EpcmView, PageType};

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

/// Makes the map of a section from its backed pages.
pub(super) struct Mapper {
    pages_per_cell: usize,
    /// Backed pages of each cell by kind.
    cells: Vec<[u32; CellKind::ALL.len()]>,
}

impl Mapper {
    /// The map of a section of `pages` pages, none of which is backed.
    pub(super) fn new(pages: usize) -> Self {
        let pages_per_cell = pages.div_ceil(MAX_CELLS).next_power_of_two();
        let cells = vec![[0; CellKind::ALL.len()]; pages.div_ceil(pages_per_cell)];
        Self { pages_per_cell, cells }
    }

    /// Page `number` is backed and has this EPCM entry.
    pub(super) fn add(&mut self, number: usize, view: &EpcmView) {
        self.cells[number / self.pages_per_cell][kind_of(view) as usize] += 1;
    }

    /// A cell of several pages shows what most of its pages that are in use are.
    pub(super) fn finish(self) -> PageMap {
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
        }
    }
}

#[cfg(test)]
mod tests {
    use cloister_sgx::EpcIndex;

    use super::*;

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

        let map = mapper.finish();

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

        let map = mapper.finish();

        assert_eq!((map.pages_per_cell, map.cells.len()), (4, MAX_CELLS));
        assert_eq!(&map.cells[..4], "VR-.");
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
            let map = Mapper::new(pages).finish();

            assert_eq!((map.pages_per_cell, map.cells.len()), (pages_per_cell, cells));
        }
    }
}
