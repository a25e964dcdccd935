//! The rights of pages: SDM Vol. 3A, 4.6 and 4.7.

use cloister_x86::regs::{Cr0, Cr4, Efer, Rflags};
use cloister_x86::{Exception, Gpr, PageFaultCode, Vector};
use iced_x86::code_asm::*;

use super::kernel::Kernel;
use crate::mem::tlb::AccessKind;
use crate::testing::{CODE, DATA, Ending, Guest, Start};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const NX: u64 = 1 << 63;

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
struct Case {
    flags: u64,
    user: bool,
    wp: bool,
    smep: bool,
    smap: bool,
    ac: bool,
    nxe: bool,
    kind: AccessKind,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        (0..1 << 10).flat_map(|n: u32| {
            let bit = |b: u32| n >> b & 1 != 0;
            let flag = |b: u32, value: u64| if bit(b) { value } else { 0 };
            [AccessKind::Read, AccessKind::Write, AccessKind::Execute].map(|kind| Self {
                flags: flag(0, P) | flag(1, W) | flag(2, U) | flag(3, NX),
                user: bit(4),
                wp: bit(5),
                smep: bit(6),
                smap: bit(7),
                ac: bit(8),
                nxe: bit(9),
                kind,
            })
        })
    }

    /// What the manual says, statement by statement.
    fn expected(self) -> Option<PageFaultCode> {
        let mut code = PageFaultCode::empty();
        let fetch = self.kind == AccessKind::Execute;
        code.set(PageFaultCode::WRITE, self.kind == AccessKind::Write);
        code.set(PageFaultCode::USER, self.user);
        // "This flag is 1 if (1) the access was an instruction fetch; and (2) either (a)
        // CR4.SMEP = 1; or (b) both CR4.PAE = 1 and IA32_EFER.NXE = 1."
        code.set(PageFaultCode::FETCH, fetch && (self.smep || self.nxe));
        if self.flags & P == 0 {
            return Some(code);
        }
        code |= PageFaultCode::PRESENT;
        if self.flags & NX != 0 && !self.nxe {
            return Some(code | PageFaultCode::RESERVED);
        }
        let user_address = self.flags & U != 0;
        let (writable, nx) = (self.flags & W != 0, self.flags & NX != 0);
        let allowed = match (self.user, user_address, self.kind) {
            // "Data may be read from any supervisor-mode address."
            (false, false, AccessKind::Read) => true,
            // "Data writes to supervisor-mode addresses: CR0.WP = 0: any; CR0.WP = 1: with R/W = 1
            // in every entry."
            (false, false, AccessKind::Write) => !self.wp || writable,
            // "Instructions may be fetched from any supervisor-mode address with XD = 0."
            (false, false, AccessKind::Execute) => !nx,
            // "CR4.SMAP = 1: data may be read if EFLAGS.AC = 1 and the access is explicit."
            (false, true, AccessKind::Read) => !self.smap || self.ac,
            (false, true, AccessKind::Write) => (!self.smap || self.ac) && (!self.wp || writable),
            // "CR4.SMEP = 1: instructions may not be fetched from any user-mode address."
            (false, true, AccessKind::Execute) => !self.smep && !nx,
            (true, false, _) => false,
            (true, true, AccessKind::Read) => true,
            (true, true, AccessKind::Write) => writable,
            (true, true, AccessKind::Execute) => !nx,
        };
        (!allowed).then_some(code)
    }
}

