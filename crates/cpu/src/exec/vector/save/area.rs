//! The layout of FXSAVE and XSAVE areas (SDM Vol. 1, 10.5.1, 13.4, 13.5).

use std::ops::Range;

use cloister_x86::regs::Xfeatures;

use crate::state::vector::{MXCSR_DEFAULT, MXCSR_MASK, VectorState};
use crate::state::x87::{Fpu, Reg80};

/// Bytes of the legacy region and the header.
pub(crate) const BASE_SIZE: usize = 576;
/// Bytes of the largest area.
pub(crate) const MAX_SIZE: usize = BASE_SIZE + AVX_SIZE;
/// Where the header is.
pub(crate) const HEADER: usize = 512;
/// Bytes of the component that holds the upper halves of the YMM registers.
pub(crate) const AVX_SIZE: usize = 256;
/// XCOMP_BV: the area is compacted.
pub(crate) const COMPACTED: u64 = 1 << 63;

/// x87 state below MXCSR: control, status, tags, opcode and pointers.
pub(crate) const X87_CONTROL: Range<usize> = 0..24;
/// MXCSR and MXCSR_MASK.
pub(crate) const MXCSR: Range<usize> = 24..32;
/// ST0 to ST7.
pub(crate) const X87_REGISTERS: Range<usize> = 32..160;
const XMM: usize = 160;

/// How an instruction sees an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Format {
    /// 64-bit instruction and data pointers (REX.W).
    pub(crate) wide: bool,
    /// 16 vector registers (64-bit mode), else 8.
    pub(crate) all_registers: bool,
}

impl Format {
    /// Number of vector registers.
    #[must_use]
    pub(crate) const fn registers(self) -> usize {
        if self.all_registers { 16 } else { 8 }
    }

    /// Where the XMM registers are.
    #[must_use]
    pub(crate) const fn xmm(self) -> Range<usize> {
        XMM..XMM + 16 * self.registers()
    }

    /// Where the upper halves of the YMM registers are, in the standard format and, as the only
    /// extended component, in the compacted one.
    #[must_use]
    pub(crate) const fn avx(self) -> Range<usize> {
        BASE_SIZE..BASE_SIZE + 16 * self.registers()
    }
}

/// An area in memory order.
#[derive(Clone, Debug)]
pub(crate) struct Area {
    /// The bytes.
    pub(crate) bytes: [u8; MAX_SIZE],
    /// Which of its layouts it has.
    pub(crate) format: Format,
}

impl Area {
    /// An area of zeros.
    #[must_use]
    pub(crate) const fn new(format: Format) -> Self {
        Self { bytes: [0; MAX_SIZE], format }
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[at..at + N]);
        bytes
    }

    /// A quadword.
    #[must_use]
    pub(crate) fn quadword(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.get(at))
    }

    /// Writes a quadword.
    pub(crate) fn put_quadword(&mut self, at: usize, value: u64) {
        self.put(at, value.to_le_bytes());
    }

    /// MXCSR as the area has it.
    #[must_use]
    pub(crate) fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.get(MXCSR.start))
    }

    /// Writes MXCSR and MXCSR_MASK.
    pub(crate) fn put_mxcsr(&mut self, vector: &VectorState) {
        self.put(MXCSR.start, vector.mxcsr.to_le_bytes());
        self.put(MXCSR.start + 4, MXCSR_MASK.to_le_bytes());
    }

    /// Writes x87 state. The code and data segments are zero: CPUID.7.0:EBX bit 13 deprecates
    /// them.
    pub(crate) fn put_x87(&mut self, fpu: &Fpu) {
        self.put(0, fpu.control.to_le_bytes());
        self.put(2, fpu.status_word().to_le_bytes());
        self.put(4, [fpu.tags, 0]);
        self.put(6, fpu.fop.to_le_bytes());
        if self.format.wide {
            self.put(8, fpu.fip.to_le_bytes());
            self.put(16, fpu.fdp.to_le_bytes());
        } else {
            self.put(8, (fpu.fip & 0xffff_ffff).to_le_bytes());
            self.put(16, (fpu.fdp & 0xffff_ffff).to_le_bytes());
        }
        for i in 0..8 {
            let register = fpu.st(i);
            let at = X87_REGISTERS.start + 16 * usize::from(i);
            self.put(at, register.mantissa.to_le_bytes());
            self.put(at + 8, u64::from(register.sign_exp).to_le_bytes());
        }
    }

    /// The x87 state that the area holds. Reserved bits of the control word are as if they had
    /// been loaded by FLDCW, and ES and B follow from flags and masks (SDM Vol. 1, 8.1.3.3).
    #[must_use]
    pub(crate) fn x87(&self) -> Fpu {
        let pointer = |at: usize| {
            if self.format.wide {
                self.quadword(at)
            } else {
                u64::from(u32::from_le_bytes(self.get(at)))
            }
        };
        let mut fpu = initial_x87();
        fpu.set_control_word(u16::from_le_bytes(self.get(0)));
        fpu.set_status_word(u16::from_le_bytes(self.get(2)));
        fpu.tags = self.bytes[4];
        fpu.fop = u16::from_le_bytes(self.get(6)) & 0x7ff;
        // Processors keep 48 bits of the instruction pointer, and all of the data pointer.
        (fpu.fip, fpu.fdp) = (((pointer(8) << 16) as i64 >> 16) as u64, pointer(16));
        for i in 0..8 {
            let at = X87_REGISTERS.start + 16 * usize::from(i);
            let register = fpu.physical(i);
            fpu.regs[register] = Reg80 {
                mantissa: self.quadword(at),
                sign_exp: u16::from_le_bytes(self.get(at + 8)),
            };
        }
        fpu
    }

    /// Writes the XMM registers.
    pub(crate) fn put_sse(&mut self, vector: &VectorState) {
        for i in 0..self.format.registers() {
            let [low, high, ..] = vector.ymm[i];
            self.put_quadword(XMM + 16 * i, low);
            self.put_quadword(XMM + 16 * i + 8, high);
        }
    }

    /// Reads the XMM registers.
    pub(crate) fn take_sse(&self, vector: &mut VectorState) {
        for i in 0..self.format.registers() {
            vector.ymm[i][0] = self.quadword(XMM + 16 * i);
            vector.ymm[i][1] = self.quadword(XMM + 16 * i + 8);
        }
    }

    /// Writes the upper halves of the YMM registers.
    pub(crate) fn put_avx(&mut self, vector: &VectorState) {
        for i in 0..self.format.registers() {
            let [.., low, high] = vector.ymm[i];
            self.put_quadword(BASE_SIZE + 16 * i, low);
            self.put_quadword(BASE_SIZE + 16 * i + 8, high);
        }
    }

    /// Reads the upper halves of the YMM registers.
    pub(crate) fn take_avx(&self, vector: &mut VectorState) {
        for i in 0..self.format.registers() {
            vector.ymm[i][2] = self.quadword(BASE_SIZE + 16 * i);
            vector.ymm[i][3] = self.quadword(BASE_SIZE + 16 * i + 8);
        }
    }
}

