//! Messages of the machine in the words of QEMU's options.

/// Options of `cloister run` and what serves the same in a line of QEMU's options.
const NAMES: [(&str, &str); 17] = [
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
    ("--name", "-name"),
    ("--pidfile", "-pidfile"),
    ("--serial", "-serial"),
    ("--daemonize", "-daemonize"),
];

/// What `cloister run` has to say of a value's form, and what QEMU's form is.
const FORMS: [(&str, &str); 4] = [
    (", after which only ,readonly may follow", ""),
    ("add ,readonly behind one", "add readonly=on to one"),
    ("add ,readonly behind both", "add readonly=on to both"),
    ("add ,readonly behind the image", "add readonly=on to the image"),
];

/// A message that names options of `cloister run`, with QEMU's options in their place.
#[must_use]
pub fn in_options_of_qemu(message: &str) -> String {
    let message =
        FORMS.iter().fold(message.to_owned(), |text, (own, theirs)| text.replace(own, theirs));
    rename(&message, |name| NAMES.iter().find(|(own, _)| *own == name).map(|(_, theirs)| *theirs))
}

/// A message that names options of QEMU which `cloister run` has too, with its options in their place.
#[must_use]
pub fn in_options_of_run(message: &str) -> String {
    rename(message, |name| option_of_run(name.strip_prefix('-')?))
}

/// The option of `cloister run` that does what an option of QEMU does, named without dashes.
pub(crate) fn option_of_run(name: &str) -> Option<&'static str> {
    let named = |theirs: &str| theirs.strip_prefix('-') == Some(name);
    NAMES.iter().find(|(_, theirs)| named(theirs)).map(|(own, _)| *own)
}

/// Renames whole words: a file may be called anything.
fn rename(message: &str, new_name: impl Fn(&str) -> Option<&'static str>) -> String {
    let words = message.split(' ').map(|word| {
        let (name, end) = match word.find([':', ',']) {
            Some(at) => word.split_at(at),
            None => (word, ""),
        };
        match new_name(name) {
            Some(name) => format!("{name}{end}"),
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
