//! LEA and XLAT.

use cloister_x86::Gpr;

use super::by_size;
use crate::cpu::Cpu;
use crate::exec::table::{choose, rewrite, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, Op, ZERO_SLOT};

rows! {
    Lea => choose(|_, op| match (op.size, op.special, op.index) {
        (8, 0, ZERO_SLOT) => lea_64_base as Handler,
        _ => by_size!(op.size, lea),
    }),
    // Its index is AL alone, which a register slot cannot say.
    Xlatb => rewrite(|_, _, op| Some(Op { run: xlat, index: ZERO_SLOT, ..op })),
}

extern "C" fn lea<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.effective(op);
    cpu.set_dst(op, T::trunc(address));
    Ok(())
}

/// The commonest form: 64 bits, base and displacement.
extern "C" fn lea_64_base(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.arch.gpr[usize::from(op.base & 31)].wrapping_add(op.disp);
    cpu.set_dst(op, address);
    Ok(())
}

extern "C" fn xlat(cpu: &mut Cpu, op: &Op) -> Exec {
    let index = cpu.arch.gpr[Gpr::Rax] & 0xff;
    let la = cpu.linear_plus(op, index, 1, AccessKind::Read)?;
    let value: u8 = cpu.load(la)?;
    cpu.set_reg(0, false, value);
    Ok(())
}
