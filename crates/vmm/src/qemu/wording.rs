//! Messages of the machine in the words of QEMU's options.

/// Options of `cloister run` and what serves the same in a line of QEMU's options.
const NAMES: [(&str, &str); 13] = [
    ("--kernel", "-kernel"),
    ("--initrd", "-initrd"),
    ("--append", "-append"),
    ("--memory", "-m"),
    ("--cpus", "-smp"),
    ("--cpu", "-cpu"),
    ("--disk", "-drive"),
    ("--sgx-epc", "-object memory-backend-epc"),
    ("--launch-key", "-sgx-launch-key"),
    ("--platform", "-sgx-platform"),
    ("--no-reboot", "-no-reboot"),
    ("--qmp", "-qmp"),
    ("--sandbox", "-sandbox"),
];

/// What `cloister run` has to say of a value's form, and what QEMU's form is.
const FORMS: [(&str, &str); 2] = [
    (", after which only ,readonly may follow", ""),
    ("add ,readonly behind one", "add readonly=on to one"),
];

/// A message that names options of `cloister run`, with QEMU's options in their place.
#[must_use]
pub fn in_options_of_qemu(message: &str) -> String {
    // Whole words: a file may be called anything.
    let message =
        FORMS.iter().fold(message.to_owned(), |text, (own, theirs)| text.replace(own, theirs));
    let words = message.split(' ').map(|word| {
        let (name, end) = match word.find([':', ',']) {
            Some(at) => word.split_at(at),
            None => (word, ""),
        };
        match NAMES.iter().find(|(own, _)| *own == name) {
            Some((_, theirs)) => format!("{theirs}{end}"),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_renamed_where_they_are_words() {
        for (own, theirs) in [
            ("--memory: 1M is too little", "-m: 1M is too little"),
            ("--cpus: 0 is none", "-smp: 0 is none"),
            (
                "--cpu: -sgx takes SGX away and --sgx-epc gives it EPC: leave one of them out",
                "-cpu: -sgx takes SGX away and -object memory-backend-epc gives it EPC: \
                 leave one of them out",
            ),
            (
                "it is for guests: add --sgx-epc, or",
                "it is for guests: add -object memory-backend-epc, or",
            ),
            ("--disk: cannot open /tmp/x--disk", "-drive: cannot open /tmp/x--disk"),
            (
                "--disk: cannot open x: name an image, after which only ,readonly may follow",
                "-drive: cannot open x: name an image",
            ),
            (
                "name an image, or add ,readonly behind one that may not be written",
                "name an image, or add readonly=on to one that may not be written",
            ),
        ] {
            assert_eq!(in_options_of_qemu(own), theirs);
        }
    }
}
