//! A report as lines of 80 columns.

use std::fmt::Write as _;

use super::qmp_client::printable;
use super::report::{EnclaveReport, EpcReport, SectionReport};

/// Columns that a line has at most.
const WIDTH: usize = 80;

/// The lines that show `report`. `faults` is how many EPC faults each of its sections had in a
/// second, once that is known: of one report alone it is not, and the faults so far are shown.
#[must_use]
pub fn table(report: &EpcReport, faults: Option<&[f64]>) -> Vec<String> {
    let mut lines = vec![heading(report)];
    if report.sections.is_empty() {
        lines.push("  no EPC: the machine was started without any".to_owned());
        return lines;
    }
    lines.push(limits_and_exits(report));
    let last = if faults.is_some() { "FAULTS/S" } else { "FAULTS" };
    lines.push(format!(
        "{:<12}{:>8}{:>8}{:>8}{:>6}{:>6}{:>8}{:>6}{:>8}{last:>10}",
        "SECTION", "TOTAL", "BACKED", "VALID", "SECS", "TCS", "REG", "VA", "BLOCKED"
    ));
    for (n, section) in report.sections.iter().enumerate() {
        let rate = faults.map(|rates| rates.get(n).copied().unwrap_or_default());
        lines.push(section_line(section, rate));
    }
    if report.enclaves.is_empty() {
        return lines;
    }
    lines.push(format!("{:<64}{:>6}{:>4}{:>6}", "MRENCLAVE", "SIZE", "IN", "PAGES"));
    lines.extend(report.enclaves.iter().map(enclave_line));
    if report.enclaves_unlisted != 0 {
        let (listed, more) = (report.enclaves.len(), report.enclaves_unlisted);
        lines.push(format!("cut: and {more} more enclaves, as a report lists {listed}"));
    }
    lines
}

fn heading(report: &EpcReport) -> String {
    let (account, pool) = (&report.account, &report.pool);
    let mut line = format!(
        "{}: {} pages used, {} zombies, {} leaked",
        name(&report.name, 20),
        shortened(account.used, 7),
        shortened(account.zombies, 7),
        shortened(account.leaked, 7),
    );
    if account.refused != 0 {
        let _ = write!(line, ", {} refused", shortened(account.refused, 6));
    }
    // Writing to a String cannot fail.
    let _ = write!(line, "; host {}/{}", shortened(pool.used, 6), shortened(pool.total, 6));
    cut(line)
}

/// The limits of the machine, where it has some, and the exits of its guest.
fn limits_and_exits(report: &EpcReport) -> String {
    let (account, exits) = (&report.account, &report.encls_exits);
    let mut line = String::new();
    // Writing to a String cannot fail.
    if let Some(quota) = account.quota {
        let _ = write!(line, "quota {}, ", shortened(quota, 6));
    }
    if account.reservation != 0 {
        let _ = write!(line, "reserved {}, ", shortened(account.reservation, 6));
    }
    let _ = write!(
        line,
        "exits: {} ECREATE, {} EINIT, {} others",
        shortened(exits.ecreate, 5),
        shortened(exits.einit, 5),
        shortened(exits.others, 5),
    );
    line
}

/// A rate without its fraction.
#[expect(clippy::cast_possible_truncation, reason = "a cast saturates")]
fn whole(rate: f64) -> u64 {
    rate as u64
}

fn section_line(section: &SectionReport, rate: Option<f64>) -> String {
    let pages = &section.pages;
    let faults = match rate {
        Some(rate) if rate < 1e6 => format!("{rate:.1}"),
        Some(rate) => shortened(whole(rate), 9),
        None => shortened(section.faults, 9),
    };
    format!(
        "{:<12}{:>8}{:>8}{:>8}{:>6}{:>6}{:>8}{:>6}{:>8}{faults:>10}",
        name(&section.id, 12),
        shortened(pages.total, 7),
        shortened(pages.backed, 7),
        shortened(pages.valid, 7),
        shortened(pages.secs, 5),
        shortened(pages.tcs, 5),
        shortened(pages.reg, 7),
        shortened(pages.va, 5),
        shortened(pages.blocked, 7),
    )
}

fn enclave_line(enclave: &EnclaveReport) -> String {
    let name = match &enclave.mrenclave {
        Some(mrenclave) => printable(mrenclave, 64),
        None => format!("(before EINIT, SECS at {:#x})", enclave.secs),
    };
    let pages = enclave.pages.iter().fold(0_u64, |sum, part| sum.saturating_add(part.count));
    format!(
        "{name:<64}{:>6}{:>4}{:>6}",
        bytes(enclave.size),
        shortened(enclave.threads_inside, 3),
        shortened(pages, 5)
    )
}

/// A name in at most `width` columns. One that is cut ends in a mark.
fn name(text: &str, width: usize) -> String {
    let text = text.trim();
    if text.chars().count() <= width {
        return printable(text, width);
    }
    printable(text, width - 1) + "…"
}

/// A number in at most `width` columns, at least 3: whole if it fits, else in thousands, millions
/// and so on.
fn shortened(number: u64, width: usize) -> String {
    let whole = number.to_string();
    if whole.len() <= width {
        return whole;
    }
    let mut part = number as f64;
    for unit in ["k", "M", "G", "T", "P", "E"] {
        part /= 1000.0;
        if part >= 999.5 {
            continue;
        }
        for text in [format!("{part:.1}{unit}"), format!("{part:.0}{unit}")] {
            if text.len() <= width {
                return text;
            }
        }
    }
    "+".repeat(width)
}