/// x87 state in its initial configuration (SDM Vol. 1, 13.6).
#[must_use]
pub(crate) fn initial_x87() -> Fpu {
    Fpu { control: 0x37f, tags: 0, ..Fpu::default() }
}

/// XINUSE: the components that are not in their initial configuration (SDM Vol. 1, 13.6).
#[must_use]
pub(crate) fn in_use(fpu: &Fpu, vector: &VectorState, format: Format) -> Xfeatures {
    let registers = &vector.ymm[..format.registers()];
    let initial = fpu.control == 0x37f
        && (fpu.status, fpu.top, fpu.tags) == (0, 0, 0)
        && (fpu.fop, fpu.fip, fpu.fdp) == (0, 0, 0)
        && fpu.regs == [Reg80::ZERO; 8];
    let mut components = Xfeatures::empty();
    components.set(Xfeatures::X87, !initial);
    components.set(Xfeatures::SSE, registers.iter().any(|r| r[0] | r[1] != 0));
    components.set(Xfeatures::AVX, registers.iter().any(|r| r[2] | r[3] != 0));
    components
}

/// Sets components to their initial configuration; MXCSR stays.
pub(crate) fn initialize(
    fpu: &mut Fpu,
    vector: &mut VectorState,
    components: Xfeatures,
    format: Format,
) {
    if components.contains(Xfeatures::X87) {
        *fpu = initial_x87();
    }
    for register in &mut vector.ymm[..format.registers()] {
        if components.contains(Xfeatures::SSE) {
            [register[0], register[1]] = [0; 2];
        }
        if components.contains(Xfeatures::AVX) {
            [register[2], register[3]] = [0; 2];
        }
    }
}

/// What is restored from an area, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Components to load.
    pub(crate) load: Xfeatures,
    /// Components to initialize.
    pub(crate) initialize: Xfeatures,
    /// MXCSR afterwards, where it changes: as the area has it (`true`) or its default.
    pub(crate) mxcsr: Option<bool>,
}

