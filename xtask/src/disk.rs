//! `cargo xtask disk`: the Debian 12 of the tests, for machines of the user's own.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::debian::{self, Debian};
use crate::process;

/// More than an MBR's or a user's disk: a mistake.
const LARGEST: u64 = 2 << 40;

/// Options of `cargo xtask disk`.
#[derive(Args)]
pub(crate) struct Options {
    /// The file to make
    #[arg(value_name = "OUT.img")]
    out: PathBuf,
    /// Its size; what the guest does not write takes no room
    #[arg(long, default_value = "4G")]
    size: String,
}

/// Makes the disk and says how to boot it.
///
/// # Errors
/// Options that are wrong; packages that cannot be fetched; debootstrap's own.
pub(crate) fn run(options: &Options) -> Result<()> {
    let size = check(options)?;
    let debian = Debian::get()?;
    let shown = options.out.display();
    process::step(&format!("Writing {shown} ({})", options.size));
    // A disk that was not finished must not look as one.
    let mut draft = options.out.clone().into_os_string();
    draft.push(".part");
    let draft = PathBuf::from(draft);
    let made = debian.copy(&draft, size).and_then(|()| Ok(std::fs::rename(&draft, &options.out)?));
    if let Err(error) = made {
        let _ = std::fs::remove_file(&draft);
        return Err(error);
    }
    println!("{}", instructions(&shown.to_string()));
    Ok(())
}

fn instructions(image: &str) -> String {
    format!(
        "==> {image} holds Debian 12: root logs in without a password, enclave-demo and test_sgx run \
         enclaves\n\
         \x20   cloister run --disk {image} --memory 2G --sgx-epc id=epc0,size=64M\n\
         \x20   cloister qemu -nographic -m 2G -drive file={image},if=virtio \
         -object memory-backend-epc,id=mem0,size=64M -sgx-epc id=epc0,memdev=mem0\n\
         \x20   `poweroff` in the guest ends the machine, Ctrl-A x too"
    )
}

/// Judges the options before anything takes time; the size in bytes.
fn check(options: &Options) -> Result<u64> {
    let out = options.out.display();
    ensure!(
        options.out.symlink_metadata().is_err(),
        "{out} is there already: give another name, or remove it first"
    );
    let folder = match options.out.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    ensure!(folder.is_dir(), "{out}: there is no folder {}: make it first", folder.display());
    let text = &options.size;
    let (number, shift) = match text.as_bytes().last() {
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text.as_str(), 64),
    };
    let number = number.parse::<u64>().ok().filter(|_| shift < 64);
    let Some(number) = number else {
        bail!("--size {text:?} is not a size: write a number with M, G or T, such as 4G");
    };
    match number.checked_mul(1 << shift) {
        Some(size) if size < debian::SIZE => {
            bail!("--size {text} is too small for the system: write at least 1G")
        }
        Some(size @ ..=LARGEST) => Ok(size),
        _ => bail!("--size {text} is too large: write at most 2T"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Options, check};

    fn line(out: &str, size: &str) -> String {
        let options = Options { out: Path::new(out).to_owned(), size: size.to_owned() };
        check(&options).unwrap_err().to_string()
    }

    #[test]
    fn a_size_is_a_number_with_its_unit() {
        let size = |size: &str| {
            check(&Options { out: Path::new("none.img").to_owned(), size: size.to_owned() })
                .unwrap()
        };

        assert_eq!([size("1G"), size("1536M"), size("2T")], [1 << 30, 1536 << 20, 2 << 40]);
    }

    #[test]
    fn wrong_sizes_are_refused_with_what_to_write() {
        for size in ["", "G", "4", "-1G", "1.5G", "4X", "4é", "99999999999999999999G"] {
            assert_eq!(
                line("none.img", size),
                format!("--size {size:?} is not a size: write a number with M, G or T, such as 4G")
            );
        }
        assert_eq!(
            line("none.img", "1023M"),
            "--size 1023M is too small for the system: write at least 1G"
        );
        for size in ["3T", "99999999999T"] {
            assert_eq!(
                line("none.img", size),
                format!("--size {size} is too large: write at most 2T")
            );
        }
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let name = std::env::temp_dir().join(format!("xtask-disk-{}", std::process::id()));
        std::fs::write(&name, "precious").unwrap();

        let error = line(name.to_str().unwrap(), "4G");

        assert!(
            error.ends_with("is there already: give another name, or remove it first"),
            "{error}"
        );
        assert_eq!(std::fs::read(&name).unwrap(), b"precious");
        std::fs::remove_file(name).unwrap();
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        assert_eq!(
            line("no/such/disk.img", "4G"),
            "no/such/disk.img: there is no folder no/such: make it first"
        );
    }
}
