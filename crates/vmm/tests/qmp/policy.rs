//! What an SECS may have is judged on what becomes of it, however fast another processor writes.

use cloister_epc_view::QmpClient;

use crate::machine::{PATIENCE, Running};

/// Where the guest is loaded.
const BASE: u32 = 0x10_0000;
/// Parts of the guest by their offsets: page directories, the directory pointers, operands of
/// ECREATE, the interrupt table and what LIDT loads, the second processor's code, the SECS.
const RAM_DIRECTORY: usize = 0x1000;
const EPC_DIRECTORY: usize = 0x2000;
const POINTERS: usize = 0x3000;
const PAGEINFO: usize = 0x3040;
const SECINFO: usize = 0x3080;
const IDT: usize = 0x3100;
const IDTR: usize = 0x3200;
const WRITER: usize = 0x3300;
const SECS: usize = 0x4000;
const END: usize = 0x5000;
/// Where the SECS is while it is written to: a processor reaches it in real mode.
const LOW_SECS: u32 = 0x9000;
/// The EPC: guest-physical, linear, and its pages.
const EPC: u64 = 1 << 32;
const EPC_LINEAR: u32 = 0x4000_0000;
pub(crate) const PAGES: u32 = 1024;

/// ATTRIBUTES.PROVISIONKEY and ATTRIBUTES.KSS.
const CONTESTED: u64 = 1 << 4 | 1 << 7;

const fn at(part: usize) -> [u8; 4] {
    (BASE + part as u32).to_le_bytes()
}

/// Offset of the handler of #GP in the code, and of the loop that it goes back to.
const HANDLER: usize = 146;
const TRY: usize = 109;

/// Its code: creates an enclave in each page of the EPC, again and again until it succeeds, while another
/// processor flips attributes of the SECS. Then prints a dot.
fn code() -> Vec<u8> {
    let pointers = at(POINTERS);
    let code: &[&[u8]] = &[
        &[0xbc, 0x00, 0x70, 0x00, 0x00], // mov esp, 0x7000
        &[0x0f, 0x01, 0x1d],             // lidt [IDTR]
        &at(IDTR),
        &[0xfc], // cld
        &[0xbe], // mov esi, SECS
        &at(SECS),
        &[0xbf], // mov edi, LOW_SECS
        &LOW_SECS.to_le_bytes(),
        &[0xb9, 0x00, 0x04, 0x00, 0x00], // mov ecx, 1024
        &[0xf3, 0xa5],                   // rep movsd
        &[0xbe],                         // mov esi, WRITER
        &at(WRITER),
        &[0xbf, 0x00, 0x80, 0x00, 0x00], // mov edi, 0x8000
        &[0xb9, 0x10, 0x00, 0x00, 0x00], // mov ecx, 16
        &[0xf3, 0xa4],                   // rep movsb
        // To APIC ID 1: INIT, then a start-up IPI for 0x8000.
        &[0xc7, 0x05, 0x10, 0x03, 0xe0, 0xfe, 0x00, 0x00, 0x00, 0x01],
        &[0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x00, 0x00],
        &[0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x00, 0x00],
        &[0xb8], // mov eax, POINTERS
        &pointers,
        &[0x0f, 0x22, 0xd8],             // mov cr3, eax
        &[0x0f, 0x20, 0xe0],             // mov eax, cr4
        &[0x0c, 0x20],                   // or al, PAE
        &[0x0f, 0x22, 0xe0],             // mov cr4, eax
        &[0x0f, 0x20, 0xc0],             // mov eax, cr0
        &[0x0d, 0x00, 0x00, 0x00, 0x80], // or eax, PG
        &[0x0f, 0x22, 0xc0],             // mov cr0, eax
        &[0xbf],                         // mov edi, EPC_LINEAR
        &EPC_LINEAR.to_le_bytes(),
        // TRY:
        &[0x31, 0xc0], // xor eax, eax
        &[0xbb],       // mov ebx, PAGEINFO
        &at(PAGEINFO),
        &[0x89, 0xf9],                         // mov ecx, edi
        &[0x0f, 0x01, 0xcf],                   // encls
        &[0x81, 0xc7, 0x00, 0x10, 0x00, 0x00], // add edi, 0x1000
        &[0x81, 0xff],                         // cmp edi, the EPC's end
        &(EPC_LINEAR + PAGES * 4096).to_le_bytes(),
        &[0x75, 0xe6],                                     // jne TRY
        &[0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0, b'.', 0xee], // '.' to COM1
        &[0xf4, 0xeb, 0xfd],                               // hlt, for ever
        // HANDLER: drops error code, EIP, CS and EFLAGS.
        &[0x83, 0xc4, 0x10], // add esp, 16
        &[0xeb, 0xd6],       // jmp TRY
    ];
    code.concat()
}

