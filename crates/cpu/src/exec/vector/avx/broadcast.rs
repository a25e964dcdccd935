//! VBROADCAST and VPBROADCAST: one element everywhere (SDM Vol. 2C).

use crate::cpu::Cpu;
use crate::exec::table::{always, choose, vector_rows};
use crate::exec::vector::form::{M8, M16, M32, M64, M128, REGISTER, by_form_and_memory};
use crate::exec::vector::lane::{Element, Lane};
use crate::exit::Exec;
use crate::op::{Op, VEX_128, VEX_256, handler};

macro_rules! broadcast {
    ($t:ty, $kind:ident) => {
        |_, op| {
            extern "C" fn run<const FORM: u8, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
                if MEMORY {
                    broadcast::<FORM, $kind>(cpu, op, splat::<$t>)
                } else {
                    broadcast::<FORM, REGISTER>(cpu, op, splat::<$t>)
                }
            }
            by_form_and_memory!(op, run)
        }
    };
}

vector_rows! {
    Vpbroadcastb => choose(broadcast!(u8, M8)),
    Vpbroadcastw => choose(broadcast!(u16, M16)),
    Vpbroadcastd | Vbroadcastss => choose(broadcast!(u32, M32)),
    Vpbroadcastq | Vbroadcastsd => choose(broadcast!(u64, M64)),
    Vbroadcastf128 | Vbroadcasti128 =>
        always(handler!(|cpu, op| broadcast::<VEX_256, M128>(cpu, op, |b| b))),
}

/// The lowest element in all places of a lane.
#[inline(always)]
fn splat<T: Element>(b: Lane) -> Lane {
    let mut elements = T::split(b);
    let elements_mut = elements.as_mut();
    elements_mut.fill(elements_mut[0]);
    T::join(elements)
}

#[inline(always)]
fn broadcast<const FORM: u8, const KIND: u8>(
    cpu: &mut Cpu,
    op: &Op,
    f: impl Fn(Lane) -> Lane,
) -> Exec {
    cpu.check_avx()?;
    let lane = f(cpu.xmm_source::<VEX_128, KIND>(op)?);
    let high = if FORM == VEX_256 { lane } else { [0; 2] };
    cpu.arch.vector.set_ymm(op.dst, [lane, high]);
    Ok(())
}
