//! The entries of a directory.

/// What an entry has before its name.
const HEAD: usize = 8;
/// The largest block, whose length does not fit the field of an entry.
const LARGEST_BLOCK: usize = 1 << 16;

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DirectoryEntry {
    pub(super) name: String,
    pub(super) inode: u32,
}

/// The entries in the bytes of a directory; none crosses a block. Without types the field for them
/// is the high half of the name's length.
pub(super) fn entries(bytes: &[u8], block: usize, has_types: bool) -> Vec<DirectoryEntry> {
    bytes.chunks(block).flat_map(|block| entries_of_block(block, has_types)).collect()
}

fn entries_of_block(block: &[u8], has_types: bool) -> Vec<DirectoryEntry> {
    let mut found = Vec::new();
    let mut rest = block;
    while let Some((head, _)) = rest.split_first_chunk::<HEAD>() {
        let inode = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let len = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let len = match len {
            0 | 0xffff if block.len() == LARGEST_BLOCK => block.len(),
            len => len & !3,
        };
        let high = if has_types { 0 } else { usize::from(head[7]) << 8 };
        let name = HEAD.checked_add(high | usize::from(head[6]));
        let name = name.filter(|end| *end <= len).and_then(|end| rest.get(HEAD..end));
        if let Some(name) = name
            && inode != 0
            && !name.is_empty()
        {
            let name = String::from_utf8_lossy(name).into_owned();
            found.push(DirectoryEntry { name, inode });
        }
        // What has no length ends the block.
        match rest.get(len..) {
            Some(tail) if len >= HEAD => rest = tail,
            _ => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inode: u32, len: u16, name: &str, kind: u8) -> Vec<u8> {
        let mut bytes = inode.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend([name.len() as u8, kind]);
        bytes.extend(name.as_bytes());
        bytes.resize(len.into(), 0);
        bytes
    }

    #[test]
    fn deleted_entries_and_those_of_the_hash_tree_are_left_out() {
        let block =
            [entry(5, 12, "a", 1), entry(0, 16, "gone", 1), entry(6, 100, "bb", 2)].concat();

        let names: Vec<String> =
            entries(&block, 128, true).into_iter().map(|entry| entry.name).collect();

        assert_eq!(names, ["a", "bb"]);
    }

    #[test]
    fn lengths_that_lead_nowhere_end_the_block() {
        for len in [0, 4, 7, 60_000] {
            let mut block = entry(5, 12, "a", 1);
            block[4..6].copy_from_slice(&u16::to_le_bytes(len));
            block.extend(entry(6, 12, "b", 1));

            assert!(entries(&block, 64, true).len() <= 1, "{len}");
        }
    }
}
