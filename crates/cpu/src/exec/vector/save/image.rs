//! Processor state as an XSAVE image outside guest memory: the XSAVE region of an SSA frame
//! (SDM Vol. 3D, 36.9).

use cloister_x86::regs::Xfeatures;

use super::area::{Area, Format, HEADER, Plan, in_use, initialize};
use crate::cpu::Cpu;
use crate::state::vector::MXCSR_DEFAULT;

/// An image that XRSTOR would refuse with #GP(0).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("XSAVE image has reserved or unsupported bits, or is too short")]
pub(crate) struct IllegalImage;

impl Cpu {
    fn image_format(&self) -> Format {
        Format { wide: self.run.mode.is_64(), all_registers: self.run.mode.is_64() }
    }

    /// The components `xfrm` of the current state in the standard format, as XSAVE writes them
    /// into an area of zeros.
    #[must_use]
    pub(crate) fn xsave_image(&self, xfrm: Xfeatures) -> Vec<u8> {
        let mut area = Area::new(self.image_format());
        if xfrm.contains(Xfeatures::X87) {
            area.put_x87(&self.arch.fpu);
        }
        if xfrm.intersects(Xfeatures::SSE | Xfeatures::AVX) {
            area.put_mxcsr(&self.arch.vector);
        }
        if xfrm.contains(Xfeatures::SSE) {
            area.put_sse(&self.arch.vector);
        }
        if xfrm.contains(Xfeatures::AVX) {
            area.put_avx(&self.arch.vector);
        }
        let used = in_use(&self.arch.fpu, &self.arch.vector, area.format);
        area.put_quadword(HEADER, (used & xfrm).bits());
        area.bytes[..Self::area_size(xfrm)].to_vec()
    }

    /// Restores the components `xfrm` from an image in the standard format.
    ///
    /// # Errors
    ///
    /// [`IllegalImage`] where XRSTOR with XCR0 = `xfrm` gives #GP(0), or where the image is in the
    /// compacted format or shorter than [`Cpu::area_size`]; nothing has changed then.
    pub(crate) fn xrstor_image(
        &mut self,
        image: &[u8],
        xfrm: Xfeatures,
    ) -> Result<(), IllegalImage> {
        let (area, plan) = self.read_image(image, xfrm)?;
        plan.apply(&area, &mut self.arch.fpu, &mut self.arch.vector).ok_or(IllegalImage)
    }

    fn read_image(&self, image: &[u8], xfrm: Xfeatures) -> Result<(Area, Plan), IllegalImage> {
        let image = image.get(..Self::area_size(xfrm)).ok_or(IllegalImage)?;
        let mut area = Area::new(self.image_format());
        area.bytes[..image.len()].copy_from_slice(image);
        let mut header = [0; 64];
        header.copy_from_slice(&area.bytes[HEADER..HEADER + 64]);
        if area.quadword(HEADER + 8) != 0 {
            return Err(IllegalImage);
        }
        let plan = Plan::new(&header, xfrm, xfrm).ok_or(IllegalImage)?;
        Ok((area, plan))
    }

    /// Sets the components `xfrm` to their initial configuration and MXCSR to its default: the
    /// synthetic state after an asynchronous exit (SDM Vol. 3D, table 37-3).
    pub(crate) fn initialize_xstate(&mut self, xfrm: Xfeatures) {
        // All 16 registers, whatever the mode: nothing of an enclave may be left.
        let format = Format { wide: true, all_registers: true };
        initialize(&mut self.arch.fpu, &mut self.arch.vector, xfrm, format);
        if xfrm.intersects(Xfeatures::SSE | Xfeatures::AVX) {
            self.arch.vector.mxcsr = MXCSR_DEFAULT;
        }
    }
}
