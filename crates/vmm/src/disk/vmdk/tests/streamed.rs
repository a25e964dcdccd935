//! Images with compressed grains.

use miniz_oxide::deflate::compress_to_vec_zlib;

use super::*;

/// Compressed grains with markers.
const FLAGS: u32 = 0x30003;

/// The disk's bytes, of which the second grain was never written.
fn plain() -> Vec<u8> {
    let byte = |at: u64| if at / GRAIN == 1 { 0 } else { (at / 5 % 249) as u8 };
    (0..SIZE).map(byte).collect()
}

/// An image of those bytes, whose last grain is not whole. Its grains begin at any sector.
fn image() -> Built {
    let mut image = Built::new(3, FLAGS);
    image.put(77, &1_u16.to_le_bytes());
    let plain = plain();
    for (grain, data) in plain.chunks(GRAIN as usize).enumerate() {
        // The second table is where the first ends.
        if grain != 1 {
            image.entry(grain as u64, (image.0.len() as u64 / SECTOR) as u32);
            add(&mut image, grain as u64, &compress_to_vec_zlib(data, 6));
        }
    }
    image
}

/// Adds a grain's marker and data.
fn add(image: &mut Built, grain: u64, data: &[u8]) {
    image.0.extend((grain * GRAIN / SECTOR).to_le_bytes());
    image.0.extend((data.len() as u32).to_le_bytes());
    image.0.extend(data);
    let len = image.0.len().next_multiple_of(512);
    image.0.resize(len, 0);
}

/// The same image with its directory told at its end.
fn with_footer(mut image: Built) -> Built {
    let mut header = image.0[..512].to_vec();
    let mut marker = [0; 512];
    marker[..8].copy_from_slice(&1_u64.to_le_bytes());
    marker[12] = 3;
    image.put64(56, u64::MAX);
    header[56..64].copy_from_slice(&DIRECTORY.to_le_bytes());
    image.0.extend(marker);
    image.0.extend(header);
    image.0.extend([0; 512]);
    image
}

#[test]
fn compressed_grains_are_read() {
    for image in [image(), with_footer(image())] {
        let mut disk = image.open(false).unwrap();
        assert!(contents(&mut disk) == plain());

        // In any order and any part.
        for (offset, len) in [(GRAIN * 3 + 512, 512), (0, 512), (GRAIN - 512, 9 * 1024), (0, 1024)]
        {
            let mut part = vec![1; len];
            disk.read(offset, &mut part).unwrap();
            assert!(part == plain()[offset as usize..offset as usize + len]);
        }

        let base = image.open(false).unwrap();
        let mut over = Layered::vmdk(base).unwrap().under(memory()).unwrap();
        over.write(GRAIN, &[9; 512]).unwrap();
        let mut expected = plain();
        expected[GRAIN as usize..GRAIN as usize + 512].fill(9);
        assert!(contents(&mut over) == expected);
    }
}

#[test]
fn an_image_with_compressed_grains_is_not_opened_for_writing() {
    for (image, line) in [
        (image(), "it is compressed (streamOptimized), which is only read"),
        (Built::new(3, 3), "it is of version 3, which is only read"),
    ] {
        assert_eq!(image.open(true).unwrap_err(), line);
        assert!(image.open(false).is_ok());
    }
}

#[test]
fn a_second_header_that_is_not_like_the_first_is_refused() {
    type Change = fn(&mut Built, usize);
    // With where the second header is.
    let changes: &[Change] = &[
        |image, at| image.put(at, b"COWD"),
        |image, at| image.put64(at + 12, 8),
        |image, at| image.put32(at + 44, 8),
        |image, at| image.put64(at + 56, u64::MAX),
        |image, at| image.put32(at - 500, 4),
        |image, at| image.put32(at - 504, 4),
        |image, at| image.put32(at + 512 + 8, 4),
        |image, _| image.0.truncate(GRAINS as usize * 512),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut image = with_footer(image());
        let at = image.0.len() - 1024;
        change(&mut image, at);

        assert_eq!(image.open(false).unwrap_err(), "its second header cannot be", "{index}");
    }
}

#[test]
fn a_damaged_grain_fails_alone_and_inflates_to_no_more_than_a_grain() {
    let large = compress_to_vec_zlib(&vec![0; 64 << 20], 9);
    let short = compress_to_vec_zlib(&[1; 4095], 6);
    let mut checksum = compress_to_vec_zlib(&[1; 4096], 6);
    *checksum.last_mut().unwrap() ^= 1;
    for (data, line) in [
        (&large[..8000], "a compressed grain is damaged"),
        (&large, "a compressed grain has an impossible length"),
        (&[], "a compressed grain has an impossible length"),
        (&[1, 2, 3], "a compressed grain is damaged"),
        (&checksum, "a compressed grain is damaged"),
        (&short, "a compressed grain is too short"),
    ] {
        let mut image = image();
        image.entry(0, (image.0.len() as u64 / SECTOR) as u32);
        add(&mut image, 0, data);
        let mut disk = image.open(false).unwrap();

        let mut sector = [0; 512];
        let error = disk.read(0, &mut sector).unwrap_err();

        assert_eq!(error.to_string(), format!("the image is damaged: {line}"));
        disk.read(2 * GRAIN, &mut sector).unwrap();
        assert!(sector == plain()[2 * GRAIN as usize..][..512]);
    }
    // Out of the file, and at its end.
    let mut image = image();
    image.entry(0, u32::MAX);
    image.entry(2, (image.0.len() as u64 / SECTOR) as u32 - 1);
    image.put32(image.0.len() - 504, 4096);
    let mut disk = image.open(false).unwrap();
    assert!(disk.read(0, &mut [0; 512]).is_err());
    assert!(disk.read(2 * GRAIN, &mut [0; 512]).is_err());
}
