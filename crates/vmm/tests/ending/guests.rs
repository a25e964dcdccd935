//! Guests that give a device all the work that it takes. Machine code that is entered in protected mode
//! at 1 MiB with flat segments, in 64 MiB of RAM.

/// Registers of the first virtio device; the others follow, a page each.
const VIRTIO: u32 = 0xd000_0000;
const CONSOLE: u32 = VIRTIO + 0x1000;
const DISK: u32 = VIRTIO + 0x2000;

/// Where a queue has its descriptors and rings.
const DESCRIPTORS: u32 = 0x20_0000;
const AVAILABLE: u32 = 0x20_4000;
const USED: u32 = 0x20_8000;
/// The header of a disk's request, which reads from its first sector, and its status.
const HEADER: u32 = 0x20_c000;
const STATUS: u32 = 0x20_d000;
/// A buffer of 40 MiB.
const BUFFER: u32 = 16 << 20;
const BUFFER_LEN: u32 = 40 << 20;

const NEXT: u32 = 1;
const WRITE: u32 = 2;

/// Code as it is written.
#[derive(Default)]
struct Code(Vec<u8>);

impl Code {
    /// MOV dword [address], value.
    fn store(&mut self, address: u32, value: u32) {
        self.0.extend([0xc7, 0x05]);
        self.0.extend(address.to_le_bytes());
        self.0.extend(value.to_le_bytes());
    }

    fn descriptor(&mut self, index: u32, address: u32, len: u32, flags: u32) {
        let at = DESCRIPTORS + 16 * index;
        self.store(at, address);
        self.store(at + 4, 0);
        self.store(at + 8, len);
        self.store(at + 12, flags | (index + 1) << 16);
    }

    /// Brings a device up with one queue.
    fn start(&mut self, device: u32, queue: u32, size: u32) {
        for (register, value) in [
            (0x070, 0),
            (0x070, 1),
            (0x070, 3),
            // Version 1 and nothing else.
            (0x024, 0),
            (0x020, 0),
            (0x024, 1),
            (0x020, 1),
            (0x070, 11),
            (0x030, queue),
            (0x038, size),
            (0x080, DESCRIPTORS),
            (0x084, 0),
            (0x090, AVAILABLE),
            (0x094, 0),
            (0x0a0, USED),
            (0x0a4, 0),
            (0x044, 1),
            (0x070, 15),
        ] {
            self.store(device + register, value);
        }
    }

    /// Makes `heads`, of one ring's size, available again and again, with a notification each time.
    fn offer_for_ever(mut self, device: u32, queue: u32, heads: &[u16]) -> Vec<u8> {
        for (pair, index) in heads.chunks(2).zip(0..) {
            let two = u32::from(pair[0]) | u32::from(pair[1]) << 16;
            self.store(AVAILABLE + 4 + 4 * index, two);
        }
        // ADD word [AVAILABLE + 2], size
        let mut ring = vec![0x66, 0x81, 0x05];
        ring.extend((AVAILABLE + 2).to_le_bytes());
        ring.extend((heads.len() as u16).to_le_bytes());
        let start = self.0.len();
        self.0.extend(ring);
        self.store(device + 0x050, queue);
        // The interrupt is acknowledged, so that a turn that was cut short goes on.
        self.store(device + 0x064, 1);
        let back = start as i32 - (self.0.len() as i32 + 5);
        self.0.push(0xe9);
        self.0.extend(back.to_le_bytes());
        self.0
    }
}

/// Prints 64 buffers of 40 MiB at a time by the virtio console.
pub(crate) fn prints_gigabytes() -> Vec<u8> {
    let mut code = Code::default();
    for index in 0..64 {
        code.descriptor(index, BUFFER, BUFFER_LEN, 0);
    }
    code.start(CONSOLE, 1, 64);
    code.offer_for_ever(CONSOLE, 1, &(0..64).collect::<Vec<_>>())
}

/// Reads ten gigabytes from its disk in one request, 256 times at a time.
pub(crate) fn reads_terabytes() -> Vec<u8> {
    let mut code = Code::default();
    // Type IN, sector 0.
    for at in (0..16).step_by(4) {
        code.store(HEADER + at, 0);
    }
    code.descriptor(0, HEADER, 16, NEXT);
    for index in 1..255 {
        code.descriptor(index, BUFFER, BUFFER_LEN, NEXT | WRITE);
    }
    code.descriptor(255, STATUS, 1, WRITE);
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
