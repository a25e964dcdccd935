//! The ways in which a guest resets its machine as it would a PC.

use cloister_vmm::machine::Outcome;

use crate::guests::POWERS_OFF;
use crate::machine::Running;

/// How a guest resets, by name.
const WAYS: [(&str, &[u8]); 7] = [
    ("keyboard controller, FEH", &[0xb0, 0xfe, 0xe6, 0x64]),
    // D1H, and an output port with the reset line low.
    ("keyboard controller, D1H", &[0xb0, 0xd1, 0xe6, 0x64, 0xb0, 0xfe, 0xe6, 0x60]),
    // in al, 0x92; or al, 1; out 0x92, al
    ("port 92H", &[0xe4, 0x92, 0x0c, 0x01, 0xe6, 0x92]),
    // mov dx, 0xcf9; then 02H and 06H
    ("port CF9H, hard", &[0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x02, 0xee, 0xb0, 0x06, 0xee]),
    // mov dx, 0xcf9; then 00H and 04H
    ("port CF9H, soft", &[0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x00, 0xee, 0xb0, 0x04, 0xee]),
    // ICR: INIT to APIC ID 0.
    (
        "INIT to the bootstrap processor",
        &[
            0xc7, 0x05, 0x10, 0x03, 0xe0, 0xfe, 0x00, 0x00, 0x00,
            0x00, // mov dword [fee00310h], 0
            0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x00,
            0x00, // mov dword [fee00300h], ..
        ],
    ),
    // ICR: INIT to itself.
    ("INIT by shorthand", &[0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x04, 0x00]),
];

#[test]
fn each_way_to_reset_a_pc_resets_the_machine() {
    for (way, code) in WAYS {
        let running = Running::start(code, &["--no-reboot"]);

        assert_eq!(running.outcome(), Outcome::Reset, "{way}");
    }
}

#[test]
fn a_look_for_pci_and_for_the_a20_gate_resets_nothing() {
    let looks = [
        0x66, 0xba, 0xf8, 0x0c, // mov dx, 0xcf8
        0xb8, 0x00, 0x04, 0x00, 0x80, 0xef, // mov eax, 0x80000400; out dx, eax
        0xed, // in eax, dx
        0xb0, 0x02, 0xe6, 0x92, // mov al, 2; out 0x92, al
        0xb0, 0xd1, 0xe6, 0x64, // mov al, 0xd1; out 0x64, al
        0xb0, 0xdf, 0xe6, 0x60, // mov al, 0xdf; out 0x60, al
    ];
    let running = Running::start(&[&looks, POWERS_OFF].concat(), &["--no-reboot"]);

    assert_eq!(running.outcome(), Outcome::PowerOff);
}