/// A guest that creates an enclave in each page of its section of 4 MiB and prints a dot. These
/// attributes are in the SECS until its second processor, if it has one, writes there.
pub(crate) fn creator(attributes: u64) -> Vec<u8> {
    let mut guest = code();
    assert_eq!(&guest[TRY..TRY + 3], [0x31, 0xc0, 0xbb]);
    assert_eq!(&guest[HANDLER..], [0x83, 0xc4, 0x10, 0xeb, 0xd6]);
    guest.resize(END, 0);
    let mut put = |offset: usize, bytes: &[u8]| {
        guest[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    // Pages of 2 MiB, present and writable.
    for page in 0..2_u64 {
        put(RAM_DIRECTORY + page as usize * 8, &(page << 21 | 0x83).to_le_bytes());
        put(EPC_DIRECTORY + page as usize * 8, &((EPC + (page << 21)) | 0x83).to_le_bytes());
    }
    for (n, directory) in [RAM_DIRECTORY, EPC_DIRECTORY].into_iter().enumerate() {
        put(POINTERS + n * 8, &u64::from((BASE + directory as u32) | 1).to_le_bytes());
    }
    put(PAGEINFO + 8, &LOW_SECS.to_le_bytes());
    put(PAGEINFO + 16, &at(SECINFO));
    let handler = BASE + HANDLER as u32;
    // Vector 13: an interrupt gate of the code segment.
    put(IDT + 13 * 8, &(handler & 0xffff | 0x10 << 16).to_le_bytes());
    put(IDT + 13 * 8 + 4, &(handler & 0xffff_0000 | 0x8e00).to_le_bytes());
    put(IDTR, &[14 * 8 - 1, 0]);
    put(IDTR + 2, &at(IDT));
    let writer = [
        0x80, 0x36, 0x30, 0x90, 0x10, // xor byte [ATTRIBUTES], PROVISIONKEY
        0x80, 0x36, 0x30, 0x90, 0x80, // xor byte [ATTRIBUTES], KSS
        0xeb, 0xf4, // jmp to the beginning
    ];
    put(WRITER, &writer);
    put(SECS, &8192_u64.to_le_bytes());
    // SSAFRAMESIZE.
    put(SECS + 16, &[1]);
    put(SECS + 48, &attributes.to_le_bytes());
    // XFRM.
    put(SECS + 56, &[3]);
    guest
}

/// The contested attributes of each enclave that came to be, and how often ECREATE exited.
fn created(flags: &str) -> (Vec<u64>, u64) {
    let options = ["--cpus", "2", "--sgx-epc", "id=a,size=4M", "--cpu", flags];
    // Where they are not allowed, nothing comes to be before the other processor writes.
    let running = Running::start(&creator(CONTESTED), &options);
    running.screen.wait();

    let report = QmpClient::connect(&running.socket, PATIENCE).unwrap().epc_report(false).unwrap();

    assert_eq!(report.sections[0].base, EPC);
    assert_eq!((report.encls_exits.einit, report.encls_exits.others), (0, 0));
    let attributes = report.enclaves.iter().map(|enclave| enclave.attributes & CONTESTED);
    (attributes.collect(), report.encls_exits.ecreate)
}

#[test]
fn no_racing_writer_gets_an_attribute_into_an_enclave_that_cpuid_lacks() {
    let (attributes, exits) = created("host,-sgx-kss");

    assert_eq!(attributes, [0; PAGES as usize]);
    // Those that were refused exited as well.
    assert!(exits > PAGES.into(), "{exits}");
}

#[test]
fn the_same_writer_gets_them_in_where_cpuid_has_them() {
    let (attributes, exits) = created("host,+sgx-provisionkey");

    assert_eq!(attributes.len(), PAGES as usize);
    assert!(attributes.contains(&CONTESTED));
    // ECREATE exits here too, as the platform has still more.
    assert_eq!(exits, u64::from(PAGES));
}
