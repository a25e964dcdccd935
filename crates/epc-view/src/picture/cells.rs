//! The cells of a section: rows, and runs of rows that are left out because nothing is in use there.

use std::fmt::Write as _;

use crate::page_map::{CellKind, MAX_CELLS, PAGE_SIZE};
use crate::report::PageMap;

/// Height of what stands for rows that are left out.
pub(super) const FOLD: usize = 20;

/// Widths and heights of cells: the first that a section is not too high with, or the last.
const SIDES: [usize; 3] = [16, 8, 4];
const HEIGHT: usize = 256;

/// A cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cell {
    pub(super) kind: CellKind,
    /// The enclave that has it, by its number in the report.
    pub(super) enclave: Option<u64>,
}

/// The cells of a section, in rows.
#[derive(Debug)]
pub(super) struct Cells {
    cells: Vec<Cell>,
    /// Pages in a cell, and in the section.
    pages_per_cell: u64,
    pages: u64,
    /// Cells in a row.
    columns: usize,
    /// Width and height of a cell.
    pub(super) side: usize,
}

/// What is in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Row {
    /// Pages in use.
    InUse,
    /// Pages that are backed, and none in use.
    Unused,
    /// No page that is backed.
    Unbacked,
}

/// Rows one after the other that are alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rows {
    pub(super) what: Row,
    pub(super) first: usize,
    pub(super) count: usize,
}

impl Cells {
    /// The cells of a section of so many pages, of this map, in rows of `width` pixels.
    pub(super) fn new(map: &PageMap, pages: u64, width: usize) -> Self {
        let kind = |letter| CellKind::from_letter(letter).unwrap_or(CellKind::Unbacked);
        let cell = |letter| Cell { kind: kind(letter), enclave: None };
        let mut cells: Vec<Cell> = map.cells.chars().take(MAX_CELLS).map(cell).collect();
        // The peer may say anything: there is at most one run for each cell, and none ends beyond the last.
        for run in map.owners.iter().take(MAX_CELLS) {
            let place = |cell: u64| usize::try_from(cell).unwrap_or(usize::MAX).min(cells.len());
            let (first, end) = (place(run.first), place(run.first.saturating_add(run.count)));
            cells[first..end].iter_mut().for_each(|cell| cell.enclave = Some(run.enclave));
        }
        let of_side = |side| (width / side, side);
        let (columns, side) = of_side(SIDES[0]);
        let mut new = Self { cells, pages_per_cell: map.pages_per_cell, pages, columns, side };
        for side in SIDES {
            (new.columns, new.side) = of_side(side);
            if new.height() <= HEIGHT {
                break;
            }
        }
        new
    }

    /// Pixels of all rows.
    fn height(&self) -> usize {
        let height = |rows: &Rows| match rows.what {
            Row::InUse => rows.count * self.side,
            Row::Unused | Row::Unbacked => FOLD,
        };
        self.rows().iter().map(height).sum()
    }

    /// Bytes of a row.
    pub(super) fn row_size(&self) -> u64 {
        (self.columns as u64).saturating_mul(self.pages_per_cell).saturating_mul(PAGE_SIZE)
    }

    /// Pages of these rows; the last of all may be shorter than the others.
    pub(super) fn pages(&self, rows: Rows) -> u64 {
        let page = |row: usize| {
            let cell = row.saturating_mul(self.columns) as u64;
            cell.saturating_mul(self.pages_per_cell).min(self.pages)
        };
        page(rows.first + rows.count) - page(rows.first)
    }

    /// All rows. Those without pages in use are apart where less room is needed to say so than to draw them.
    pub(super) fn rows(&self) -> Vec<Rows> {
        let rows: Vec<Row> = self.cells.chunks(self.columns).map(what).collect();
        let mut parts: Vec<Rows> = Vec::new();
        let mut first = 0;
        for alike in rows.chunk_by(|a, b| a == b) {
            let count = alike.len();
            let is_short = count * self.side <= FOLD;
            let what = if is_short { Row::InUse } else { alike[0] };
            match parts.last_mut() {
                Some(last) if last.what == Row::InUse && what == Row::InUse => last.count += count,
                _ => parts.push(Rows { what, first, count }),
            }
            first += count;
        }
        parts
    }

