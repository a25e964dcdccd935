//! A leaf that exited and that the owner carries out: how it reaches its operands.

use cloister_sgx::{LeafPort as _, Stop};
use cloister_x86::regs::Cr0;
use cloister_x86::segment::{Rights, Segment, seg};
use cloister_x86::{Exception, La};

use crate::exec::sgx::port::Port;
use crate::testing::{DEVICE, Guest, Start};

const FLAT: u32 = 0xc093;
const EXPAND_DOWN: u32 = 0xc097;

/// The linear address of a page at `ea` of a processor that is not in 64-bit mode.
fn page_in(ds: Segment, paging: bool, ea: u64) -> Result<La, Stop> {
    let mut guest = Guest::new(Start::Flat32);
    let cpu = &mut guest.vcpu.cpu;
    cpu.arch.cr0.set(Cr0::PG, paging);
    cpu.arch.segs[seg::DS] = ds;
    Port::after_exit(cpu).linear(ea, 4096)
}

#[test]
fn outside_64_bit_mode_operands_are_in_ds() {
    let gp = Err(Stop::Fault(Exception::gp(0)));
    let ds = |base, limit, rights| Segment { selector: 0x10, base, limit, rights: Rights(rights) };
    let flat = ds(0, u32::MAX, FLAT);
    let table = [
        ("flat", flat, 0x2000, Ok(La(0x2000))),
        ("the high half of the register", flat, 0xf_0000_2000, Ok(La(0x2000))),
        ("the last page", flat, 0xffff_f000, Ok(La(0xffff_f000))),
        // No leaf takes an operand that is not aligned to its size.
        ("beyond 4 GiB", flat, 0xffff_f001, Ok(La(0xffff_f001))),
        ("a base", ds(0x1000_0000, 0x2fff, FLAT), 0x2000, Ok(La(0x1000_2000))),
        ("a byte beyond the limit", ds(0x1000_0000, 0x2ffe, FLAT), 0x2000, gp),
        ("a base that wraps", ds(0xffff_f000, u32::MAX, FLAT), 0x2000, Ok(La(0x1000))),
        ("expand-down", ds(0, u32::MAX, EXPAND_DOWN), 0x2000, gp),
        ("expand-down, above the limit", ds(0, 0xfff, EXPAND_DOWN), 0x2000, gp),
        ("unusable", ds(0, u32::MAX, FLAT | Rights::UNUSABLE), 0x2000, gp),
    ];
    for (name, ds, ea, expected) in table {
        assert_eq!(page_in(ds, true, ea), expected, "{name}");
    }
    assert_eq!(page_in(flat, false, 0x2000), gp, "without paging");
}

#[test]
fn device_registers_read_as_ones() {
    let mut guest = Guest::new(Start::Kernel64);
    let cpu = &mut guest.vcpu.cpu;
    let mut bytes = [0; 64];

    let outcome = Port::after_exit(cpu).read(La(DEVICE), &mut bytes);

    assert_eq!((outcome, bytes), (Ok(()), [0xff; 64]));
    assert!(cpu.run.exit.is_none());
}
