use super::*;
use crate::page_map::MAX_CELLS;
use crate::report::{OwnedCells, PageMap};
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

/// Area of the paths of a class, in pixels.
fn area(svg: &str, class: &str) -> usize {
    let start = format!("<path class=\"{class}\" d=\"");
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
    // Of the first section a cell has 8 pixels, and of the second 16.
    for (class, first, second) in [
        // The enclaves, and the marks of their pages.
        ("e0", 1 + 40 + 16 + 1037, 0),
        ("e1", 1, 0),
        ("secs", 2, 0),
        ("tcs", 4, 0),
        ("blocked", 16, 0),
        ("va", 5, 0),
        ("unused", 100, 34),
        ("trim", 0, 0),
        ("other", 0, 0),
    ] {
        assert_eq!(area(&svg, class), first * 8 * 8 + second * 16 * 16, "{class}");
    }
    for text in [
        "EPC of guest",
        "epc0: 64 MiB at guest physical 0x100000000",
        "a cell is a page, a row 512 KiB",
        "a cell is a page, a row 256 KiB",
        "REG 1089",
        "abababababab…  256 KiB, 43 pages, 4 threads inside",
        "(before EINIT, SECS at 0x100001000)",
    ] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(!svg.contains("which repeat"));
}

#[test]
fn what_is_not_in_use_is_left_out_and_told_of_at_its_address() {
    let svg = picture(&[sample::report()]);

    // 1200 cells are in 10 rows of 128.
    assert_eq!(svg.matches(&format!(">{} pages not backed<", 16384 - 10 * 128)).count(), 1);
    assert_eq!(svg.matches(&format!(">{} pages not backed<", 16384 - 64)).count(), 1);
    let offsets: Vec<&str> =
        svg.split(">+0x").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    // Addresses are 16 pixels apart, and rows 8 or 16 high.
    assert_eq!(offsets, ["0", "100000", "200000", "300000", "400000", "500000", "0", "40000"]);
}

#[test]
fn a_file_has_a_light_and_a_dark_form() {
    let svg = picture(&[sample::report()]);

    let (light, dark) = svg.split_once("@media (prefers-color-scheme:dark)").unwrap();
    let dark = dark.split_once("</style>").unwrap().0;
    for class in ["paper", "grid", "ink", "unbacked", "unused", "va", "other"] {
        let rule = format!(".{class}{{");
        assert!(light.contains(&rule) && dark.contains(&rule), "{class}");
    }
    assert!(!svg.contains("fill=\"#"), "a colour that no form changes");
}

#[test]
fn colours_repeat_when_there_are_more_enclaves_and_the_legend_says_so() {
    let mut report = sample::report();
    report.sections.truncate(1);
    report.enclaves = vec![report.enclaves[0].clone(); 14];
    let owner = |enclave| OwnedCells { enclave, first: enclave, count: 1 };
    let owners = (0..14).map(owner).collect();
    let map = PageMap { pages_per_cell: 1, cells: "R".repeat(16), owners };
    report.sections[0].page_map = Some(map);

    let svg = picture(&[report]);

    let areas = ["e0", "e1", "e2", "e11", "other"].map(|class| area(&svg, class) / 256);
    assert_eq!(areas, [2, 2, 1, 1, 2]);
    assert!(svg.contains("there are 12 colours, which repeat"));
}

#[test]
fn a_picture_is_bounded_whatever_the_sections_and_the_peer_are() {
    let mut report = sample::report();
    report.name = "<&>\u{1}".repeat(1000);
    let owner = |enclave| OwnedCells { enclave, first: enclave, count: 1 };
    let owners: Vec<_> = (0..1 << 15).map(owner).collect();
    report.sections = vec![report.sections[0].clone(); 8];
    for section in &mut report.sections {
        section.size = 512 << 30;
        section.id = "\"".repeat(1000);
        section.page_map = Some(PageMap {
            pages_per_cell: 8192,
            cells: "SV".repeat(MAX_CELLS),
            owners: owners.clone(),
        });
    }
    report.enclaves = vec![report.enclaves[0].clone(); 1024];

    let svg = picture(&[report]);

    assert!(is_well_formed(&svg));
    assert!(svg.len() < 8 << 20, "{} bytes", svg.len());
    assert!(svg.contains("and 1000 more"));
}

#[test]
fn a_small_section_has_large_cells() {
    for (cells, side) in [(16, 16), (1024, 16), (1025, 8), (4096, 8), (4097, 4), (16384, 4)] {
        let mut report = sample::report();
        report.sections.truncate(1);
        report.sections[0].page_map =
            Some(PageMap { pages_per_cell: 1, cells: "R".repeat(cells), owners: Vec::new() });

        let svg = picture(&[report]);

        assert_eq!(area(&svg, "other"), cells * side * side);
    }
}
