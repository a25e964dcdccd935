//! What counts of all that GRUB writes to the serial port.

/// Is before what a script echoes on purpose.
const ECHO: &str = "@ ";
/// Begins what the kernel says of itself.
const BOOT: &str = "#BOOT ";
/// What GRUB asks with when it has nothing more to do, in its two modes.
const PROMPTS: [&str; 2] = ["grub> ", "grub rescue> "];
/// What is below a menu that waits for a key.
const MENU: &str = "Use the ";

/// The lines that count. Nothing is booted where GRUB asks for a command or shows a menu.
pub(super) fn outcome(text: &str) -> Vec<String> {
    let text = plain(text);
    let mut lines: Vec<String> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| line.starts_with(ECHO) || line.starts_with(BOOT))
        .map(str::to_owned)
        .collect();
    if !lines.last().is_some_and(|line| line.starts_with(BOOT)) {
        // Without either it was stopped.
        lines.push(if is_complete(&text) { "#PROMPT" } else { "#ENDLESS" }.into());
    }
    lines
}

/// Whether nothing more will come.
pub(super) fn is_complete(text: &str) -> bool {
    let boot = text.rfind(BOOT).is_some_and(|at| text[at..].contains('\n'));
    boot || text.contains(MENU) || PROMPTS.iter().any(|prompt| text.contains(prompt))
}

/// The text without a terminal's control sequences.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\x1b' => {
                // ESC [ and parameters, up to a letter.
                if rest.next_if_eq(&'[').is_some() {
                    while rest.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
                }
                // What comes next is elsewhere on the screen.
                plain.push('\n');
            }
            '\r' => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_and_the_kernel_count_and_nothing_else() {
        let text = "\x1b[H\x1b[J\r\n@ one  \r\nerror: x\r\n\x1b[1;1H@ two\r\n\n#BOOT a b|0|0\n";

        assert_eq!(outcome(text), ["@ one", "@ two", "#BOOT a b|0|0"]);
        assert_eq!(outcome("@ one\r\ngrub> "), ["@ one", "#PROMPT"]);
        assert_eq!(outcome("@ one\r\n"), ["@ one", "#ENDLESS"]);
    }

    #[test]
    fn a_kernel_a_prompt_and_a_menu_are_the_end() {
        for (text, end) in
            [("@ a\n", false), ("#BOOT a", false), ("#BOOT a\n", true), ("x\ngrub> ", true)]
        {
            assert_eq!(is_complete(text), end, "{text}");
        }
    }
}
