//! bzImage by the Linux/x86 boot protocol (Documentation/x86/boot.rst).

use std::io::Cursor;

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{self, KernelLoader};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

use super::BootSource;
use super::entry::EntryState;
use super::error::{BootError, KernelError};
use super::memory::{MAX_MAP_ENTRIES, MemoryMap};

use super::placement::{
    BOOT_PARAMS, COMMAND_LINE, LOWEST_KERNEL, check_command_line, write_command_line,
};
use crate::narrow::{in_32_bits, in_memory};

/// Offset of the setup header in the file and in `boot_params`.
const HEADER: usize = 0x1f1;
/// Offset of the 0xAA55 signature.
const BOOT_FLAG: usize = 0x1fe;
/// Offset of the "HdrS" magic number.
const MAGIC: usize = 0x202;
/// `loadflags`: the protected-mode code is loaded at 0x100000, a bzImage.
const LOADED_HIGH: u8 = 1 << 0;
/// `xloadflags`: there is a 64-bit entry at offset 0x200 of the protected-mode code.
const XLF_KERNEL_64: u16 = 1 << 0;
/// Offset of the 64-bit entry.
const ENTRY_64: u64 = 0x200;
/// `type_of_loader`: a loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// Oldest protocol that says how long a command line may be.
const OLDEST_PROTOCOL: u16 = 0x0206;
/// Oldest protocol with `pref_address` and `init_size`.
const PREF_ADDRESS_PROTOCOL: u16 = 0x020a;
/// Oldest protocol with `xloadflags`.
const XLOADFLAGS_PROTOCOL: u16 = 0x020c;

/// A bzImage whose header has been judged.
pub struct BzImage {
    bytes: Vec<u8>,
    header: setup_header,
}

impl std::fmt::Debug for BzImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BzImage").field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl BzImage {
    /// Whether the bytes have both magic numbers of a kernel with a setup header.
    pub(super) fn is_magic(bytes: &[u8]) -> bool {
        bytes.get(BOOT_FLAG..BOOT_FLAG + 2) == Some(&[0x55, 0xaa])
            && bytes.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
    }

    /// Judges the header and cuts off what follows the kernel, such as a signature.
    pub(super) fn parse(mut bytes: Vec<u8>) -> Result<Self, KernelError> {
        let cut_short = |have: usize, need: u64| KernelError::Truncated { have: have as u64, need };
        let header_end = HEADER + size_of::<setup_header>();
        let header = bytes
            .get(HEADER..header_end)
            .ok_or_else(|| cut_short(bytes.len(), header_end as u64))?;
        // The header ends where the jump over it lands; what follows is code.
        let jump_target = MAGIC + usize::from(header[0x201 - HEADER]);
        let used = jump_target.clamp(HEADER, header_end) - HEADER;
        let mut copy = setup_header::default();
        copy.as_mut_slice()[..used].copy_from_slice(&header[..used]);
        let header = copy;

        let version = header.version;
        if version < OLDEST_PROTOCOL || header.loadflags & LOADED_HIGH == 0 {
            let [minor, major] = version.to_le_bytes();
            return Err(KernelError::OldProtocol(major, minor));
        }
        let setup_sectors = match header.setup_sects {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let need = (setup_sectors + 1) * 512 + u64::from(header.syssize) * 16;
        // The last paragraph need not be whole: the size is rounded up.
        let have = bytes.len() as u64;
        if have + 15 < need {
            return Err(cut_short(bytes.len(), need));
        }
        bytes.truncate(in_memory(need.min(have)));
        if header.syssize == 0 {
            return Err(KernelError::Malformed("syssize is 0"));
        }
        Ok(Self { bytes, header })
    }

    /// Where the protected-mode code is loaded and the end of what it uses before it reads the
    /// memory map.
    fn extent(&self) -> Result<(u64, u64), KernelError> {
        let header = self.header;
        let payload = u64::from(header.syssize) * 16;
        let (start, len) = if header.version >= PREF_ADDRESS_PROTOCOL {
            (header.pref_address, payload.max(u64::from(header.init_size)))
        } else {
            (LOWEST_KERNEL, payload)
        };
        if start < LOWEST_KERNEL {
            return Err(KernelError::Malformed("pref_address is in the first MiB"));
        }
        let end = start.checked_add(len).ok_or(KernelError::Malformed("pref_address"))?;
        Ok((start, end))
    }
}

