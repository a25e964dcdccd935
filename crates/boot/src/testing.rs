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
    let paragraphs = (file.len() - SETUP) / 16;
    file[0x1f4..0x1f8].copy_from_slice(&(paragraphs as u32).to_le_bytes()); // syssize
    file
}
