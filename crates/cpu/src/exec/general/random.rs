//! RDRAND and RDSEED, from the host's random numbers.

use std::cell::RefCell;

use cloister_x86::vmx::{ExitReason, SecondaryControls};

use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::op::{Handler, Op};
use crate::vmx::info;

rows! {
    Rdrand => choose(|_, op| match op.size {
        2 => random::<u16, false> as Handler,
        4 => random::<u32, false>,
        _ => random::<u64, false>,
    }),
    Rdseed => choose(|_, op| match op.size {
        2 => random::<u16, true> as Handler,
        4 => random::<u32, true>,
        _ => random::<u64, true>,
    }),
}

/// Bytes taken from the host at once.
const BATCH: usize = 256;

struct Pool {
    bytes: [u8; BATCH],
    used: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; BATCH], used: BATCH }) };
}

/// A fresh number, or `None` where the host has none.
fn number<T: Int>() -> Option<T> {
    POOL.with_borrow_mut(|pool| {
        if pool.used + T::SIZE > BATCH {
            let mut filled = 0;
            while filled < BATCH {
                let flags = rustix::rand::GetRandomFlags::empty();
                match rustix::rand::getrandom(&mut pool.bytes[filled..], flags) {
                    Ok(count) => filled += count,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return None,
                }
            }
            pool.used = 0;
        }
        let bytes = &mut pool.bytes[pool.used..pool.used + T::SIZE];
        pool.used += T::SIZE;
        let value = T::from_bytes(bytes);
        // No number is ever given twice, and none is kept.
        bytes.fill(0);
        Some(value)
    })
}

/// CF tells success, the other flags are cleared (SDM Vol. 2B, RDRAND).
extern "C" fn random<T: Int, const SEED: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (reason, control) = if SEED {
        (ExitReason::Rdseed, SecondaryControls::RDSEED)
    } else {
        (ExitReason::Rdrand, SecondaryControls::RDRAND)
    };
    cpu.intercept_operand(op, reason, info::random(op), |c| c.secondary.contains(control))?;
    let number = number::<T>();
    cpu.arch.flags.set_bits(u64::from(number.is_some()));
    cpu.set_dst(op, number.unwrap_or(T::trunc(0)));
    Ok(())
}
