//! Patterns with stars, whatever else a language has in them.

/// A place of a pattern.
pub(super) trait Part {
    /// Any number of characters.
    fn is_star(&self) -> bool;

    /// Whether it is this one character. Not asked of a star.
    fn takes(&self, next: char) -> bool;
}

/// Whether a pattern is all of a text. A star that has to take more is tried again only from the
/// last one, so that this takes no more than the product of both lengths.
pub(super) fn matches(pattern: &[impl Part], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star was and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(part) if part.is_star() => {
                star = Some((p, t));
                p += 1;
            }
            Some(part) if part.takes(text[t]) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(Part::is_star)
}
