//! What a guest does with a disk whose image anybody may have written.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use cloister_devices::virtio::BlockStorage as _;
use cloister_vmm::config::DiskConfig;
use cloister_vmm::disk::{Image, ImageFormat, Opened};

use super::Bytes;

/// Steps of a guest.
const STEPS: usize = 64;

fn open(image: &File, format: ImageFormat, writable: bool) -> Option<Opened> {
    let config =
        DiskConfig { readonly: !writable, format: Some(format), ..DiskConfig::new("image") };
    match Image::open(&config, image.try_clone().expect("a file")) {
        Ok(opened) => Some(opened),
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
            None
        }
    }
}

/// Uses the disk in `image` as the fuzzer's bytes say.
pub(super) fn use_disk(bytes: &mut Bytes<'_>, image: &File, format: ImageFormat, writable: bool) {
    let contents = contents(image);
    let Some(Opened { image: mut disk, mut largest_file, .. }) = open(image, format, writable)
    else {
        return;
    };
    let sectors = disk.len() / 512;
    let mut buffer = [0; 4096];
    for _ in 0..STEPS {
        if bytes.is_empty() || sectors < 16 {
            break;
        }
        let action = bytes.u8();
        let start = if bytes.u8() & 1 == 0 { bytes.u16().into() } else { bytes.u64() };
        let len = 512 * (1 + u64::from(bytes.u8() % 8));
        let offset = start % (sectors - 8) * 512;
        // Err: what is damaged fails.
        let _ = match action % 6 {
            0 => disk.read(offset, &mut buffer[..len as usize]),
            1 if writable => disk.write(offset, &buffer[..len as usize]),
            2 if writable => disk.discard(offset, len),
            3 if writable => disk.write_zeroes(offset, len, action & 64 == 0),
            4 if writable => disk.flush(),
            5 => {
                drop(disk.write_back());
                drop(disk);
                match open(image, format, writable) {
                    Some(opened) if opened.image.len() / 512 == sectors => {
                        disk = opened.image;
                        largest_file = opened.largest_file;
                    }
                    _ => return,
                }
                Ok(())
            }
            _ => Ok(()),
        };
    }
    drop(disk);
    if writable {
        let len = image.metadata().expect("a file in memory").len();
        assert!(len <= largest_file, "{len} bytes are more than {largest_file}");
    } else {
        assert!(self::contents(image) == contents, "a read-only image changed");
    }
}

/// The bytes of a file, up to 1 MiB.
fn contents(file: &File) -> Vec<u8> {
    let len = file.metadata().expect("a file in memory").len().min(1 << 20);
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0).expect("a file in memory");
    bytes
}
