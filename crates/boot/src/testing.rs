//! Kernels that are small enough to write down, for tests. `cargo xtask grub-oracle` compiles this
//! file too.

/// Bytes of the setup sector and of the boot sector before it.
const SETUP: usize = 0x400;
/// What the file is padded to.
const SECTOR: usize = 0x200;
/// HLT.
const HLT: u8 = 0xf4;

/// The smallest bzImage around `code`: boot protocol 2.15, one setup sector, loaded at 1 MiB, with
/// a flag for a 64-bit entry. HLT fills the last sector.
#[must_use]
pub fn bzimage(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; SETUP];
    file[0x1f1] = 1; // setup_sects
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x200..0x202].copy_from_slice(&[0xeb, 0x6a]); // jump
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    file[0x211] = 1; // loadflags
    file[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes()); // code32_start
    file[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    file[0x236] = 1; // xloadflags
    file[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes()); // cmdline_size
    file[0x258..0x260].copy_from_slice(&0x10_0000_u64.to_le_bytes()); // pref_address
    file[0x260..0x264].copy_from_slice(&0x10_0000_u32.to_le_bytes()); // init_size
    file.extend_from_slice(code);
    file.resize(file.len().next_multiple_of(SECTOR).max(SETUP + SECTOR), HLT);
    let paragraphs = u32::try_from((file.len() - SETUP) / 16).unwrap_or(u32::MAX);
    file[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes()); // syssize
    file
}

/// An ELF kernel with a PVH note: 16 bytes at 1 MiB with 2000H bytes of memory.
#[must_use]
pub fn elf() -> Vec<u8> {
    let mut file = vec![0; 64 + 2 * 56];
    file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    file[16..20].copy_from_slice(&[2, 0, 62, 0]);
    file[32] = 64; // e_phoff
    file[54] = 56; // e_phentsize
    file[56] = 2; // e_phnum
    let data = file.len() as u64;
    for (at, kind, offset, paddr, filesz, memsz) in
        [(64, 1_u32, data, 1 << 20, 16_u64, 0x2000_u64), (120, 4, data + 16, 0, 20, 20)]
    {
        file[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        for (field, value) in [(8, offset), (24, paddr), (32, filesz), (40, memsz)] {
            file[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
        }
    }
    file.extend([0x90; 16]);
    for word in [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0x10_0004] {
        file.extend(word.to_le_bytes());
    }
    file
}
