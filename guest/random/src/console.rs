//! The first serial port, whose other end takes all bytes at once.

use core::arch::asm;
use core::fmt::{Result, Write};

pub(crate) struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> Result {
        for byte in text.bytes() {
            // SAFETY: the data register of the first serial port.
            unsafe { asm!("out dx, al", in("dx") 0x3f8_u16, in("al") byte, options(nostack)) };
        }
        Ok(())
    }
}
