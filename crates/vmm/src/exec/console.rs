//! The end of what the kernel and PID 1 print: shown only where the machine fails.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are kept.
const KEPT: usize = 64 << 10;
/// Lines that are shown: the panic of a kernel with its trace.
const SHOWN: usize = 100;

/// The last of what was printed. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<u8>>>);

impl LastLines {
    /// The last lines, without what a terminal would take for orders.
    pub(super) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> =
            text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let shown = lines[lines.len().saturating_sub(SHOWN)..].iter();
        shown
            .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>() + "\n")
            .collect()
    }
}

impl Write for LastLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_harmless() {
        let mut lines = LastLines::default();
        for number in 0..20_000 {
            writeln!(lines, "\x1b[31mline {number}\r").unwrap();
        }

        let text = lines.text();

        assert_eq!(text.lines().count(), SHOWN);
        assert!(text.ends_with("[31mline 19999\n") && !text.contains('\x1b'));
    }
}