#[test]
fn every_combination_of_rights_and_modes_gives_what_the_manual_says() {
    let start = |user| {
        let mut guest = Guest::new(if user { Start::User64 } else { Start::Kernel64 });
        // SMEP must not stop the kernel's own code.
        guest.set_page_flags(CODE, P | W | if user { U } else { 0 });
        guest.write(DATA, &[0x0f, 0x0b]);
        guest
    };
    let mut guests = [start(false), start(true)];
    for case in Case::all() {
        let guest = &mut guests[usize::from(case.user)];
        guest.assemble(|a| match case.kind {
            AccessKind::Read => a.mov(al, byte_ptr(rdi)),
            AccessKind::Write => a.mov(byte_ptr(rdi), al),
            AccessKind::Execute => a.jmp(rdi),
        });
        let cpu = &mut guest.vcpu.cpu;
        cpu.arch.gpr[Gpr::Rdi] = DATA;
        // What a write to the page leaves there: UD2 again.
        cpu.arch.gpr[Gpr::Rax] = 0x0f;
        cpu.arch.rip = CODE;
        cpu.arch.cr0.set(Cr0::WP, case.wp);
        cpu.arch.cr4.set(Cr4::SMEP, case.smep);
        cpu.arch.cr4.set(Cr4::SMAP, case.smap);
        cpu.arch.efer.set(Efer::NXE, case.nxe);
        cpu.set_rflags(2 | if case.ac { Rflags::AC.bits() } else { 0 });
        guest.set_page_flags(DATA, case.flags);

        let ending = guest.run();

        let expected = match case.expected() {
            Some(code) => Exception::pf(DATA, code),
            None => Exception::new(Vector::Ud),
        };
        assert_eq!(ending, Ending::Exception(expected), "{case:?}");
    }
}

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
/// Where tests put more tables.
const TABLES: u64 = 0x20_0000;
/// A linear address whose PML4 entry is free.
const HIGH: u64 = 0x7f80_4060_1000;

/// Builds four levels for [`HIGH`] whose entries are these.
fn map_high(guest: &mut Guest, entries: [u64; 4]) {
    let mut table = PML4;
    for (n, entry) in entries.into_iter().enumerate() {
        let shift = 39 - 9 * n as u64;
        guest.write_u64(table + (HIGH >> shift & 0x1ff) * 8, entry);
        table = TABLES + n as u64 * 0x1000;
    }
    guest.vcpu.cpu.run.tlb.flush_all();
}

/// Entries for [`map_high`] with these flags at each level, to [`DATA`].
fn chain(flags: [u64; 4]) -> [u64; 4] {
    let targets = [TABLES, TABLES + 0x1000, TABLES + 0x2000, DATA];
    std::array::from_fn(|n| targets[n] | flags[n])
}