/// A size of enclaves, which are powers of two.
fn bytes(size: u64) -> String {
    let units = ["B", "K", "M", "G", "T", "P", "E"];
    let mut unit = 0;
    let mut rest = size;
    while rest >= 1024 && rest.is_multiple_of(1024) {
        rest /= 1024;
        unit += 1;
    }
    let text = format!("{rest}{}", units[unit]);
    if text.len() <= 5 { text } else { shortened(size, 5) }
}

fn cut(line: String) -> String {
    if line.chars().count() <= WIDTH { line } else { line.chars().take(WIDTH).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use crate::{AccountReport, EnclsExitsReport, PagesReport, PoolReport};

    #[test]
    fn a_report_is_a_heading_the_sections_and_the_enclaves() {
        let report = sample::report();

        let lines = table(&report, Some(&[12.0, 0.0]));

        assert_eq!(
            lines,
            [
                "guest: 1234 pages used, 1 zombies, 2 leaked, 3 refused; host 1300/32768",
                "exits: 5 ECREATE, 6 EINIT, 7 others",
                "SECTION        TOTAL  BACKED   VALID  SECS   TCS     REG    VA BLOCKED  FAULTS/S",
                "epc0           16384    1200    1100     2     4    1089     5      16      12.0",
                "epc1           16384      34       0     0     0       0     0       0       0.0",
                "MRENCLAVE                                                         SIZE  IN PAGES",
                "abababababababababababababababababababababababababababababababab  256K   4    43",
                "(before EINIT, SECS at 0x100001000)                                64G   0     1",
            ]
        );
    }

    #[test]
    fn a_machine_with_limits_shows_them() {
        let mut report = sample::report();
        for (quota, reservation, line) in [
            (Some(16384), 0, "quota 16384, exits: 5 ECREATE, 6 EINIT, 7 others"),
            (None, 1 << 20, "reserved 1.0M, exits: 5 ECREATE, 6 EINIT, 7 others"),
            (Some(4096), 512, "quota 4096, reserved 512, exits: 5 ECREATE, 6 EINIT, 7 others"),
        ] {
            report.account = AccountReport { quota, reservation, ..report.account };

            assert_eq!(table(&report, None)[1], line);
        }
    }

    #[test]
    fn without_a_rate_the_faults_so_far_are_shown() {
        let lines = table(&sample::report(), None);

        assert!(lines[2].ends_with("    FAULTS"), "{}", lines[2]);
        assert!(lines[3].ends_with("      1200"), "{}", lines[3]);
    }

    #[test]
    fn a_machine_without_epc_says_so() {
        let report = EpcReport { sections: Vec::new(), enclaves: Vec::new(), ..sample::report() };

        let lines = table(&report, None);

        assert_eq!(lines[1], "  no EPC: the machine was started without any");
    }

    #[test]
    fn no_line_exceeds_80_columns_or_carries_an_escape_whatever_the_peer_says() {
        let wild = "\u{1b}[2J\u{9b}31m".repeat(100);
        let mut report = sample::report();
        report.name = wild.clone();
        let n = u64::MAX;
        report.account = AccountReport {
            used: n,
            zombies: n,
            leaked: n,
            refused: n,
            reservation: n,
            quota: Some(n),
        };
        report.pool = PoolReport { total: n, used: n, reserved: n, zombies: n, leaked: n };
        report.encls_exits = EnclsExitsReport { ecreate: n, einit: n, others: n };
        for section in &mut report.sections {
            section.id = wild.clone();
            section.pages = PagesReport {
                total: n,
                backed: n,
                valid: n,
                secs: n,
                tcs: n,
                reg: n,
                va: n,
                blocked: n,
                ..PagesReport::default()
            };
            section.faults = n;
        }
        for enclave in &mut report.enclaves {
            enclave.mrenclave = Some(wild.clone());
            enclave.size = n;
            enclave.threads_inside = n;
            enclave.pages[0].count = n;
        }
        report.enclaves_unlisted = n;

        for rates in [None, Some(&[f64::MAX, 1e5][..]), Some(&[])] {
            for line in table(&report, rates) {
                assert!(line.chars().count() <= WIDTH, "{line}");
                assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_says_so() {
        let mut report = sample::report();
        report.name = "a-name-of-more-than-twenty-letters".to_owned();
        report.sections[0].id = "epc-of-node-0".to_owned();
        report.sections[1].id = "epc-of-twelv".to_owned();
        report.enclaves_unlisted = 7;

        let lines = table(&report, None);

        assert!(lines[0].starts_with("a-name-of-more-than…: "), "{}", lines[0]);
        assert!(lines[3].starts_with("epc-of-node…  "), "{}", lines[3]);
        assert!(lines[4].starts_with("epc-of-twelv "), "{}", lines[4]);
        assert_eq!(lines[8], "cut: and 7 more enclaves, as a report lists 2");
    }

    #[test]
    fn numbers_are_shortened_only_when_they_must_be() {
        for (number, width, text) in [
            (0, 3, "0"),
            (16384, 5, "16384"),
            (134_217_728, 7, "134.2M"),
            (16_777_216, 7, "16.8M"),
            (99_999, 5, "99999"),
            (100_000, 5, "100k"),
            (12_345, 3, "12k"),
            (999_999, 5, "1.0M"),
            (u64::MAX, 3, "18E"),
        ] {
            assert_eq!(shortened(number, width), text, "{number} in {width}");
        }
    }
}
