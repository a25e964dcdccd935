//! Vector instructions, bit manipulation, POPCNT, CRC32, MOVBE and ADX: the host does them itself,
//! where it has them, on the guest's vector registers (see [`crate::vectors`]) and on the registers
//! and the memory that stand for the guest's.

use cloister_cpu::Op;
use cloister_cpu::native::{under_mxcsr, vectors};
use iced_x86::{CpuidFeature, EncodingKind, Instruction, Mnemonic, OpKind, Register};

use crate::asm::condition::NOT_EQUAL;
use crate::asm::{RAX, Reg, Size};
use crate::block::Emitter;
use crate::flags;
use crate::host::HostFeatures;
use crate::memory::{Access, Misses, address};
use crate::registers::{ACCUMULATOR, ADDRESS, TEMP, TEMP2, home, host, number};

/// What ([`vectors`]) must not be barred for the host to do an instruction; `None` if the interpreter
/// does it.
pub(crate) fn needs(instruction: &Instruction, op: &Op, host: HostFeatures) -> Option<u8> {
    use Mnemonic as M;
    let mnemonic = instruction.mnemonic();
    let legacy = match instruction.encoding() {
        EncodingKind::Legacy => true,
        EncodingKind::VEX => false,
        _ => return None,
    };
    // The guest has it, and the host.
    if op.mnemonic != mnemonic
        || instruction.has_lock_prefix()
        || !instruction.cpuid_features().iter().all(|&feature| host.has(feature))
    {
        return None;
    }
    // The results of these differ between hosts.
    if matches!(
        mnemonic,
        M::Rcpps
            | M::Rcpss
            | M::Rsqrtps
            | M::Rsqrtss
            | M::Vrcpps
            | M::Vrcpss
            | M::Vrsqrtps
            | M::Vrsqrtss
            | M::Dpps
            | M::Dppd
            | M::Vdpps
            | M::Vdppd
    ) {
        return None;
    }
    let mut has_vector = matches!(mnemonic, M::Vzeroupper | M::Vzeroall);
    for n in 0..instruction.op_count() {
        match instruction.op_kind(n) {
            OpKind::Register => {
                let register = instruction.op_register(n);
                if register.is_xmm() || register.is_ymm() {
                    has_vector = true;
                } else {
                    number(register)?;
                }
            }
            OpKind::Memory if address(instruction).is_some() => {}
            OpKind::Immediate8 => {}
            _ => return None,
        }
    }
    if !has_vector {
        return is_general(mnemonic).then_some(0);
    }
    if !legacy && !host.has(CpuidFeature::AVX) {
        return None;
    }
    let form = if legacy { vectors::SSE } else { vectors::AVX };
    Some(if under_mxcsr(mnemonic) { form | vectors::MXCSR } else { form })
}

/// Whether it is one of the instructions on general-purpose registers that are emitted here.
fn is_general(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Adcx, Adox, Andn, Bextr, Blsi, Blsmsk, Blsr, Bzhi, Crc32, Lzcnt, Movbe, Movnti, Mulx, Pdep,
        Pext, Popcnt, Rorx, Sarx, Shlx, Shrx, Tzcnt,
    };
    matches!(
        mnemonic,
        Adcx | Adox
            | Andn
            | Bextr
            | Blsi
            | Blsmsk
            | Blsr
            | Bzhi
            | Crc32
            | Lzcnt
            | Movbe
            | Movnti
            | Mulx
            | Pdep
            | Pext
            | Popcnt
            | Rorx
            | Sarx
            | Shlx
            | Shrx
            | Tzcnt
    )
}

/// Whether it finds the lengths of strings in RAX and RDX.
fn has_lengths(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Pcmpestri, Pcmpestri64, Pcmpestrm, Pcmpestrm64, Vpcmpestri, Vpcmpestri64, Vpcmpestrm,
        Vpcmpestrm64,
    };
    matches!(
        mnemonic,
        Pcmpestri
            | Pcmpestri64
            | Pcmpestrm
            | Pcmpestrm64
            | Vpcmpestri
            | Vpcmpestri64
            | Vpcmpestrm
            | Vpcmpestrm64
    )
}

