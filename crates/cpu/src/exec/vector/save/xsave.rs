//! XSAVE, XSAVEOPT, XSAVEC and XSAVES (SDM Vol. 1, 13.7, 13.9 to 13.11).
//!
//! XSAVEOPT and XSAVES apply the init optimization always and the modified optimization never:
//! the manual leaves both open.

use cloister_x86::regs::{Cr0, Cr4, Xfeatures};
use cloister_x86::vmx::SecondaryControls;
use cloister_x86::{Exception, Gpr, Vector};

use super::area::{
    Area, BASE_SIZE, COMPACTED, Format, HEADER, MAX_SIZE, MXCSR, X87_CONTROL, X87_REGISTERS, in_use,
};
use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::{Op, handler};
use crate::state::vector::MXCSR_DEFAULT;

/// Which of the instructions saves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Variant {
    Xsave,
    Xsaveopt,
    Xsavec,
    Xsaves,
}

rows! {
    Xsave => always(handler!(|cpu, op| save(cpu, op, Variant::Xsave, false))),
    Xsave64 => always(handler!(|cpu, op| save(cpu, op, Variant::Xsave, true))),
    Xsaveopt => always(handler!(|cpu, op| save(cpu, op, Variant::Xsaveopt, false))),
    Xsaveopt64 => always(handler!(|cpu, op| save(cpu, op, Variant::Xsaveopt, true))),
    Xsavec => always(handler!(|cpu, op| save(cpu, op, Variant::Xsavec, false))),
    Xsavec64 => always(handler!(|cpu, op| save(cpu, op, Variant::Xsavec, true))),
    Xsaves => always(handler!(|cpu, op| save(cpu, op, Variant::Xsaves, false))),
    Xsaves64 => always(handler!(|cpu, op| save(cpu, op, Variant::Xsaves, true))),
}

impl Cpu {
    /// What the XSAVE and XRSTOR instructions check first: CR4.OSXSAVE, CR0.TS, and for those
    /// that handle supervisor state the CPL.
    pub(super) fn check_xsave(&mut self, supervisor: bool) -> Exec {
        if supervisor {
            self.require_enabled(SecondaryControls::XSAVES)?;
        }
        if !self.arch.cr4.contains(Cr4::OSXSAVE) {
            return Err(self.ud());
        }
        if self.arch.cr0.contains(Cr0::TS) {
            return Err(self.raise(Exception::new(Vector::Nm)));
        }
        if supervisor && self.arch.cpl != 0 {
            return Err(self.gp(0));
        }
        Ok(())
    }

    /// The requested-feature bitmap: EDX:EAX and XCR0 (IA32_XSS has no bits).
    pub(super) fn requested_features(&self) -> Xfeatures {
        let mask = self.arch.gpr[Gpr::Rdx] << 32 | self.arch.gpr[Gpr::Rax] & 0xffff_ffff;
        Xfeatures::from_bits_retain(mask) & self.arch.xcr0
    }

    /// XINUSE: the components that are not in their initial configuration (SDM Vol. 1, 13.6).
    #[must_use]
    pub(crate) fn xinuse(&self) -> Xfeatures {
        let all_registers = self.run.mode.is_64();
        in_use(&self.arch.fpu, &self.arch.vector, Format { wide: all_registers, all_registers })
    }

    /// Size of an area with these components.
    pub(super) const fn area_size(components: Xfeatures) -> usize {
        if components.contains(Xfeatures::AVX) { MAX_SIZE } else { BASE_SIZE }
    }
}

fn save(cpu: &mut Cpu, op: &Op, variant: Variant, wide: bool) -> Exec {
    cpu.check_xsave(variant == Variant::Xsaves)?;
    let requested = cpu.requested_features();
    let size = Cpu::area_size(requested);
    let la = cpu.area_address(op, 64, size, AccessKind::Write)?;
    let format = Format { wide, all_registers: cpu.run.mode.is_64() };
    let mut used = in_use(&cpu.arch.fpu, &cpu.arch.vector, format);
    let compact = matches!(variant, Variant::Xsavec | Variant::Xsaves);
    if compact && cpu.arch.vector.mxcsr != MXCSR_DEFAULT {
        // 13.10: MXCSR counts only here.
        used |= Xfeatures::SSE;
    }
    let saved = if variant == Variant::Xsave { requested } else { requested & used };
    let with_mxcsr = if compact {
        saved.contains(Xfeatures::SSE)
    } else {
        requested.intersects(Xfeatures::SSE | Xfeatures::AVX)
    };

    // In the order of processors: the area's last byte, then where the first component begins. The
    // legacy region is not looked at for a component that it does not have.
    cpu.probe_write(cpu.wrap_la(la.wrapping_add(size as u64 - 1)), 1)?;
    let start = if requested.contains(Xfeatures::X87) {
        0
    } else if with_mxcsr || requested.contains(Xfeatures::SSE) {
        MXCSR.start
    } else {
        HEADER
    };
    cpu.probe_write(cpu.wrap_la(la.wrapping_add(start as u64)), size - start)?;
    let mut area = Area::new(format);
    let header = if compact {
        area.put_quadword(HEADER, (requested & used).bits());
        area.put_quadword(HEADER + 8, requested.bits() | COMPACTED);
        HEADER..HEADER + 16
    } else {
        let mut old = [0; 8];
        let at = cpu.wrap_la(la.wrapping_add(HEADER as u64));
        cpu.read_bytes(at, &mut old, cpu.run.mmu_mode)?;
        let kept = u64::from_le_bytes(old) & !requested.bits();
        area.put_quadword(HEADER, kept | (requested & used).bits());
        HEADER..HEADER + 8
    };
    area.put_x87(&cpu.arch.fpu);
    area.put_mxcsr(&cpu.arch.vector);
    area.put_sse(&cpu.arch.vector);
    area.put_avx(&cpu.arch.vector);
    let parts = [
        (saved.contains(Xfeatures::X87), X87_CONTROL),
        (with_mxcsr, MXCSR),
        (saved.contains(Xfeatures::X87), X87_REGISTERS),
        (saved.contains(Xfeatures::SSE), format.xmm()),
        (true, header),
        (saved.contains(Xfeatures::AVX), format.avx()),
    ];
    // Neighbouring parts are written at once.
    let mut pending = 0..0;
    for (_, part) in parts.into_iter().filter(|(wanted, _)| *wanted) {
        if part.start == pending.end {
            pending.end = part.end;
            continue;
        }
        write_part(cpu, la, &area, pending)?;
        pending = part;
    }
    write_part(cpu, la, &area, pending)
}

fn write_part(cpu: &mut Cpu, la: u64, area: &Area, part: std::ops::Range<usize>) -> Exec {
    if part.is_empty() {
        return Ok(());
    }
    let at = cpu.wrap_la(la.wrapping_add(part.start as u64));
    cpu.write_bytes(at, &area.bytes[part], cpu.run.mmu_mode)
}
