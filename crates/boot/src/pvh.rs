//! ELF kernels by the PVH boot protocol (Xen, docs/misc/pvh.pandoc): `hvm_start_info` in EBX,
//! entry in 32-bit protected mode without paging.

use std::io::Cursor;
use std::ops::Range;

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::BootSource;
use super::entry::EntryState;
use super::error::{BootError, KernelError};
use super::memory::{MAX_MAP_ENTRIES, MemoryMap, zero};

use super::placement::{
    COMMAND_LINE, LOWEST_KERNEL, MODULE_LIST, PVH_MEMORY_MAP, START_INFO, check_command_line,
    write_command_line,
};
use crate::narrow::in_memory;

const ELF_HEADER_SIZE: u64 = 64;
const PROGRAM_HEADER_SIZE: u64 = 56;
const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// `COMMAND_LINE_SIZE` of Linux on x86, less the NUL: the PVH protocol has no field for it.
const COMMAND_LINE_MAX: usize = 2047;

/// An ELF kernel whose headers have been judged.
pub struct ElfKernel {
    bytes: Vec<u8>,
    segments: Vec<Segment>,
    entry: u32,
}

impl std::fmt::Debug for ElfKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ElfKernel")
            .field("segments", &self.segments)
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

/// A PT_LOAD segment in guest-physical memory.
#[derive(Debug)]
struct Segment {
    /// All of it, p_memsz.
    memory: Range<u64>,
    /// What the file does not give, p_filesz to p_memsz: zeros.
    zeros: Range<u64>,
}

impl ElfKernel {
    /// Judges the ELF header and the program headers, and finds the PVH entry.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, KernelError> {
        let field = |at: u64, len: u64| -> Result<&[u8], KernelError> {
            let have = bytes.len() as u64;
            let need = at.checked_add(len).ok_or(KernelError::Malformed("program headers"))?;
            bytes.get(in_memory(at)..in_memory(need)).ok_or(KernelError::Truncated { have, need })
        };
        let header = field(0, ELF_HEADER_SIZE)?;
        if header[4] != ELFCLASS64 || header[5] != ELFDATA2LSB || u16_at(header, 18) != EM_X86_64 {
            return Err(KernelError::WrongElf);
        }
        if u64::from(u16_at(header, 54)) != PROGRAM_HEADER_SIZE {
            return Err(KernelError::Malformed("e_phentsize"));
        }
        let table = u64_at(header, 32);
        let count = u64::from(u16_at(header, 56));
        let headers = field(table, count * PROGRAM_HEADER_SIZE)?;
        let (mut segments, mut entry) = (Vec::new(), None);
        for header in headers.chunks_exact(in_memory(PROGRAM_HEADER_SIZE)) {
            let (offset, paddr) = (u64_at(header, 8), u64_at(header, 24));
            let (file_size, memory_size) = (u64_at(header, 32), u64_at(header, 40));
            let contents = field(offset, file_size)?;
            let kind = u32_at(header, 0);
            if kind == PT_NOTE && entry.is_none() {
                entry = pvh_entry(contents);
            }
            if kind != PT_LOAD || memory_size == 0 {
                continue;
            }
            let end = paddr.checked_add(memory_size).ok_or(KernelError::Malformed("p_paddr"))?;
            if file_size > memory_size {
                return Err(KernelError::Malformed("p_filesz is more than p_memsz"));
            }
            segments.push(Segment { memory: paddr..end, zeros: paddr + file_size..end });
        }
        let entry = entry.ok_or(KernelError::NoPvhEntry)?;
        Ok(Self { bytes, segments, entry })
    }

    /// From the lowest address that the kernel uses to the end of the highest.
    fn extent(&self) -> Result<(u64, u64), KernelError> {
        let start = self.segments.iter().map(|segment| segment.memory.start).min();
        let end = self.segments.iter().map(|segment| segment.memory.end).max();
        match (start, end) {
            (Some(start), Some(_)) if start < LOWEST_KERNEL => {
                Err(KernelError::Malformed("a segment is in the first MiB"))
            }
            (Some(start), Some(end)) => Ok((start, end)),
            _ => Err(KernelError::Malformed("nothing to load")),
        }
    }
}

