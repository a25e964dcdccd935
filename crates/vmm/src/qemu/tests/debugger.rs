//! `-gdb`, `-s` and `-S`.

use super::read;
use crate::gdb::Address;
use crate::qmp::Listen;

#[test]
fn a_debugger_and_the_beginning_are_as_in_qemu() {
    let tcp = |port: u16| Some(Address::Tcp(([127, 0, 0, 1], port).into()));
    let unix = Some(Address::Unix(Listen { path: "/g".into(), wait: false }));
    for (line, expected) in [
        ("-s", (tcp(1234), false)),
        ("-s -S", (tcp(1234), true)),
        ("-gdb tcp::99", (tcp(99), false)),
        ("-gdb tcp:localhost:99,server=on,wait=on,nodelay=on", (tcp(99), true)),
        ("-gdb unix:/g,server=on,wait=off -S", (unix.clone(), true)),
        ("-gdb unix:/g,server=on", (unix, true)),
        ("-gdb none", (None, false)),
        ("-qmp unix:/q,server=on -S", (None, true)),
    ] {
        let found = read(line).map(|invocation| (invocation.gdb, invocation.stopped));
        assert_eq!(found, Ok(expected), "{line}");
    }
    for (line, error) in [
        ("-S", "-S: nothing could have the machine go on: add -qmp or -gdb, or leave it out"),
        ("-s -gdb tcp::1", "-gdb: it is given twice: leave one out"),
        (
            "-gdb tcp::1 -s",
            "-s: it stands for -gdb tcp::1234, and the debugger has its address: \
             leave one of them out",
        ),
        (
            "-gdb stdio",
            "-gdb: QEMU has stdio here and Cloister does not: \
             write tcp:127.0.0.1:PORT, unix:PATH,server=on,wait=off or none",
        ),
        (
            "-gdb tcp:10.0.0.1:1",
            "-gdb: 10.0.0.1 can be reached from other hosts, and whoever reaches it owns the \
             machine: write tcp:127.0.0.1:PORT",
        ),
        (
            "-gdb tcp::1,telnet=on",
            "-gdb: QEMU has the key telnet and Cloister does not: leave it out",
        ),
    ] {
        let found = read(line).unwrap_err().to_string();
        assert!(found.starts_with(error), "{found}");
    }
}