fn access(guest: &mut Guest, kind: AccessKind) -> Option<u32> {
    guest.assemble(|a| match kind {
        AccessKind::Read => a.mov(al, byte_ptr(rdi)),
        AccessKind::Write => a.mov(byte_ptr(rdi), al),
        AccessKind::Execute => a.jmp(rdi),
    });
    guest.vcpu.cpu.arch.gpr[Gpr::Rdi] = HIGH;
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = 0x0f;
    guest.vcpu.cpu.arch.rip = CODE;
    match guest.run() {
        Ending::Exception(Exception { vector: Vector::Pf, error_code, .. }) => Some(error_code),
        Ending::Exception(Exception { vector: Vector::Ud, .. }) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_right_must_be_given_at_every_level() {
    for level in 0..4 {
        for (missing, kind, code) in [
            (U, AccessKind::Read, 0b00101),
            (W, AccessKind::Write, 0b00111),
            (P, AccessKind::Read, 0b00100),
        ] {
            let mut guest = Guest::new(Start::User64);
            let mut flags = [P | W | U; 4];
            flags[level] &= !missing;
            map_high(&mut guest, chain(flags));

            assert_eq!(access(&mut guest, kind), Some(code), "level {level}, {missing:#x}");
        }
        let mut guest = Guest::new(Start::User64);
        guest.write(DATA, &[0x0f, 0x0b]);
        let mut flags = [P | W | U; 4];
        flags[level] |= NX;
        map_high(&mut guest, chain(flags));

        assert_eq!(access(&mut guest, AccessKind::Read), None);
        assert_eq!(access(&mut guest, AccessKind::Execute), Some(0b10101));
    }
}

#[test]
fn a_reserved_bit_at_any_level_is_told_as_such() {
    for (level, reserved) in [
        (0, 1 << 46),
        (1, 1 << 51),
        (2, 1 << 46),
        (3, 1 << 46),
        // PS in a PML4 entry.
        (0, PS),
        // Address bits below the size of a large page.
        (1, PS | 1 << 13),
        (2, PS | 1 << 20),
    ] {
        let mut guest = Guest::new(Start::User64);
        let mut flags = [P | W | U; 4];
        flags[level] |= reserved;
        map_high(&mut guest, chain(flags));

        assert_eq!(access(&mut guest, AccessKind::Read), Some(0b01101), "{level} {reserved:#x}");
    }
}

#[test]
fn accessed_and_dirty_bits_are_set_where_the_walk_goes() {
    let mut guest = Guest::new(Start::User64);
    map_high(&mut guest, chain([P | W | U; 4]));
    let entries = |guest: &Guest| {
        let tables = [PML4, TABLES, TABLES + 0x1000, TABLES + 0x2000];
        std::array::from_fn::<u64, 4, _>(|n| {
            guest.read_u64(tables[n] + (HIGH >> (39 - 9 * n as u64) & 0x1ff) * 8) & (A | D)
        })
    };

    assert_eq!(access(&mut guest, AccessKind::Read), None);
    assert_eq!(entries(&guest), [A, A, A, A]);

    assert_eq!(access(&mut guest, AccessKind::Write), None);
    assert_eq!(entries(&guest), [A, A, A, A | D]);
}

#[test]
fn large_pages_map_their_whole_range() {
    // 2 MiB: PDE; 1 GiB: PDPTE. Both over the first MiBs of RAM, where DATA is.
    let offset = DATA + 8;
    for (level, size) in [(2, 2u64 << 20), (1, 1 << 30)] {
        let mut guest = Guest::new(Start::User64);
        guest.write_u64(offset, 0x1234_5678_9abc_def0);
        let mut entries = chain([P | W | U; 4]);
        entries[level] = P | W | U | PS;
        map_high(&mut guest, entries);
        guest.assemble(|a| a.mov(rax, qword_ptr(rdi)));
        guest.vcpu.cpu.arch.gpr[Gpr::Rdi] = (HIGH & !(size - 1)) + offset;

        guest.run();

        assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax], 0x1234_5678_9abc_def0);
    }
}

#[test]
fn table_accesses_are_supervisor_accesses_that_ignore_ac() {
    // The GDT on a user page, with SMAP and AC set: an explicit access would be allowed.
    let mut kernel = Kernel::new();
    kernel.vcpu().cpu.arch.cr4.insert(Cr4::SMAP);
    kernel.vcpu().cpu.set_rflags(2 | Rflags::AC.bits());
    kernel.vcpu().cpu.arch.gdtr.base = DATA;
    kernel.guest.set_page_flags(0x7000, P | W);
    for page in [0x10_0000, 0x4_e000, CODE] {
        kernel.guest.set_page_flags(page, P | W);
    }
    kernel.assemble(|a| {
        a.mov(rax, qword_ptr(rdi))?;
        a.mov(ds, bx)
    });
    kernel.vcpu().cpu.arch.gpr[Gpr::Rbx] = 0x10;
    kernel.vcpu().cpu.arch.gpr[Gpr::Rdi] = DATA;
    kernel.guest.write_u64(super::kernel::GDT + 8, super::kernel::CODE64);

    // Delivery needs the GDT too, and fails at it: the fault of the load is in CR2, and the
    // machine shuts down.
    assert_eq!(kernel.vcpu().run(), crate::Exit::TripleFault);
    assert_eq!(kernel.vcpu().cpu.arch.rip, CODE + 3);
    assert_eq!(kernel.vcpu().cpu.arch.cr2, DATA + 8);
}

#[test]
fn user_code_loads_segments_from_a_supervisor_gdt() {
    let mut kernel = Kernel::new();
    kernel.guest.set_page_flags(super::kernel::GDT, P | W);
    kernel.assemble(|a| a.mov(ds, bx));
    kernel.vcpu().cpu.arch.gpr[Gpr::Rbx] = u64::from(super::kernel::USER_DATA);
    kernel.set_level(3);

    // The HLT after it faults: the load did not.
    assert_eq!(kernel.run_to_handler().vector, 13);
    assert_eq!(kernel.vcpu().cpu.arch.segs[3].selector, super::kernel::USER_DATA);
}

