//! Places in the new root, of which whoever made it may have made links.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use crate::root::NEW;

/// Links on the way to a place, as many as the kernel follows.
const MOST_LINKS: u32 = 40;

/// Where a path of the new root is as seen from here. Links lead where they lead for the command. What is missing
/// is made: folders, and at the end a file if it is to be one.
pub(crate) fn inside(path: &Path, file: bool) -> io::Result<PathBuf> {
    let root = Path::new(NEW);
    let (mut at, mut links) = (root.to_owned(), 0);
    let mut rest = VecDeque::from(steps(path));
    while let Some(step) = rest.pop_front() {
        if step == ".." {
            if at != root {
                at.pop();
            }
            continue;
        }
        let next = at.join(&step);
        match fs::symlink_metadata(&next) {
            Ok(found) if found.is_symlink() => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = fs::read_link(&next)?;
                if target.is_absolute() {
                    root.clone_into(&mut at);
                }
                for step in steps(&target).into_iter().rev() {
                    rest.push_front(step);
                }
                continue;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => match rest.is_empty() && file {
                true => drop(File::create(&next)?),
                false => fs::create_dir(&next)?,
            },
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        at = next;
    }
    Ok(at)
}

fn steps(path: &Path) -> Vec<OsString> {
    let is_step =
        |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(is_step).map(|part| part.as_os_str().to_owned()).collect()
}
