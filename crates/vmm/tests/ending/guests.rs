//! Guests that give a device all the work that it takes. Machine code that is entered in protected mode
//! at 1 MiB with flat segments, in 64 MiB of RAM.

use crate::virtio::{Code, DISK, NEXT, WRITE};

/// Registers of the console.
const CONSOLE: u32 = DISK - 0x1000;
/// A buffer of 40 MiB.
const BUFFER: u32 = 16 << 20;
const BUFFER_LEN: u32 = 40 << 20;
/// As many bytes of it as a request can have 253 times: a chain is shorter than 4 GiB.
const PART: u32 = 16 << 20;

/// Prints 64 buffers of 40 MiB at a time by the virtio console.
pub(crate) fn prints_gigabytes() -> Vec<u8> {
    let mut code = Code::default();
    for index in 0..64 {
        code.descriptor(index, BUFFER, BUFFER_LEN, 0);
    }
    code.start(CONSOLE, 1, 64);
    code.offer_for_ever(CONSOLE, 1, &(0..64).collect::<Vec<_>>())
}

/// Reads four gigabytes from its disk in one request, 256 times at a time.
pub(crate) fn reads_terabytes() -> Vec<u8> {
    let mut code = Code::default();
    code.disk_request(0, 254);
    for index in 1..254 {
        code.descriptor(index, BUFFER, PART, NEXT | WRITE);
    }
    code.start(DISK, 0, 256);
    code.offer_for_ever(DISK, 0, &[0; 256])
}

/// Breaks the console's queue and resets the device, for ever.
pub(crate) fn breaks_a_device() -> Vec<u8> {
    let mut code = Code::default();
    // Descriptors where there is no RAM.
    code.start(CONSOLE, 1, 64);
    code.store(CONSOLE + 0x044, 0);
    code.store(CONSOLE + 0x084, 0xffff);
    code.store(CONSOLE + 0x044, 1);
    let back = -(code.0.len() as i32 + 5);
    code.0.push(0xe9);
    code.0.extend(back.to_le_bytes());
    code.0
}

/// Prints dots by the serial port.
pub(crate) const DOTS: &[u8] = &[
    0xba, 0xf8, 0x03, 0x00, 0x00, // mov edx, COM1
    0xb0, b'.', // mov al, '.'
    0xee, // out dx, al
    0xeb, 0xfd, // jmp to out
];

/// Prints one dot, and reads nothing ever.
pub(crate) const DEAF: &[u8] = &[
    0xba, 0xf8, 0x03, 0x00, 0x00, // mov edx, COM1
    0xb0, b'.', // mov al, '.'
    0xee, // out dx, al
];
