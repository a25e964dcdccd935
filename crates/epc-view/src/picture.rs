//! The page maps of machines as a picture: an SVG whose size is bounded, whatever the size of the
//! sections.

mod cells;
mod style;

use std::fmt::Write as _;

use self::cells::{Cell, Cells, FOLD, Row, Rows};
use self::style::{COLOURS, UNLISTED};
use super::page_map::CellKind;
use super::report::{EnclaveReport, EpcReport, SectionReport};

/// Width of the maps in pixels: whole cells of every size.
const MAP: usize = 1024;
/// Width of the addresses beside them.
const AXIS: usize = 108;
/// Space around everything.
const MARGIN: usize = 24;
/// Enclaves of a machine that are written below its maps, and how many of them beside each other.
const ENCLAVES: usize = 24;
const BESIDE: usize = 2;
/// How many digits of an MRENCLAVE are written.
const DIGITS: usize = 12;
/// How far apart addresses are at least.
const LABELS: usize = 16;

/// The picture of these machines, one below the other.
#[must_use]
pub fn picture(reports: &[EpcReport]) -> String {
    let mut page = Page { body: String::new(), y: MARGIN };
    for report in reports {
        page.machine(report);
    }
    page.finish()
}

/// What was drawn so far, and how far down it reaches.
struct Page {
    body: String,
    y: usize,
}

impl Page {
    /// Adds text whose baseline is `down` below what was drawn so far.
    fn text(&mut self, down: usize, class: &str, text: &str) {
        self.y += down;
        let (y, text) = (self.y, escape(text));
        self.write(format_args!(
            "<text x=\"{MARGIN}\" y=\"{y}\" class=\"ink {class}\" xml:space=\"preserve\">{text}</text>\n"
        ));
    }

    fn write(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.body.write_fmt(what);
    }

    fn machine(&mut self, report: &EpcReport) {
        let account = &report.account;
        self.text(20, "title", &format!("EPC of {}", report.name));
        self.text(
            22,
            "",
            &format!(
                "{} pages used, {} zombies, {} leaked; {} of the host's {} used",
                account.used, account.zombies, account.leaked, report.pool.used, report.pool.total
            ),
        );
        self.legend(report);
        for section in &report.sections {
            self.section(section);
        }
        if report.sections.is_empty() {
            self.text(24, "", "no EPC: the machine was started without any");
        }
        self.enclaves(report);
        self.y += MARGIN;
    }

    /// A square of these classes, one over the other, and text beside it, whose baseline is where the page ends.
    fn entry(&mut self, x: usize, classes: &[&str], class: &str, text: &str) {
        let (y, top, text) = (self.y, self.y - 10, escape(text));
        for square in classes {
            self.write(format_args!(
                "<rect x=\"{x}\" y=\"{top}\" width=\"12\" height=\"12\" class=\"{square}\"/>"
            ));
        }
        self.write(format_args!(
            "<text x=\"{}\" y=\"{y}\" class=\"ink {class}\" xml:space=\"preserve\">{text}</text>\n",
            x + 18
        ));
    }

    /// The kinds of cells, and how many pages of each there are.
    fn legend(&mut self, report: &EpcReport) {
        self.y += 28;
        let mut x = MARGIN;
        for kind in CellKind::ALL {
            let label = format!("{} {}", style::name(kind), pages_of(report, kind));
            // As wide as the label is at most, and a space.
            let width = 32 + label.len() * 8;
            if x + width > MARGIN + AXIS + MAP {
                x = MARGIN;
                self.y += 20;
            }
            let fill = style::plain(kind).unwrap_or(UNLISTED);
            let classes: Vec<&str> = [fill].into_iter().chain(style::mark(kind)).collect();
            self.entry(x, &classes, "", &label);
            x += width;
        }
    }

