//! The page maps of machines as a picture: an SVG whose size is bounded, whatever the size of the
//! sections.

use std::fmt::Write as _;

use super::page_map::{CellKind, MAX_CELLS};
use super::report::{EnclaveReport, EpcReport, SectionReport};

/// Width of the maps in pixels: whole cells of every size.
const MAP: usize = 1024;
/// Space around everything.
const MARGIN: usize = 24;
/// Enclaves of a machine that are written below its maps.
const ENCLAVES: usize = 8;

/// What a kind of cell is called, and its colour.
const fn look(kind: CellKind) -> (&'static str, &'static str) {
    match kind {
        CellKind::Unbacked => ("not backed", "#e9ecf1"),
        CellKind::Unused => ("backed, unused", "#bcc4d0"),
        CellKind::Secs => ("SECS", "#d1345b"),
        CellKind::Tcs => ("TCS", "#f2a541"),
        CellKind::Reg => ("REG", "#3772b5"),
        CellKind::Va => ("VA", "#8a63c4"),
        CellKind::Trim => ("TRIM", "#8c6a4f"),
        CellKind::ShadowStack => ("shadow stack", "#2a9d8f"),
        CellKind::Blocked => ("blocked", "#1d2433"),
    }
}

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
            "<text x=\"{MARGIN}\" y=\"{y}\" class=\"{class}\" xml:space=\"preserve\">{text}</text>\n"
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

    /// The kinds of cells with their colours, and how many pages of each there are.
    fn legend(&mut self, report: &EpcReport) {
        self.y += 28;
        let mut x = MARGIN;
        for kind in CellKind::ALL {
            let (name, colour) = look(kind);
            let label = format!("{name} {}", pages_of(report, kind));
            // As wide as the label is at most, and a space.
            let width = 30 + label.len() * 8;
            if x + width > MARGIN + MAP {
                x = MARGIN;
                self.y += 20;
            }
            let y = self.y;
            self.write(format_args!(
                "<rect x=\"{x}\" y=\"{}\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
                 <text x=\"{}\" y=\"{y}\">{label}</text>\n",
                y - 10,
                x + 16
            ));
            x += width;
        }
    }

    fn section(&mut self, section: &SectionReport) {
        let Some(map) = &section.page_map else { return };
        let cells: Vec<CellKind> = map
            .cells
            .chars()
            .take(MAX_CELLS)
            .map(|letter| CellKind::from_letter(letter).unwrap_or(CellKind::Unbacked))
            .collect();
        let side = [16, 8].into_iter().find(|side| cells.len() * side * side <= MAP * 256);
        let side = side.unwrap_or(4);
        let columns = MAP / side;
        let scale = match map.pages_per_cell {
            1 => "a cell is a page".to_owned(),
            pages => format!("a cell is {pages} pages"),
        };
        self.text(
            36,
            "caption",
            &format!(
                "{}: {} at {:#x}; {} of {} pages backed, {} valid; {scale}",
                section.id,
                size(section.size),
                section.base,
                section.pages.backed,
                section.pages.total,
                section.pages.valid
            ),
        );
        self.y += 8;
        let y = self.y;
        self.write(format_args!("<g transform=\"translate({MARGIN} {y})\">\n"));
        for kind in CellKind::ALL {
            let path = cover(&cells, kind, columns, side);
            if !path.is_empty() {
                let (_, colour) = look(kind);
                self.write(format_args!("<path fill=\"{colour}\" d=\"{path}\"/>\n"));
            }
        }
        let rows = cells.len().div_ceil(columns);
        let height = rows * side;
        self.write(format_args!(
            "<rect width=\"{MAP}\" height=\"{height}\" fill=\"url(#grid{side})\"/>\n</g>\n"
        ));
        self.y += height;
    }

    fn enclaves(&mut self, report: &EpcReport) {
        if report.enclaves.is_empty() {
            return;
        }
        self.text(32, "caption", "Enclaves by MRENCLAVE");
        for enclave in report.enclaves.iter().take(ENCLAVES) {
            self.text(20, "enclave", &enclave_line(enclave));
        }
        let more = report.enclaves.len().saturating_sub(ENCLAVES) as u64;
        let more = more.saturating_add(report.enclaves_unlisted);
        if more != 0 {
            self.text(20, "", &format!("and {more} more"));
        }
    }

    fn finish(self) -> String {
        let (width, height) = (MAP + 2 * MARGIN, self.y);
        let grids = [4, 8, 16].map(|side| {
            let line = if side == 4 { 0.5 } else { 1.0 };
            format!(
                "<pattern id=\"grid{side}\" width=\"{side}\" height=\"{side}\" \
                 patternUnits=\"userSpaceOnUse\"><path d=\"M{side} 0V{side}H0\" fill=\"none\" \
                 stroke=\"#fff\" stroke-width=\"{line}\"/></pattern>\n"
            )
        });
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\">\n\
             <style>text{{font:13px system-ui,sans-serif;fill:#2b3345}}\
             .title{{font-size:20px;font-weight:600}}.caption{{font-weight:600}}\
             .enclave{{font-family:ui-monospace,monospace}}</style>\n\
             <defs>\n{}</defs>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
            grids.concat(),
            self.body
        )
    }
}

