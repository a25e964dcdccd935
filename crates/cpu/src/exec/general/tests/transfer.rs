//! MOV and its relatives.

use cloister_x86::{Exception, Gpr};
use iced_x86::code_asm::{ah, al, eax, ebx, ptr, qword_ptr, rax, rbx, rcx};

use crate::testing::{DATA, Ending, Guest, Start};

const END: Ending = Ending::Exception(Exception::ud());

#[test]
fn mov_to_a_32_bit_register_clears_the_upper_half() {
    let mut guest = Guest::new(Start::User64);
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = u64::MAX;
    guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = u64::MAX;
    guest.assemble(|a| {
        a.mov(eax, 5)?;
        a.mov(ebx, ebx)
    });

    let ending = guest.run();

    assert_eq!(ending, END);
    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax], 5);
    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rbx], 0xffff_ffff);
}

#[test]
fn mov_to_a_byte_register_leaves_the_rest() {
    let mut guest = Guest::new(Start::User64);
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = 0x1122_3344_5566_7788;
    guest.assemble(|a| {
        a.mov(ah, 0xaa)?;
        a.mov(al, ah)
    });

    guest.run();

    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax], 0x1122_3344_5566_aaaa);
}

#[test]
fn mov_with_a_64_bit_offset_reaches_memory() {
    let mut guest = Guest::new(Start::User64);
    guest.write_u64(DATA, 0x0123_4567_89ab_cdef);
    guest.assemble(|a| {
        a.mov(rax, qword_ptr(DATA))?;
        a.mov(rcx, rax)?;
        a.mov(ptr(rbx + 8), rcx)
    });
    guest.vcpu.cpu.arch.gpr[Gpr::Rbx] = DATA;
    // A0 to A3 have the offset in the instruction.
    let ending = guest.run();
    assert_eq!(ending, END);
    assert_eq!(guest.read_u64(DATA + 8), 0x0123_4567_89ab_cdef);

    let mut bytes = vec![0x48, 0xa1];
    bytes.extend_from_slice(&(DATA + 8).to_le_bytes());
    guest.load_code(&bytes);
    guest.vcpu.cpu.arch.rip = crate::testing::CODE;
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = 0;

    guest.run();

    assert_eq!(guest.vcpu.cpu.arch.gpr[Gpr::Rax], 0x0123_4567_89ab_cdef);
}