    fn section(&mut self, section: &SectionReport) {
        let Some(map) = &section.page_map else { return };
        let cells = Cells::new(map, section.pages.total, MAP);
        let scale = match map.pages_per_cell {
            1 => "a cell is a page".to_owned(),
            pages => format!("a cell is {pages} pages"),
        };
        let row = cells.row_size();
        self.text(
            36,
            "caption",
            &format!(
                "{}: {} at guest physical {:#x}; {} of {} pages backed, {} valid; {scale}, a row {}",
                section.id,
                size(section.size),
                section.base,
                section.pages.backed,
                section.pages.total,
                section.pages.valid,
                size(row)
            ),
        );
        self.y += 8;
        let mut labelled = None;
        for rows in cells.rows() {
            let height = match rows.what {
                Row::InUse => self.drawn(&cells, rows),
                Row::Unused => {
                    self.folded(&format!("{} pages not in use", cells.pages(rows)), "unused")
                }
                Row::Unbacked => {
                    self.folded(&format!("{} pages not backed", cells.pages(rows)), "unbacked")
                }
            };
            let count = if rows.what == Row::InUse { rows.count } else { 1 };
            for number in 0..count {
                let down = number * height / count;
                // The next rows have theirs at their beginning.
                let fits = number == 0 || down + LABELS <= height;
                let y = self.y + down;
                if fits && labelled.is_none_or(|above| y >= above + LABELS) {
                    self.address(y, row.saturating_mul((rows.first + number) as u64));
                    labelled = Some(y);
                }
            }
            self.y += height;
        }
    }

    /// An offset in a section, at its row.
    fn address(&mut self, y: usize, offset: u64) {
        let (x, tick, baseline) = (MARGIN + AXIS - 10, MARGIN + AXIS - 6, y + 9);
        self.write(format_args!(
            "<path class=\"line tick\" d=\"M{tick} {y}h6\"/>\
             <text x=\"{x}\" y=\"{baseline}\" class=\"faint code small\" text-anchor=\"end\">+{offset:#x}</text>\n"
        ));
    }

    /// Draws rows, and returns their height.
    fn drawn(&mut self, cells: &Cells, rows: Rows) -> usize {
        let (x, y, height) = (MARGIN + AXIS, self.y, rows.count * cells.side);
        self.write(format_args!("<g transform=\"translate({x} {y})\">\n"));
        let plain = CellKind::ALL.into_iter().filter_map(style::plain).chain([UNLISTED]);
        let enclaves = (0..COLOURS).map(Fill::Enclave);
        for fill in plain.map(Fill::Class).chain(enclaves) {
            self.path(&fill.class(), &cells.cover(rows, |cell| Fill::of_cell(cell) == fill));
        }
        for mark in CellKind::ALL.into_iter().filter_map(style::mark) {
            self.path(mark, &cells.cover(rows, |cell| style::mark(cell.kind) == Some(mark)));
        }
        let side = cells.side;
        self.write(format_args!(
            "<rect width=\"{MAP}\" height=\"{height}\" fill=\"url(#grid{side})\"/>\n</g>\n"
        ));
        height
    }

    fn path(&mut self, class: &str, path: &str) {
        if !path.is_empty() {
            self.write(format_args!("<path class=\"{class}\" d=\"{path}\"/>\n"));
        }
    }

    /// Draws what stands for rows that are left out, and returns its height.
    fn folded(&mut self, note: &str, class: &str) -> usize {
        let (x, y, middle) = (MARGIN + AXIS, self.y, MARGIN + AXIS + MAP / 2);
        let (height, baseline) = (FOLD - 4, self.y + 14);
        self.write(format_args!(
            "<rect x=\"{x}\" y=\"{}\" width=\"{MAP}\" height=\"{height}\" class=\"{class}\"/>\
             <path class=\"line\" d=\"M{x} {}h{MAP}m0 {height}h-{MAP}\"/>\
             <text x=\"{middle}\" y=\"{baseline}\" class=\"ink small\" text-anchor=\"middle\">{note}</text>\n",
            y + 2,
            y + 2
        ));
        FOLD
    }