/// The descriptor of XEN_ELFNOTE_PHYS32_ENTRY, if it is among these notes. The loader's own search
/// keeps only what the last PT_NOTE segment says.
fn pvh_entry(mut notes: &[u8]) -> Option<u32> {
    const NOTE_HEADER_SIZE: usize = 12;
    const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
    while notes.len() >= NOTE_HEADER_SIZE {
        let name_size = u32_at(notes, 0) as usize;
        let descriptor_size = u32_at(notes, 4) as usize;
        let kind = u32_at(notes, 8);
        let descriptor_at = NOTE_HEADER_SIZE + name_size.next_multiple_of(4);
        let next = descriptor_at + descriptor_size.next_multiple_of(4);
        let name = notes.get(NOTE_HEADER_SIZE..NOTE_HEADER_SIZE + name_size)?;
        let descriptor = notes.get(descriptor_at..descriptor_at + descriptor_size)?;
        if kind == XEN_ELFNOTE_PHYS32_ENTRY && name == b"Xen\0" && descriptor_size >= 4 {
            return Some(u32_at(descriptor, 0));
        }
        notes = notes.get(next..)?;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

pub(super) fn load(
    kernel: &ElfKernel,
    source: &BootSource,
    ram: &GuestMemoryMmap,
    memory: &MemoryMap,
    rsdp: u64,
) -> Result<EntryState, BootError> {
    check_command_line(&source.cmdline, COMMAND_LINE_MAX)?;
    let (start, end) = kernel.extent()?;
    if end > memory.low_ram_end {
        return Err(KernelError::DoesNotFit { start, end, ram: memory.low_ram_end }.into());
    }
    Elf::load(ram, None, &mut Cursor::new(&kernel.bytes), None).map_err(KernelError::Load)?;
    // After a reset, RAM holds what the last boot left there.
    for segment in &kernel.segments {
        zero(ram, segment.zeros.clone())?;
    }

    write_command_line(ram, &source.cmdline)?;
    let mut info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: rsdp,
        memmap_paddr: PVH_MEMORY_MAP,
        ..Default::default()
    };
    if let Some(initrd) = &source.initrd {
        let place = initrd.load(ram, end..memory.low_ram_end)?;
        let module = hvm_modlist_entry {
            paddr: place.start,
            size: place.end - place.start,
            ..Default::default()
        };
        ram.write_obj(module, GuestAddress(MODULE_LIST))?;
        info.nr_modules = 1;
        info.modlist_paddr = MODULE_LIST;
    }
    for entry in memory.entries.iter().take(MAX_MAP_ENTRIES) {
        let at = PVH_MEMORY_MAP
            + u64::from(info.memmap_entries) * size_of::<hvm_memmap_table_entry>() as u64;
        let entry = hvm_memmap_table_entry {
            addr: entry.range.start,
            size: entry.range.end - entry.range.start,
            type_: entry.kind as u32,
            reserved: 0,
        };
        ram.write_obj(entry, GuestAddress(at))?;
        info.memmap_entries += 1;
    }
    ram.write_obj(info, GuestAddress(START_INFO))?;
    Ok(EntryState::protected_mode(ram, kernel.entry, START_INFO, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{ACPI_START, MapEntry, RangeKind, machine};
    use crate::{Initrd, KernelImage, testing};
    use cloister_x86::regs::Cr0;

    const MIB: u64 = 1 << 20;

    /// [`testing::elf`], changed.
    fn image(edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut file = testing::elf();
        edit(&mut file);
        file
    }

    fn source(file: Vec<u8>) -> BootSource {
        BootSource {
            kernel: KernelImage::from_bytes(file).unwrap(),
            initrd: Some(Initrd::from_bytes(vec![0x5a; 100])),
            cmdline: "quiet".into(),
        }
    }

    #[test]
    fn start_info_names_command_line_initrd_rsdp_and_memory_map() {
        let epc = MapEntry { range: 1 << 32..(1 << 32) + MIB, kind: RangeKind::Reserved };
        let (ram, memory) = machine(4 * MIB, &[epc]);

        let entry = source(image(|_| {})).load(&ram, &memory, ACPI_START).unwrap();

        assert_eq!((entry.rip, entry.cr0), (0x10_0004, Cr0::PE | Cr0::ET));
        let info: hvm_start_info = ram.read_obj(GuestAddress(entry.rbx)).unwrap();
        assert_eq!((info.magic, info.version), (0x336e_c578, 1));
        assert_eq!(info.rsdp_paddr, ACPI_START);
        let mut line = [0; 6];
        ram.read_slice(&mut line, GuestAddress(info.cmdline_paddr)).unwrap();
        assert_eq!(&line, b"quiet\0");
        assert_eq!(info.nr_modules, 1);
        let module: hvm_modlist_entry = ram.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (4 * MIB - 0x1000, 100));
        assert_eq!(info.memmap_entries, 5);
        let epc: hvm_memmap_table_entry =
            ram.read_obj(GuestAddress(info.memmap_paddr + 4 * 24)).unwrap();
        assert_eq!((epc.addr, epc.size, epc.type_), (1 << 32, MIB, 2));
    }

    #[test]
    fn the_part_of_a_segment_without_file_bytes_is_zero_after_a_second_boot() {
        let (ram, memory) = machine(4 * MIB, &[]);
        ram.write_slice(&[0xff; 0x3000], GuestAddress(MIB)).unwrap();

        source(image(|_| {})).load(&ram, &memory, 0).unwrap();

        let mut bytes = [0; 0x3000];
        ram.read_slice(&mut bytes, GuestAddress(MIB)).unwrap();
        assert!(bytes[..16].iter().all(|&byte| byte == 0x90));
        assert!(bytes[16..0x2000].iter().all(|&byte| byte == 0));
        assert!(bytes[0x2000..].iter().all(|&byte| byte == 0xff));
    }

    #[test]
    fn damaged_headers_say_what_is_wrong() {
        for (file, line) in [
            (
                image(|file| file[4] = 1),
                "the file is an ELF file but not a kernel for x86-64: name a bzImage or an ELF kernel",
            ),
            (
                image(|file| file[18] = 0xb7),
                "the file is an ELF file but not a kernel for x86-64: name a bzImage or an ELF kernel",
            ),
            (
                image(|file| file[54] = 32),
                "the kernel's header is damaged (e_phentsize): copy the file again",
            ),
            (
                image(|file| file[32..40].fill(0xff)),
                "the kernel's header is damaged (program headers): copy the file again",
            ),
            (
                image(|file| file[64 + 33] = 1),
                "the file is cut short, 212 bytes of 448: copy it again",
            ),
            (
                image(|file| file[64 + 24..64 + 32].fill(0xff)),
                "the kernel's header is damaged (p_paddr): copy the file again",
            ),
            (
                image(|file| file[64 + 40..64 + 42].copy_from_slice(&[8, 0])),
                "the kernel's header is damaged (p_filesz is more than p_memsz): copy the file again",
            ),
            (
                image(|file| file[200] = 7),
                "the ELF file has no PVH entry: use a kernel with CONFIG_PVH, or its bzImage",
            ),
        ] {
            assert_eq!(KernelImage::from_bytes(file).map(|_| ()).unwrap_err().to_string(), line);
        }
    }

    #[test]
    fn segments_outside_ram_or_in_the_first_mib_are_refused() {
        let (ram, memory) = machine(4 * MIB, &[]);

        for edit in [
            (|file: &mut [u8]| file[64 + 24 + 3] = 0x10) as fn(&mut [u8]),
            |file| file[64 + 24 + 4] = 1,
            |file| file[64 + 40 + 3] = 0x7f,
            |file| file[64 + 24..64 + 32].fill(0),
        ] {
            let error = source(image(edit)).load(&ram, &memory, 0).unwrap_err();
            assert!(matches!(error, BootError::Kernel(_)), "{error}");
        }
    }
}
