//! What is in a folder.

use std::fs;
use std::io;
use std::path::Path;

use guest_sha256::Sha256;

/// SHA-256 of all names, kinds and contents below a folder, in hexadecimal digits.
pub(crate) fn digest(folder: &Path) -> Result<String, String> {
    let mut sha = Sha256::default();
    add(&mut sha, folder, "").map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(sha.finish().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn add(sha: &mut Sha256, folder: &Path, prefix: &str) -> io::Result<()> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        let path = folder.join(&name);
        let name = format!("{prefix}/{}", name.display());
        let kind = fs::symlink_metadata(&path)?.file_type();
        let contents = if kind.is_dir() {
            sha.update(format!("{name}\0d").as_bytes());
            add(sha, &path, &name)?;
            continue;
        } else if kind.is_symlink() {
            fs::read_link(&path)?.display().to_string().into_bytes()
        } else {
            fs::read(&path)?
        };
        sha.update(format!("{name}\0{}\0", contents.len()).as_bytes());
        sha.update(&contents);
    }
    Ok(())
}
