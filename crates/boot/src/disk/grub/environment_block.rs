//! `grubenv`: variables that last from one boot to the next.

/// Its first line.
const SIGNATURE: &str = "# GRUB Environment Block\n";

/// The variables of a block, in their order; `None` if it is not one.
pub(super) fn variables(block: &[u8]) -> Option<Vec<(String, String)>> {
    let text = String::from_utf8_lossy(block);
    let lines = text.strip_prefix(SIGNATURE)?.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    Some(pairs.map(|(name, value)| (name.to_owned(), unescape(value))).collect())
}

/// Undoes the backslashes before backslashes.
fn unescape(value: &str) -> String {
    let mut plain = String::new();
    let mut rest = value.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' => plain.extend(rest.next()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::variables;

    #[test]
    fn a_block_of_grub_editenv_is_read() {
        let mut block =
            b"# GRUB Environment Block\nsaved_entry=gnulinux\\\\x\nnext_entry=\n".to_vec();
        block.resize(1024, b'#');

        let expected = [("saved_entry", "gnulinux\\x"), ("next_entry", "")];
        assert_eq!(
            variables(&block).unwrap(),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn what_is_no_block_has_no_variables() {
        assert!(variables(b"saved_entry=1\n").is_none());
        assert!(variables(&[0xff; 1024]).is_none());
    }
}