    /// Rectangles over those cells of these rows that are `wanted`, a run of cells in a row each.
    pub(super) fn cover(&self, rows: Rows, wanted: impl Fn(Cell) -> bool) -> String {
        let (side, mut path) = (self.side, String::new());
        let rows = self.cells.chunks(self.columns).skip(rows.first).take(rows.count);
        for (row, cells) in rows.enumerate() {
            let mut column = 0;
            for run in cells.chunk_by(|&a, &b| wanted(a) == wanted(b)) {
                if wanted(run[0]) {
                    let (x, y, width) = (column * side, row * side, run.len() * side);
                    // Writing to a String cannot fail.
                    let _ = write!(path, "M{x} {y}h{width}v{side}h-{width}z");
                }
                column += run.len();
            }
        }
        path
    }
}

fn what(row: &[Cell]) -> Row {
    let all = |kinds: &[CellKind]| row.iter().all(|cell| kinds.contains(&cell.kind));
    if all(&[CellKind::Unbacked]) {
        Row::Unbacked
    } else if all(&[CellKind::Unbacked, CellKind::Unused]) {
        Row::Unused
    } else {
        Row::InUse
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::OwnedCells;

    fn map(cells: &str) -> PageMap {
        PageMap { pages_per_cell: 1, cells: cells.to_owned(), owners: Vec::new() }
    }

    #[test]
    fn rows_without_pages_in_use_are_apart_where_that_saves_room() {
        // Of 256 cells, which are 4 rows of 16 pixels.
        let row = |letter: &str, rows: usize| letter.repeat(256 * rows);
        let text = [
            row("R", 1),
            row(".", 5),
            row("V", 1),
            row("-", 6),
            row(".", 30),
            "R".into(),
            row(".", 20),
        ];
        let text = text.concat();

        let cells = Cells::new(&map(&text), text.len() as u64, 1024);
        let rows: Vec<_> =
            cells.rows().iter().map(|rows| (rows.what, rows.first, rows.count)).collect();

        // The one cell shifts what is behind it, and the last row is of one cell.
        assert_eq!(
            rows,
            [
                (Row::InUse, 0, 4),
                (Row::Unbacked, 4, 20),
                (Row::InUse, 24, 4),
                (Row::Unused, 28, 24),
                (Row::Unbacked, 52, 120),
                (Row::InUse, 172, 1),
                (Row::Unbacked, 173, 80)
            ]
        );
        assert_eq!(cells.row_size(), 64 << 12);
        assert_eq!(
            cells.rows().iter().map(|&rows| cells.pages(rows)).sum::<u64>(),
            text.len() as u64
        );
        assert_eq!(cells.pages(cells.rows()[6]), 79 * 64 + 1);
    }

    #[test]
    fn cells_are_as_large_as_what_is_drawn_has_room_for() {
        for (used, unused, side) in
            [(1, 0, 16), (90, 16000, 16), (1024, 0, 16), (1025, 0, 8), (4097, 0, 4), (16384, 0, 4)]
        {
            let text = "R".repeat(used) + &"-".repeat(unused);

            assert_eq!(Cells::new(&map(&text), text.len() as u64, 1024).side, side, "{used}");
        }
        // A row in use after each that is not: as high as can be.
        let text = ("R".repeat(256) + &".".repeat(2048)).repeat(7);
        let cells = Cells::new(&map(&text), text.len() as u64, 1024);
        assert_eq!((cells.side, cells.height()), (8, 7 * (16 + FOLD)));
    }

    #[test]
    fn owners_that_make_no_sense_do_no_harm() {
        let mut map = map("RRRR");
        for (first, count) in [(2, 1), (3, u64::MAX), (u64::MAX, 9), (4, 4)] {
            map.owners.push(OwnedCells { enclave: u64::MAX, first, count });
        }

        let cells = Cells::new(&map, 4, 1024);

        let owned = |cell: Cell| cell.enclave.is_some();
        assert_eq!(cells.cover(cells.rows()[0], owned), "M32 0h32v16h-32z");
    }
}
