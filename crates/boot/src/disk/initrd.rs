//! The initial RAM disk of several files, as GRUB's `initrd` puts them together: one after the other,
//! and those that have a name of their own in cpio archives of the format newc.

use std::collections::BTreeSet;

use super::volumes::{InitrdPart, Place};

/// Modes of an archive's directories and files.
const DIRECTORY: u32 = 0o040_777;
const FILE: u32 = 0o100_777;
/// Ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// The bytes of all parts, at most `limit`. `read` gives those of a file, at most as many as it is
/// told.
pub(super) fn assemble<E>(
    parts: &[InitrdPart],
    limit: u64,
    read: impl Fn(&Place, u64) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let mut bytes = Vec::new();
    // The directories of the archive that is being written, if one is.
    let mut archive: Option<BTreeSet<String>> = None;
    for part in parts {
        align(&mut bytes);
        let room = limit.saturating_sub(bytes.len() as u64);
        let contents = read(&part.place, room)?;
        match &part.name {
            Some(name) => {
                let known = archive.get_or_insert_default();
                for directory in directories(name) {
                    if known.insert(directory.clone()) {
                        header(&mut bytes, &directory, DIRECTORY, 0);
                    }
                }
                header(&mut bytes, name, FILE, contents.len());
            }
            None if archive.take().is_some() => header(&mut bytes, TRAILER, 0, 0),
            None => {}
        }
        bytes.extend(contents);
    }
    if archive.is_some() {
        align(&mut bytes);
        header(&mut bytes, TRAILER, 0, 0);
    }
    Ok(bytes)
}

fn align(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The directories of a path, the outermost first.
fn directories(path: &str) -> Vec<String> {
    let ends = path.match_indices('/').map(|(end, _)| end);
    // Slashes one after the other are one.
    ends.filter(|end| *end > 0 && !path[..*end].ends_with('/'))
        .map(|end| path[..end].to_owned())
        .collect()
}

/// The head of an archive's member: numbers of eight hexadecimal digits, then the name.
fn header(bytes: &mut Vec<u8>, name: &str, mode: u32, size: usize) {
    let name_size = name.len() + 1;
    bytes.extend(b"070701");
    // Inode, mode, owner, group, links, time, size, four numbers of devices, the name's size, check.
    let fields = [0, mode as usize, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    bytes.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    bytes.extend(name.as_bytes());
    bytes.push(0);
    align(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(parts: &[(Option<&str>, &str)]) -> Vec<u8> {
        let parts: Vec<InitrdPart> = parts
            .iter()
            .map(|(name, path)| InitrdPart {
                name: name.map(str::to_owned),
                place: Place { volume: 0, path: (*path).to_owned() },
            })
            .collect();
        // A file's contents are its name.
        let read = |place: &Place, _| Ok::<_, ()>(place.path.clone().into_bytes());
        assemble(&parts, 1 << 20, read).unwrap()
    }

    #[test]
    fn files_are_one_after_the_other() {
        assert_eq!(assembled(&[(None, "12345"), (None, "678")]), b"12345\0\0\x00678");
    }

    #[test]
    fn files_with_names_are_in_an_archive() {
        let bytes =
            assembled(&[(None, "abcd"), (Some("etc/x/y"), "Y"), (Some("etc/z"), "Z"), (None, "e")]);

        let text = String::from_utf8(bytes).unwrap();
        let members: Vec<&str> = text.split("070701").collect();
        let names: Vec<&str> =
            members[1..].iter().map(|member| member[104..].split('\0').next().unwrap()).collect();
        assert_eq!(members[0], "abcd");
        assert_eq!(names, ["etc", "etc/x", "etc/x/y", "etc/z", TRAILER]);
        assert!(members[3].trim_end_matches('\0').ends_with('Y'));
        assert!(text.ends_with("\0e"));
    }
}