#[test]
fn legacy_paging_of_32_bits_maps_4_kib_and_4_mib() {
    let mut guest = Guest::new(Start::Flat32);
    let directory = TABLES;
    let table = TABLES + 0x1000;
    let word = |guest: &mut Guest, at: u64, value: u32| guest.write(at, &value.to_le_bytes());
    // The first 4 MiB to themselves by a large page; 8 MiB by a table.
    word(&mut guest, directory, (P | W | PS) as u32);
    word(&mut guest, directory + 8, (table | P | W) as u32);
    word(&mut guest, table, (DATA | P) as u32);
    guest.write_u64(DATA, 0xabcd);
    guest.assemble(|a| {
        a.mov(eax, TABLES as i32)?;
        a.mov(cr3, eax)?;
        a.mov(eax, 0x10)?;
        a.mov(cr4, eax)?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x8001_0001u32)?;
        a.mov(cr0, eax)?;
        a.mov(ebx, dword_ptr(0x80_0000))?;
        a.mov(dword_ptr(0x80_0004), ebx)
    });

    let ending = guest.run();

    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rbx], 0xabcd);
    let code = PageFaultCode::PRESENT | PageFaultCode::WRITE;
    assert_eq!(ending, Ending::Exception(Exception::pf(0x80_0004, code)));
    let entry = u32::from_le_bytes(guest.read(directory));
    assert_eq!(u64::from(entry), P | W | PS | A);
    assert_eq!(u64::from(u32::from_le_bytes(guest.read(table))), DATA | P | A);
}

#[test]
fn pae_paging_uses_the_pdptes_loaded_with_cr3() {
    let mut guest = Guest::new(Start::Flat32);
    let pdpt = TABLES;
    let directory = TABLES + 0x1000;
    guest.write_u64(pdpt, directory | P);
    guest.write_u64(directory, P | W | PS);
    guest.write_u64(directory + 8, 0x20_0000 | P | W | PS);
    guest.assemble(|a| {
        a.mov(eax, TABLES as i32)?;
        a.mov(cr3, eax)?;
        a.mov(eax, 0x20)?;
        a.mov(cr4, eax)?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x8000_0001u32)?;
        a.mov(cr0, eax)?;
        // A change in memory does not matter before CR3 is loaded again.
        a.mov(dword_ptr(TABLES as i32), 0)?;
        a.mov(dword_ptr(TABLES as i32 + 8), (directory | P) as i32)?;
        a.mov(eax, dword_ptr(0x4000_0000))
    });

    let ending = guest.run();

    assert_eq!(ending, Ending::Exception(Exception::pf(0x4000_0000, PageFaultCode::empty())));
}

#[test]
fn reserved_bits_in_a_pdpte_make_the_load_of_cr3_fault() {
    let mut guest = Guest::new(Start::Flat32);
    guest.write_u64(TABLES, (TABLES + 0x1000) | P);
    guest.write_u64(TABLES + 0x1000, P | W | PS);
    guest.write_u64(TABLES + 8, (TABLES + 0x1000) | P | W);
    guest.assemble(|a| {
        a.mov(eax, TABLES as i32)?;
        a.mov(cr3, eax)?;
        a.mov(eax, 0x20)?;
        a.mov(cr4, eax)?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x8000_0001u32)?;
        a.mov(cr0, eax)
    });

    assert_eq!(guest.run(), Ending::Exception(Exception::gp(0)));
    assert!(!guest.vcpu.cpu.arch.cr0.contains(Cr0::PG));
}

#[test]
fn the_walk_of_the_first_test_used_all_tables() {
    // The layout this file builds on.
    let guest = Guest::new(Start::User64);

    assert_eq!(guest.vcpu.cpu.arch.cr3, PML4);
    assert_eq!(guest.read_u64(PML4) & !0xfff, PDPT);
    assert_eq!(guest.read_u64(PDPT) & !0xfff, PD);
}