/// Rectangles over all cells of a kind, a run of cells in a row each.
fn cover(cells: &[CellKind], kind: CellKind, columns: usize, side: usize) -> String {
    let mut path = String::new();
    for (row, cells) in cells.chunks(columns).enumerate() {
        let mut column = 0;
        for run in cells.chunk_by(|a, b| a == b) {
            if run[0] == kind {
                let (x, y, width) = (column * side, row * side, run.len() * side);
                let _ = write!(path, "M{x} {y}h{width}v{side}h-{width}z");
            }
            column += run.len();
        }
    }
    path
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
        Some(mrenclave) => mrenclave.chars().take(64).collect(),
        None => format!("{:<64}", format!("(before EINIT, SECS at {:#x})", enclave.secs)),
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
mod tests {
    use super::*;
    use crate::PageMap;
    use crate::sample;

    /// Elements that are open at each end tag must match; the rest is balanced.
    fn is_well_formed(svg: &str) -> bool {
        let mut open = Vec::new();
        for part in svg.split('<').skip(1) {
            let Some((tag, text)) = part.split_once('>') else { return false };
            if text.contains('>')
                || text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").contains('&')
            {
                return false;
            }
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return false;
                }
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap_or_default());
            }
            if !tag.matches('"').count().is_multiple_of(2) {
                return false;
            }
        }
        open.is_empty()
    }

    /// Area of the paths of a colour, in pixels.
    fn area(svg: &str, kind: CellKind) -> usize {
        let start = format!("<path fill=\"{}\" d=\"", look(kind).1);
        let paths = svg.lines().filter_map(|line| line.strip_prefix(&start));
        let number = |text: &str| text.parse::<usize>().expect("a number");
        paths
            .flat_map(|path| path.split('M').skip(1))
            .map(|run| {
                let (width, rest) = run.split_once('h').expect("h").1.split_once('v').expect("v");
                number(width) * number(rest.split_once('h').expect("h").0)
            })
            .sum()
    }

    #[test]
    fn every_page_is_a_cell_of_its_colour() {
        let report = sample::report();

        let svg = picture(std::slice::from_ref(&report));

        assert!(is_well_formed(&svg), "{svg}");
        for (kind, pages) in [
            (CellKind::Secs, 2),
            (CellKind::Tcs, 4),
            (CellKind::Reg, 1073),
            (CellKind::Va, 5),
            (CellKind::Blocked, 16),
            (CellKind::Unused, 134),
            (CellKind::Unbacked, 2 * 16384 - 1234),
            (CellKind::Trim, 0),
        ] {
            assert_eq!(area(&svg, kind), pages * 16, "{kind:?}");
        }
        for text in ["EPC of guest", "epc0: 64 MiB at 0x100000000", "REG 1089", "4 threads inside"]
        {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn a_picture_is_bounded_whatever_the_sections_and_the_peer_are() {
        let mut report = sample::report();
        report.name = "<&>\u{1}".repeat(1000);
        report.sections = vec![report.sections[0].clone(); 8];
        for section in &mut report.sections {
            section.size = 512 << 30;
            section.id = "\"".repeat(1000);
            section.page_map =
                Some(PageMap { pages_per_cell: 8192, cells: "RV".repeat(MAX_CELLS) });
        }
        report.enclaves = vec![report.enclaves[0].clone(); 1024];

        let svg = picture(&[report]);

        assert!(is_well_formed(&svg));
        assert!(svg.len() < 4 << 20, "{} bytes", svg.len());
        assert!(svg.contains("and 1016 more"));
    }

    #[test]
    fn a_small_section_has_large_cells() {
        for (cells, side) in [(16, 16), (1024, 16), (1025, 8), (4096, 8), (4097, 4), (16384, 4)] {
            let mut report = sample::report();
            report.sections.truncate(1);
            report.sections[0].page_map =
                Some(PageMap { pages_per_cell: 1, cells: "R".repeat(cells) });

            let svg = picture(&[report]);

            assert_eq!(area(&svg, CellKind::Reg), cells * side * side);
        }
    }
}