impl Plan {
    /// What XRSTOR of the components `rfbm` does with an area that has this header, where
    /// `allowed` are the components that the processor may have enabled (SDM Vol. 1, 13.8, 13.12).
    /// `None`: #GP(0).
    #[must_use]
    pub(crate) fn new(header: &[u8; 64], rfbm: Xfeatures, allowed: Xfeatures) -> Option<Self> {
        let word = |n: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[8 * n..8 * n + 8]);
            u64::from_le_bytes(bytes)
        };
        let (xstate_bv, xcomp_bv) = (word(0), word(1));
        let present = Xfeatures::from_bits_retain(xstate_bv);
        if xcomp_bv & COMPACTED == 0 {
            // 13.8.1
            if !allowed.contains(present) || xcomp_bv != 0 || word(2) != 0 {
                return None;
            }
            let mxcsr = rfbm.intersects(Xfeatures::SSE | Xfeatures::AVX);
            return Some(Self {
                load: rfbm & present,
                initialize: rfbm.difference(present),
                mxcsr: mxcsr.then_some(true),
            });
        }
        // 13.8.2
        let format = Xfeatures::from_bits_retain(xcomp_bv & !COMPACTED);
        let reserved = (2..8).any(|n| word(n) != 0);
        if !allowed.contains(format) || !format.contains(present) || reserved {
            return None;
        }
        let load = rfbm & format & present;
        Some(Self {
            load,
            initialize: rfbm.difference(load),
            mxcsr: rfbm.contains(Xfeatures::SSE).then_some(load.contains(Xfeatures::SSE)),
        })
    }

    /// Carries the plan out. `None`, and nothing done: MXCSR has reserved bits, #GP(0).
    ///
    /// The manual leaves open what is loaded by then; some processors have loaded x87 state, and
    /// of a compacted area the XMM registers.
    #[must_use]
    pub(crate) fn apply(self, area: &Area, fpu: &mut Fpu, vector: &mut VectorState) -> Option<()> {
        let mxcsr = match self.mxcsr {
            Some(true) if area.mxcsr() & !MXCSR_MASK != 0 => return None,
            Some(true) => area.mxcsr(),
            Some(false) => MXCSR_DEFAULT,
            None => vector.mxcsr,
        };
        vector.mxcsr = mxcsr;
        initialize(fpu, vector, self.initialize, area.format);
        if self.load.contains(Xfeatures::X87) {
            *fpu = area.x87();
        }
        if self.load.contains(Xfeatures::SSE) {
            area.take_sse(vector);
        }
        if self.load.contains(Xfeatures::AVX) {
            area.take_avx(vector);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X87_SSE: Xfeatures = Xfeatures::X87.union(Xfeatures::SSE);

    fn header(xstate_bv: u64, xcomp_bv: u64) -> [u8; 64] {
        let mut header = [0; 64];
        header[..8].copy_from_slice(&xstate_bv.to_le_bytes());
        header[8..16].copy_from_slice(&xcomp_bv.to_le_bytes());
        header
    }

    #[test]
    fn a_standard_header_with_an_unsupported_component_is_refused() {
        assert!(Plan::new(&header(4, 0), X87_SSE, X87_SSE).is_none());
        assert!(Plan::new(&header(3, 1), X87_SSE, X87_SSE).is_none());
    }

    #[test]
    fn a_standard_area_loads_what_it_has_and_initializes_the_rest() {
        let plan = Plan::new(&header(1, 0), X87_SSE, X87_SSE).unwrap();
        assert_eq!(plan.load, Xfeatures::X87);
        assert_eq!(plan.initialize, Xfeatures::SSE);
        assert_eq!(plan.mxcsr, Some(true));
    }

    #[test]
    fn a_compacted_area_without_sse_gives_the_default_mxcsr() {
        let plan = Plan::new(&header(1, COMPACTED | 3), X87_SSE, X87_SSE).unwrap();
        assert_eq!(plan.mxcsr, Some(false));
    }

    #[test]
    fn a_compacted_header_has_no_component_outside_its_format() {
        assert!(Plan::new(&header(3, COMPACTED | 1), X87_SSE, X87_SSE).is_none());
        let mut reserved = header(1, COMPACTED | 3);
        reserved[63] = 1;
        assert!(Plan::new(&reserved, X87_SSE, X87_SSE).is_none());
    }

    #[test]
    fn x87_state_survives_the_area() {
        let format = Format { wide: true, all_registers: true };
        let mut fpu =
            Fpu { control: 0x27f, top: 5, status: 0x4700, tags: 0b1010_0000, ..Fpu::default() };
        fpu.regs[5] = Reg80 { mantissa: 1 << 63, sign_exp: 0x3fff };
        (fpu.fop, fpu.fip, fpu.fdp) = (0x123, 0x7fff_1234_5678, 0x55aa_0000_1111);
        let mut area = Area::new(format);
        area.put_x87(&fpu);
        let back = area.x87();
        assert_eq!(area.quadword(32), 1 << 63, "ST0 comes first");
        assert_eq!(
            (back.top, back.status, back.tags, back.control),
            (5, 0x4700, 0b1010_0000, 0x27f)
        );
        assert_eq!((back.fop, back.fip, back.fdp), (fpu.fop, fpu.fip, fpu.fdp));
        assert_eq!(back.regs, fpu.regs);
    }
}