pub(super) fn load(
    kernel: &BzImage,
    source: &BootSource,
    ram: &GuestMemoryMmap,
    memory: &MemoryMap,
    rsdp: u64,
) -> Result<EntryState, BootError> {
    check_command_line(&source.cmdline, kernel.header.cmdline_size as usize)?;
    let (start, end) = kernel.extent()?;
    if end > memory.low_ram_end {
        return Err(KernelError::DoesNotFit { start, end, ram: memory.low_ram_end }.into());
    }
    loader::BzImage::load(ram, Some(GuestAddress(start)), &mut Cursor::new(&kernel.bytes), None)
        .map_err(KernelError::Load)?;

    let mut params = boot_params { hdr: kernel.header, ..Default::default() };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.code32_start = in_32_bits(start);
    params.hdr.cmd_line_ptr = in_32_bits(COMMAND_LINE);
    params.acpi_rsdp_addr = rsdp;
    write_command_line(ram, &source.cmdline)?;
    if let Some(initrd) = &source.initrd {
        let limit = u64::from(kernel.header.initrd_addr_max) + 1;
        let place = initrd.load(ram, end..limit.min(memory.low_ram_end))?;
        params.hdr.ramdisk_image = in_32_bits(place.start);
        params.hdr.ramdisk_size = in_32_bits(place.end - place.start);
    }
    for (slot, entry) in memory.entries.iter().take(MAX_MAP_ENTRIES).enumerate() {
        params.e820_table[slot] = boot_e820_entry {
            addr: entry.range.start,
            size: entry.range.end - entry.range.start,
            r#type: entry.kind as u32,
        };
        params.e820_entries += 1;
    }
    ram.write_slice(params.as_slice(), GuestAddress(BOOT_PARAMS))?;

    let long_mode = kernel.header.version >= XLOADFLAGS_PROTOCOL
        && kernel.header.xloadflags & XLF_KERNEL_64 != 0;
    Ok(if long_mode {
        EntryState::long_mode(ram, start + ENTRY_64, BOOT_PARAMS)?
    } else {
        EntryState::protected_mode(ram, in_32_bits(start), 0, BOOT_PARAMS)?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{ACPI_START, MapEntry, RangeKind, machine};
    use crate::{CommandLineError, Initrd, InitrdError, KernelImage, Remedy};
    use cloister_x86::regs::Cr0;

    const MIB: u64 = 1 << 20;

    /// A bzImage of protocol 2.15 with the offsets of boot.rst's table: one setup sector, 64 KiB
    /// of protected-mode code.
    fn image(edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut file = vec![0; 0x400];
        file[0x1f1] = 1; // setup_sects
        file[0x1f4..0x1f8].copy_from_slice(&0x1000_u32.to_le_bytes()); // syssize
        file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        file[0x200..0x202].copy_from_slice(&[0xeb, 0x6a]); // jump
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        file[0x211] = 1; // loadflags
        file[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
        file[0x230..0x234].copy_from_slice(&0x20_0000_u32.to_le_bytes()); // kernel_alignment
        file[0x234] = 1; // relocatable_kernel
        file[0x236..0x238].copy_from_slice(&1_u16.to_le_bytes()); // xloadflags
        file[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes()); // cmdline_size
        file[0x258..0x260].copy_from_slice(&(16 * MIB).to_le_bytes()); // pref_address
        file[0x260..0x264].copy_from_slice(&(2 * MIB as u32).to_le_bytes()); // init_size
        file.extend((0..0x1_0000_u32).map(|n| (n % 251) as u8));
        edit(&mut file);
        file
    }

    fn source(file: Vec<u8>, initrd: Option<usize>, cmdline: &str) -> BootSource {
        BootSource {
            kernel: KernelImage::from_bytes(file).unwrap(),
            initrd: initrd.map(|len| Initrd::from_bytes(vec![0x5a; len])),
            cmdline: cmdline.into(),
        }
    }

    #[test]
    fn boot_params_hold_header_command_line_initrd_rsdp_and_e820() {
        let reserved =
            |start, size| MapEntry { range: start..start + size, kind: RangeKind::Reserved };
        let (ram, memory) = machine(
            64 * MIB,
            &[
                reserved(0xfec0_0000, 0x1000),
                reserved(0xfee0_0000, 0x1000),
                reserved(0x1_0000_0000, MIB),
                reserved(0x1_0020_0000, 2 * MIB),
            ],
        );

        let entry = source(image(|_| {}), Some(10_000), "console=ttyS0 quiet")
            .load(&ram, &memory, ACPI_START)
            .unwrap();

        let mut page = [0; 4096];
        ram.read_slice(&mut page, GuestAddress(entry.rsi)).unwrap();
        let dword = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        let qword = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        assert_eq!(qword(0x070), ACPI_START);
        assert_eq!(&page[0x202..0x206], b"HdrS");
        assert_eq!(page[0x210], 0xff);
        assert_eq!(dword(0x218), 0x3ff_d000);
        assert_eq!(dword(0x21c), 10_000);
        let mut line = [0; 20];
        ram.read_slice(&mut line, GuestAddress(u64::from(dword(0x228)))).unwrap();
        assert_eq!(&line, b"console=ttyS0 quiet\0");
        assert_eq!(page[0x1ef], 0, "a sentinel that is not zero makes Linux distrust the page");
        assert_eq!(page[0x1e8], 8);
        let e820: Vec<(u64, u64, u32)> = (0..8)
            .map(|n| 0x2d0 + n * 20)
            .map(|at| (qword(at), qword(at + 8), dword(at + 16)))
            .collect();
        assert_eq!(
            e820,
            [
                (0, 0x9_fc00, 1),
                (0x9_fc00, 0x4_0400, 2),
                (0xe_0000, 0x2_0000, 3),
                (0x10_0000, 63 * MIB, 1),
                (0xfec0_0000, 0x1000, 2),
                (0xfee0_0000, 0x1000, 2),
                (0x1_0000_0000, MIB, 2),
                (0x1_0020_0000, 2 * MIB, 2),
            ]
        );
    }

    #[test]
    fn a_64_bit_kernel_is_entered_in_long_mode_at_offset_200h() {
        let (ram, memory) = machine(64 * MIB, &[]);

        let entry = source(image(|_| {}), None, "").load(&ram, &memory, 0).unwrap();

        assert_eq!(entry.rip, 0x100_0200);
        assert!(entry.cr0.contains(Cr0::PG | Cr0::PE));
        let byte: u8 = ram.read_obj(GuestAddress(0x100_0000 + 1000)).unwrap();
        assert_eq!(byte, (1000 % 251) as u8);
        let last: u8 = ram.read_obj(GuestAddress(0x100_ffff)).unwrap();
        assert_eq!(last, (0xffff % 251) as u8);
    }

    #[test]
    fn a_kernel_without_the_flag_is_entered_in_protected_mode() {
        let (ram, memory) = machine(64 * MIB, &[]);

        let entry = source(image(|file| file[0x236] = 0), None, "").load(&ram, &memory, 0).unwrap();

        assert_eq!((entry.rip, entry.rsi), (0x100_0000, BOOT_PARAMS));
        assert_eq!(entry.cr0, Cr0::PE | Cr0::ET);
    }

    #[test]
    fn header_bytes_past_the_jump_are_code_and_not_copied() {
        let (ram, memory) = machine(64 * MIB, &[]);
        let file = image(|file| file[0x26c..0x280].fill(0xcc));

        source(file, None, "").load(&ram, &memory, 0).unwrap();

        let after: u32 = ram.read_obj(GuestAddress(BOOT_PARAMS + 0x26c)).unwrap();
        assert_eq!(after, 0);
    }

    #[test]
    fn damaged_files_say_what_is_wrong() {
        let whole = image(|_| {});
        for (file, line) in [
            (whole[..0x230].to_vec(), "the file is cut short, 560 bytes of 620: copy it again"),
            (
                whole[..whole.len() - 512].to_vec(),
                "the file is cut short, 66048 bytes of 66560: copy it again",
            ),
            (
                image(|file| file[0x206] = 5),
                "the kernel speaks boot protocol 2.05, older than 2.06: use a newer kernel",
            ),
            (
                image(|file| file[0x1f4..0x1f8].fill(0)),
                "the kernel's header is damaged (syssize is 0): copy the file again",
            ),
        ] {
            assert_eq!(KernelImage::from_bytes(file).unwrap_err().to_string(), line);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_before_anything_is_written() {
        let (ram, memory) = machine(19 * MIB, &[]);
        let load = |source: BootSource| source.load(&ram, &memory, 0).unwrap_err();

        let kernel = load(source(image(|file| file[0x262] = 0x40), None, ""));
        let wild = load(source(image(|file| file[0x258..0x260].fill(0xff)), None, ""));
        let low = load(source(image(|file| file[0x258..0x260].fill(0)), None, ""));
        let initrd = load(source(image(|_| {}), Some(MIB as usize + 1), ""));
        let line = load(source(image(|_| {}), None, &"x".repeat(2048)));

        assert!(matches!(kernel, BootError::Kernel(KernelError::DoesNotFit { .. })), "{kernel}");
        assert!(matches!(wild, BootError::Kernel(KernelError::Malformed(_))), "{wild}");
        assert!(matches!(low, BootError::Kernel(KernelError::Malformed(_))), "{low}");
        assert!(
            matches!(initrd, BootError::Initrd(InitrdError::DoesNotFit { room: 0x10_0000, .. })),
            "{initrd}"
        );
        assert!(
            matches!(
                line,
                BootError::CommandLine(CommandLineError::TooLong { len: 2048, max: 2047 })
            ),
            "{line}"
        );
        assert_eq!(
            kernel.to_string(),
            "the kernel needs RAM from 0x1000000 to 0x1400000 and there is 19M"
        );
        assert_eq!(kernel.remedy(), Some(Remedy::MoreMemory));
        assert_eq!(initrd.remedy(), Some(Remedy::MoreMemory));
        assert_eq!(line.remedy(), None);
    }
}
