//! Colours and patterns, in a light and a dark form: one file serves both.

use std::fmt::Write as _;

use crate::CellKind;

/// Colours of enclaves, in their order; then they repeat.
const PALETTE: [&str; 12] = [
    "#4477c9", "#e07b39", "#3f9b6c", "#b254a5", "#c9a227", "#2aa6b8", "#d0526a", "#7d6bd6",
    "#7a9a2e", "#a1673f", "#e089bd", "#5fb0e6",
];

/// How many colours of enclaves there are.
pub(super) const COLOURS: u64 = PALETTE.len() as u64;
/// The class of pages of an enclave that is not known.
pub(super) const UNLISTED: &str = "other";

/// What differs in light and dark surroundings, colours of what is no enclave's and of the page among it: class,
/// property, and its two values.
const THEMES: [(&str, &str, &str, &str); 10] = [
    ("paper", "fill", "#fff", "#14181f"),
    ("grid", "stroke", "#fff", "#14181f"),
    ("ink", "fill", "#2b3345", "#d7dce4"),
    ("faint", "fill", "#68728a", "#98a3b5"),
    ("line", "stroke", "#a9b2c0", "#566174"),
    ("unbacked", "fill", "#e9ecf1", "#262d39"),
    ("unused", "fill", "#c3cad5", "#414b5c"),
    ("va", "fill", "#98a2b3", "#6c788c"),
    (UNLISTED, "fill", "#6d788b", "#a3adbd"),
    ("secs", "fill-opacity", ".62", ".45"),
];

/// What is drawn over the colour of an enclave by the type of a page: class and properties.
const MARKS: [(&str, &str); 5] = [
    ("secs", "fill:#000"),
    ("tcs", "fill:#fff;fill-opacity:.62"),
    ("trim", "fill:url(#trim)"),
    ("shadow", "fill:url(#shadow)"),
    ("blocked", "fill:url(#blocked)"),
];

/// The class of a page that is no enclave's.
pub(super) const fn plain(kind: CellKind) -> Option<&'static str> {
    match kind {
        CellKind::Unbacked => Some("unbacked"),
        CellKind::Unused => Some("unused"),
        CellKind::Va => Some("va"),
        _ => None,
    }
}

/// The class of what marks a page of an enclave; ordinary ones have no mark.
pub(super) const fn mark(kind: CellKind) -> Option<&'static str> {
    match kind {
        CellKind::Secs => Some("secs"),
        CellKind::Tcs => Some("tcs"),
        CellKind::Trim => Some("trim"),
        CellKind::ShadowStack => Some("shadow"),
        CellKind::Blocked => Some("blocked"),
        _ => None,
    }
}

/// What a kind of page is called.
pub(super) const fn name(kind: CellKind) -> &'static str {
    match kind {
        CellKind::Unbacked => "not backed",
        CellKind::Unused => "backed, unused",
        CellKind::Secs => "SECS",
        CellKind::Tcs => "TCS",
        CellKind::Reg => "REG",
        CellKind::Va => "VA",
        CellKind::Trim => "TRIM",
        CellKind::ShadowStack => "shadow stack",
        CellKind::Blocked => "blocked",
    }
}

/// The style sheet.
pub(super) fn sheet() -> String {
    let mut sheet = "text{font:13px system-ui,sans-serif}.title{font-size:20px;font-weight:600}\
                     .caption{font-weight:600}.code{font:12px ui-monospace,monospace}\
                     .small{font-size:11px}.line{fill:none;stroke-dasharray:3 3}.tick{stroke-dasharray:none}\n"
        .to_owned();
    let mut dark = String::new();
    // Writing to a String cannot fail.
    for (class, property, light, other) in THEMES {
        let _ = write!(sheet, ".{class}{{{property}:{light}}}");
        let _ = write!(dark, ".{class}{{{property}:{other}}}");
    }
    for (number, colour) in PALETTE.iter().enumerate() {
        let _ = write!(sheet, ".e{number}{{fill:{colour}}}");
    }
    for (class, properties) in MARKS {
        let _ = write!(sheet, ".{class}{{{properties}}}");
    }
    sheet + "\n@media (prefers-color-scheme:dark){" + &dark + "}\n"
}

/// The patterns: lines between cells of each size, and marks.
pub(super) fn patterns() -> String {
    let pattern = |name: &str, side: usize, path: &str| {
        format!(
            "<pattern id=\"{name}\" width=\"{side}\" height=\"{side}\" \
             patternUnits=\"userSpaceOnUse\"><path {path}/></pattern>\n"
        )
    };
    let grids = [(4, 0.5), (8, 1.0), (16, 1.0)].map(|(side, width)| {
        let path = format!(
            "d=\"M{side} 0V{side}H0\" class=\"grid\" fill=\"none\" stroke-width=\"{width}\""
        );
        pattern(&format!("grid{side}"), side, &path)
    });
    let marks = [("trim", "M0 4L4 0"), ("shadow", "M0 2H4"), ("blocked", "M0 4L4 0M0 0L4 4")];
    let marks = marks.map(|(name, line)| {
        pattern(
            name,
            4,
            &format!("d=\"{line}\" fill=\"none\" stroke=\"#000\" stroke-opacity=\".75\""),
        )
    });
    grids.concat() + &marks.concat()
}