    fn enclaves(&mut self, report: &EpcReport) {
        if report.enclaves.is_empty() {
            return;
        }
        let repeated = match report.enclaves.len() as u64 > COLOURS {
            true => format!("; there are {COLOURS} colours, which repeat"),
            false => String::new(),
        };
        self.text(32, "caption", &format!("Enclaves by MRENCLAVE{repeated}"));
        for (number, enclave) in report.enclaves.iter().take(ENCLAVES).enumerate() {
            if number % BESIDE == 0 {
                self.y += 20;
            }
            let x = MARGIN + number % BESIDE * ((AXIS + MAP) / BESIDE);
            self.entry(x, &[&Fill::of(number as u64).class()], "code", &enclave_line(enclave));
        }
        let more = report.enclaves.len().saturating_sub(ENCLAVES) as u64;
        let more = more.saturating_add(report.enclaves_unlisted);
        if more != 0 {
            self.text(20, "", &format!("and {more} more"));
        }
    }

    fn finish(self) -> String {
        let (width, height) = (MAP + AXIS + 2 * MARGIN, self.y);
        let (sheet, patterns) = (style::sheet(), style::patterns());
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\">\n\
             <style>{sheet}</style>\n<defs>\n{patterns}</defs>\n\
             <rect width=\"100%\" height=\"100%\" class=\"paper\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// What a cell is filled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fill {
    /// A colour of this class.
    Class(&'static str),
    /// An enclave's colour, by its place in the palette.
    Enclave(u64),
}

impl Fill {
    /// The colour of an enclave with this number in the report.
    const fn of(enclave: u64) -> Self {
        Self::Enclave(enclave % COLOURS)
    }

    /// The colour of a cell. Enclaves that are not listed share one.
    fn of_cell(cell: Cell) -> Self {
        match (style::plain(cell.kind), cell.enclave) {
            (Some(class), _) => Self::Class(class),
            (None, Some(enclave)) => Self::of(enclave),
            (None, None) => Self::Class(UNLISTED),
        }
    }

    fn class(self) -> String {
        match self {
            Self::Class(class) => class.to_owned(),
            Self::Enclave(number) => format!("e{number}"),
        }
    }
}

/// A size in the largest unit that leaves it whole.
fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = |&(shift, _): &(u32, _)| bytes != 0 && bytes.is_multiple_of(1 << shift);
    match units.iter().find(|unit| whole(unit)) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

/// How many pages of all sections are of a kind.
fn pages_of(report: &EpcReport, kind: CellKind) -> u64 {
    let pages = report.sections.iter().map(|section| &section.pages);
    let counts = pages.map(|pages| match kind {
        CellKind::Unbacked => pages.total.saturating_sub(pages.backed),
        CellKind::Unused => pages.backed.saturating_sub(pages.valid),
        CellKind::Secs => pages.secs,
        CellKind::Tcs => pages.tcs,
        CellKind::Reg => pages.reg,
        CellKind::Va => pages.va,
        CellKind::Trim => pages.trim,
        CellKind::ShadowStack => pages.ss_first.saturating_add(pages.ss_rest),
        CellKind::Blocked => pages.blocked,
    });
    counts.fold(0, u64::saturating_add)
}

fn enclave_line(enclave: &EnclaveReport) -> String {
    let name = match &enclave.mrenclave {
        Some(mrenclave) => {
            let cut = if mrenclave.chars().count() > DIGITS { "…" } else { "" };
            mrenclave.chars().take(DIGITS).chain(cut.chars()).collect()
        }
        None => format!("(before EINIT, SECS at {:#x})", enclave.secs),
    };
    let pages = enclave.pages.iter().fold(0_u64, |sum, part| sum.saturating_add(part.count));
    format!(
        "{name}  {}, {pages} pages, {} threads inside",
        size(enclave.size),
        enclave.threads_inside
    )
}

/// Text as XML has it. Characters that XML cannot have become question marks.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars().take(300) {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('?');
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
