//! Instructions that are emitted as the decoder read them, with other operands.

use iced_x86::Instruction;

use crate::asm::Asm;

/// Encodes instructions into code under construction.
pub(crate) struct Encoder(iced_x86::Encoder);

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self(iced_x86::Encoder::new(64))
    }

    /// Appends an instruction without RIP-relative operands; `false`, and nothing, if it has no
    /// encoding.
    pub(crate) fn encode(&mut self, asm: &mut Asm, instruction: &Instruction) -> bool {
        let start = asm.code.len();
        self.0.set_buffer(std::mem::take(&mut asm.code));
        let encoded = self.0.encode(instruction, 0).is_ok();
        asm.code = self.0.take_buffer();
        if !encoded {
            asm.code.truncate(start);
        }
        encoded
    }
}
