//! Numbers as GRUB reads them.

use super::status::Status;

/// The number at the start of a text, and what follows it. Base 0 takes 0x for hexadecimal and a
/// zero for octal.
///
/// # Errors
///
/// [`Status::BAD_NUMBER`] where no digit comes first, [`Status::OUT_OF_RANGE`] for one of more than
/// 32 bits.
pub(super) fn parse(text: &str, base: u32) -> Result<(u32, &str), Status> {
    let mut rest = text.trim_start_matches(is_space);
    let mut base = base;
    if matches!(base, 0 | 16)
        && let Some(hexadecimal) = rest.strip_prefix("0x")
    {
        (base, rest) = (16, hexadecimal);
    } else if base == 0 {
        let octal = rest.starts_with('0') && rest[1..].starts_with(|c: char| c.is_digit(8));
        base = if octal { 8 } else { 10 };
    }
    let digits = rest.find(|c: char| !c.is_digit(base)).unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(digits);
    if digits.is_empty() {
        return Err(Status::BAD_NUMBER);
    }
    let number = u32::from_str_radix(digits, base).map_err(|_| Status::OUT_OF_RANGE)?;
    Ok((number, tail))
}

/// A number and nothing else.
///
/// # Errors
///
/// As [`parse`], and [`Status::BAD_ARGUMENT`] where something follows.
pub(super) fn whole(text: &str) -> Result<u32, Status> {
    match parse(text, 10)? {
        (number, "") => Ok(number),
        _ => Err(Status::BAD_ARGUMENT),
    }
}

/// What `test` takes a word for: a word that is not a number is zero, one that is too large is the
/// largest.
pub(super) fn unsigned(text: &str) -> u32 {
    match parse(text, 0) {
        Ok((number, _)) => number,
        Err(Status::OUT_OF_RANGE) => u32::MAX,
        Err(_) => 0,
    }
}

/// As [`unsigned`], with a minus before it or none.
pub(super) fn signed(text: &str) -> i32 {
    match text.strip_prefix('-') {
        Some(magnitude) => unsigned(magnitude).cast_signed().wrapping_neg(),
        None => unsigned(text).cast_signed(),
    }
}

/// What parts words in the value of a variable.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bases_and_ends() {
        for (text, base, expected) in [
            ("12x", 0, Ok((12, "x"))),
            ("0x1f", 0, Ok((31, ""))),
            ("010", 0, Ok((8, ""))),
            ("0", 0, Ok((0, ""))),
            ("08", 0, Ok((8, ""))),
            ("010", 10, Ok((10, ""))),
            (" 7>2", 0, Ok((7, ">2"))),
            ("x", 0, Err(Status::BAD_NUMBER)),
            ("", 10, Err(Status::BAD_NUMBER)),
            ("4294967296", 0, Err(Status::OUT_OF_RANGE)),
        ] {
            assert_eq!(parse(text, base), expected, "{text}");
        }
        assert_eq!((signed("-3"), signed("x"), whole("3x")), (-3, 0, Err(Status::BAD_ARGUMENT)));
    }
}
