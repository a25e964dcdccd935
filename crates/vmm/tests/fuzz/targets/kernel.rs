//! Kernel files: a bzImage, an ELF file with a PVH entry, or anything.

use std::sync::OnceLock;

use cloister_boot::{BootSource, Initrd, KernelImage, testing};
use cloister_vmm::layout::{ACPI_START, Layout};
use cloister_vmm::memory::map_ram;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::Bytes;

const RAM: u64 = 4 << 20;
/// What no kernel may be loaded over: room of the ACPI tables.
const TABLES: [u8; 256] = [0xac; 256];

/// A kernel that the bytes change, loaded with a command line and an initial RAM disk.
pub(crate) fn kernel(data: &[u8]) {
    static MACHINE: OnceLock<(Layout, GuestMemoryMmap)> = OnceLock::new();
    let (layout, ram) = MACHINE.get_or_init(|| {
        let layout = Layout::new(RAM, &[]).expect("a layout");
        let ram = map_ram(&layout).expect("RAM");
        (layout, ram)
    });

    let mut bytes = Bytes(data);
    let kind = bytes.u8();
    let (initrd, cmdline) = (usize::from(bytes.u16()) << 6, usize::from(bytes.u8()) << 4);
    let mut file = match kind & 3 {
        0 => testing::bzimage(&[]),
        1 => testing::elf(),
        _ => bytes.0.to_vec(),
    };
    while kind & 2 == 0 && !bytes.is_empty() {
        let at = usize::from(bytes.u16()) % file.len();
        file[at] = bytes.u8();
    }
    let Ok(kernel) = KernelImage::from_bytes(file) else { return };

    ram.write_slice(&TABLES, GuestAddress(ACPI_START)).expect("RAM");
    let source = BootSource {
        kernel,
        initrd: (initrd != 0).then(|| Initrd::from_bytes(vec![0x5a; initrd])),
        cmdline: "a".repeat(cmdline),
    };
    let loaded = source.load(ram, &layout.memory_map(), ACPI_START);

    let mut tables = [0; TABLES.len()];
    ram.read_slice(&mut tables, GuestAddress(ACPI_START)).expect("RAM");
    assert_eq!(tables, TABLES, "a kernel was loaded over the ACPI tables");
    if let Err(error) = loaded {
        assert!(!error.to_string().is_empty());
    }
}