/// Whether its memory operand has to be aligned to its size: #GP (SDM Vol. 1, 10.4.1.1 and 14.9).
fn is_aligned(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Movups
        | M::Movupd
        | M::Movdqu
        | M::Lddqu
        | M::Pcmpestri
        | M::Pcmpestri64
        | M::Pcmpestrm
        | M::Pcmpestrm64
        | M::Pcmpistri
        | M::Pcmpistrm => false,
        M::Vmovaps
        | M::Vmovapd
        | M::Vmovdqa
        | M::Vmovntps
        | M::Vmovntpd
        | M::Vmovntdq
        | M::Vmovntdqa => true,
        _ => {
            instruction.encoding() == EncodingKind::Legacy && instruction.memory_size().size() == 16
        }
    }
}

/// The iced name of a host register as wide as `like`.
fn named(register: Reg, like: Register) -> Register {
    let n = u32::from(register.0);
    match like.size() {
        1 if n < 4 => Register::AL + n,
        1 => Register::SPL + (n - 4),
        2 => Register::AX + n,
        4 => Register::EAX + n,
        _ => Register::RAX + n,
    }
}

/// Emits an instruction that [`needs`] has said something of; `false` if it has no encoding.
/// `needs_flags`: as for [`super::emit`].
pub(crate) fn emit(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    needs_flags: bool,
) -> bool {
    let mut emitted = *instruction;
    emitted.set_has_rep_prefix(false);
    emitted.set_has_repne_prefix(false);
    emitted.set_segment_prefix(Register::None);
    let has_memory = (0..emitted.op_count()).any(|n| emitted.op_kind(n) == OpKind::Memory);
    let stores = has_memory && emitted.op0_kind() == OpKind::Memory;
    let misses = if has_memory { memory(e, instruction, stores) } else { Misses::default() };
    if has_memory {
        emitted.set_memory_base(named(ADDRESS, Register::RAX));
        emitted.set_memory_index(Register::None);
        emitted.set_memory_displacement64(0);
        emitted.set_memory_displ_size(0);
    }
    if needs_flags {
        e.load_flags();
    }
    let written = general_registers(e, &mut emitted, stores);
    if has_lengths(instruction.mnemonic()) {
        // In RAX, where the flags are, all of which are new ones.
        e.asm.mov(8, RAX, ACCUMULATOR);
    }
    if !e.encode(&emitted) {
        return false;
    }
    for (n, register, size) in written {
        e.asm.store(if size == 4 { 8 } else { size }, home(n), register);
    }
    if instruction.rflags_modified() & flags::ALL != 0 {
        e.flags_set();
    }
    if stores {
        e.after_store(op, instruction.memory_size().size() as Size);
    }
    e.interpreted(misses, op);
    true
}

/// Looks up the memory operand: the jumps to where the interpreter does the instruction.
fn memory(e: &mut Emitter<'_>, instruction: &Instruction, stores: bool) -> Misses {
    let size = instruction.memory_size().size() as Size;
    let access = if stores { Access::Write } else { Access::Read };
    let mut misses = e.operand(instruction, access, size);
    if is_aligned(instruction) {
        // Host pages are as aligned as guest pages.
        e.asm.test_imm(1, ADDRESS, i32::from(size) - 1);
        misses.push(e.asm.jcc(NOT_EQUAL));
    }
    misses
}

/// Replaces general-purpose registers by those of the host, after loading those that are in memory:
/// which of these have to be written back there, the last first.
fn general_registers(
    e: &mut Emitter<'_>,
    emitted: &mut Instruction,
    stores: bool,
) -> Vec<(u8, Reg, Size)> {
    let mut written = Vec::new();
    // Of the two operands of MULX both are written; its high half, the first, wins.
    let results = match emitted.mnemonic() {
        Mnemonic::Mulx => 2,
        _ => 1,
    };
    let vex = emitted.encoding() == EncodingKind::VEX;
    for n in 0..emitted.op_count() {
        let register = emitted.op_register(n);
        if emitted.op_kind(n) != OpKind::Register || !register.is_gpr() {
            continue;
        }
        let Some(guest) = number(register) else { unreachable!("it is not translated") };
        let to = host(guest).unwrap_or_else(|| {
            // A VEX instruction only writes its first operand, which may thus share a register with
            // the third; a store needs `TEMP2`.
            let scratch = if n == 1 && !stores { TEMP2 } else { TEMP };
            if n >= results || !vex {
                e.asm.mov(8, scratch, home(guest));
            }
            if n < results && !stores {
                written.insert(0, (guest, scratch, register.size() as Size));
            }
            scratch
        });
        emitted.set_op_register(n, named(to, register));
    }
    written
}
