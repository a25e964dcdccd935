//! The escape key of the console: Ctrl-A, then a letter.

/// Ctrl-A.
const ESCAPE: u8 = 0x01;

/// What Ctrl-A h shows.
pub const HELP: &str = "\r\n\
    Ctrl-A x       quit\r\n\
    Ctrl-A h       this help\r\n\
    Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

/// What a typed byte means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The byte is the guest's.
    Send(u8),
    /// Show [`HELP`].
    Help,
    /// End the machine.
    Quit,
}

/// Finds escape sequences in what is typed.
#[derive(Clone, Copy, Default, Debug)]
pub struct Escape {
    /// The last byte was an escape key that is not yet answered.
    pending: bool,
}

impl Escape {
    /// Takes one byte. An escape key followed by a key without a meaning is dropped with it.
    pub fn feed(&mut self, byte: u8) -> Option<Action> {
        if !std::mem::take(&mut self.pending) {
            self.pending = byte == ESCAPE;
            return (!self.pending).then_some(Action::Send(byte));
        }
        match byte {
            ESCAPE => Some(Action::Send(ESCAPE)),
            b'x' | b'X' => Some(Action::Quit),
            b'h' | b'H' | b'?' => Some(Action::Help),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(typed: &[u8]) -> Vec<Action> {
        let mut escape = Escape::default();
        typed.iter().filter_map(|&byte| escape.feed(byte)).collect()
    }

    #[test]
    fn bytes_without_an_escape_key_are_the_guests() {
        let typed: Vec<u8> = (0..=255).filter(|&byte| byte != ESCAPE).collect();

        let expected: Vec<Action> = typed.iter().map(|&byte| Action::Send(byte)).collect();
        assert_eq!(actions(&typed), expected);
    }

    #[test]
    fn escape_sequences_act_and_send_nothing() {
        assert_eq!(actions(b"\x01x"), [Action::Quit]);
        assert_eq!(actions(b"\x01h"), [Action::Help]);
        assert_eq!(actions(b"\x01\x01"), [Action::Send(0x01)]);
        assert_eq!(actions(b"\x01q"), []);
    }

    #[test]
    fn an_escape_sequence_ends_with_its_second_key() {
        assert_eq!(actions(b"\x01\x01x"), [Action::Send(0x01), Action::Send(b'x')]);
        assert_eq!(actions(b"\x01qx"), [Action::Send(b'x')]);
        assert_eq!(actions(b"a\x01"), [Action::Send(b'a')]);
    }
}
