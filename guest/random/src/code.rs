//! Random code of enclaves: slots of 32 bytes, each with an instruction or a few and then NOPs, so that whoever
//! handles a fault can go on at the next.
//!
//! It ends, and what it computes depends on nothing but registers and memory: no jump goes back but of loops that
//! count, no clock is read, no register gets what the SDM leaves undefined.

use crate::enclave::{
    CODE, CONSTANTS, DATA, DYNAMIC, GPRSGX, GPRSGX_RIP, PAGE, SECRETS, SPARE, SSA,
};
use crate::leaves::enclu;
use crate::numbers::Numbers;
use crate::{OUT, USER_DATA};

/// Bytes of a slot.
pub(crate) const SLOT: usize = 32;
/// Slots of a page. The last are the handler of exceptions.
const SLOTS: usize = PAGE as usize / SLOT;
const HANDLER: usize = SLOTS - 4;
/// Where the page has EEXIT, whatever else it has.
pub(crate) const END: u64 = ((HANDLER + 1) * SLOT) as u64;

/// Registers that code computes with, and those that it addresses memory by.
const VALUES: [u8; 8] = [0, 1, 2, 3, 8, 9, 10, 11];
const BASES: [u8; 6] = [6, 7, 5, 13, 14, 15];

/// Fills the page of code.
pub(crate) fn fill(page: &mut [u8; PAGE as usize], numbers: &mut Numbers) {
    page.fill(0x90);
    let length = 4 + numbers.below(100) as usize;
    for (slot, bytes) in page.chunks_exact_mut(SLOT).enumerate() {
        let mut code = Code { bytes: [0x90; SLOT], length: 0, slot };
        match slot {
            // EAX is CSSA.
            0 => {
                code.put(&[0x85, 0xc0, 0x0f, 0x85]);
                code.relative(HANDLER * SLOT);
            }
            slot if slot < length => code.random(numbers),
            HANDLER => code.handler(),
            slot if slot > HANDLER => {}
            _ => code.exit(),
        }
        bytes.copy_from_slice(&code.bytes);
    }
    // The handler's second half.
    let mut code = Code { bytes: [0x90; SLOT], length: 0, slot: HANDLER + 1 };
    code.exit();
    page[(HANDLER + 1) * SLOT..(HANDLER + 2) * SLOT].copy_from_slice(&code.bytes);
}

struct Code {
    bytes: [u8; SLOT],
    length: usize,
    slot: usize,
}

impl Code {
    /// Adds bytes; what does not fit is left out, all of it.
    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            place.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    /// A displacement of 4 bytes, from where it ends, to an offset in the page of code.
    fn relative(&mut self, to: usize) {
        let from = self.slot * SLOT + self.length + 4;
        self.put(&(to as i32 - from as i32).to_le_bytes());
    }

    /// LEA of a 64-bit register with a place in the enclave.
    fn address(&mut self, register: u8, page: u64, at: u64) {
        self.put(&[0x48 | (register >> 3) << 2, 0x8d, 0x05 | (register & 7) << 3]);
        let from = CODE * PAGE + (self.slot * SLOT + self.length + 4) as u64;
        self.put(&((page * PAGE + at) as i32 - from as i32).to_le_bytes());
    }

    /// MOV of a 32-bit register.
    fn set(&mut self, register: u8, value: u32) {
        self.put(&[0xb8 | register]);
        self.put(&value.to_le_bytes());
    }

    /// EEXIT.
    fn exit(&mut self) {
        self.put(&[0x48, 0xbb]);
        self.put(&OUT.to_le_bytes());
        self.set(0, enclu::EEXIT as u32);
        self.put(&[0x0f, 0x01, 0xd7]);
    }

    /// Has the thread that an exception stopped go on at its next slot.
    fn handler(&mut self) {
        self.address(2, SSA, GPRSGX);
        let rip = (GPRSGX_RIP - GPRSGX) as u32;
        self.put(&[0x48, 0x8b, 0x82]);
        self.put(&rip.to_le_bytes());
        self.put(&[0x48, 0x83, 0xe0, 0xe0, 0x48, 0x83, 0xc0, SLOT as u8]);
        self.put(&[0x48, 0x89, 0x82]);
        self.put(&rip.to_le_bytes());
    }

    /// Sets all flags: some instructions leave some undefined.
    fn define_flags(&mut self, numbers: &mut Numbers) {
        self.put(&[0x3d]);
        self.put(&(numbers.next() as u32).to_le_bytes());
    }

    /// Prefixes, an opcode and a ModRM byte with this or a random register, and a random operand.
    fn modrm(
        &mut self,
        numbers: &mut Numbers,
        prefix: &[u8],
        opcode: &[u8],
        field: Option<u8>,
        memory: bool,
    ) {
        let register = field.unwrap_or_else(|| value(numbers));
        let wide = u8::from(numbers.below(2) == 0) << 3;
        self.put(prefix);
        if memory {
            let base = numbers.of_these(&BASES);
            self.put(&[0x40 | wide | (register >> 3) << 2 | base >> 3]);
            self.put(opcode);
            self.put(&[0x80 | (register & 7) << 3 | base & 7]);
            self.put(&displacement(numbers).to_le_bytes());
        } else {
            let other = value(numbers);
            self.put(&[0x40 | wide | (register >> 3) << 2 | other >> 3]);
            self.put(opcode);
            self.put(&[0xc0 | (register & 7) << 3 | other & 7]);
        }
    }

    fn random(&mut self, numbers: &mut Numbers) {
        let memory = numbers.below(3) != 0;
        match numbers.below(24) {
            0 | 1 => {
                let opcode = (numbers.below(8) << 3 | numbers.below(4)) as u8;
                self.modrm(numbers, &[], &[opcode], None, memory);
                self.define_flags(numbers);
            }
            2 => {
                let field = numbers.below(8) as u8;
                self.modrm(numbers, &[], &[0x83], Some(field), memory);
                self.put(&[numbers.next() as u8]);
                self.define_flags(numbers);
            }
            3 | 4 => {
                let opcode = numbers.of_these(&[0x88, 0x89, 0x8a, 0x8b, 0x89, 0x8b, 0x86, 0x87]);
                self.modrm(numbers, &[], &[opcode], None, memory);
            }
            5 => {
                let field = numbers.below(8) as u8;
                let opcode = numbers.of_these(&[0xc0, 0xc1]);
                self.modrm(numbers, &[], &[opcode], Some(field), memory);
                self.put(&[numbers.next() as u8]);
                self.define_flags(numbers);
            }
            6 => {
                let field = numbers.of_these(&[2, 3, 4, 5, 6, 7]);
                let opcode = numbers.of_these(&[0xf6, 0xf7]);
                self.modrm(numbers, &[], &[opcode], Some(field), memory);
                self.define_flags(numbers);
            }
            7 => {
                let field = numbers.of_these(&[0, 1, 6]);
                self.modrm(numbers, &[], &[0xff], Some(field), memory);
            }
            8 => {
                let register = value(numbers);
                let opcode = numbers.of_these(&[0x50, 0x58]) | register & 7;
                self.put(&[0x40 | register >> 3, opcode]);
            }
            9 => {
                let second = match numbers.below(3) {
                    0 => 0x40 | numbers.below(16) as u8,
                    1 => 0x90 | numbers.below(16) as u8,
                    _ => numbers.of_these(&[0xb6, 0xb7, 0xbe, 0xbf]),
                };
                self.modrm(numbers, &[], &[0x0f, second], None, memory);
            }
            10 => {
                let second = numbers.of_these(&[0xa3, 0xab, 0xb3, 0xbb, 0xb0, 0xb1, 0xc0, 0xc1]);
                let lock: &[u8] = if numbers.once_in(4) { &[0xf0] } else { &[] };
                self.modrm(numbers, lock, &[0x0f, second], None, memory);
                self.define_flags(numbers);
            }
            11 | 12 => self.sse(numbers, memory),
            13 => self.avx(numbers, memory),
            14 => {
                self.set(1, numbers.below(80) as u32);
                let repeat: &[u8] = numbers.of_these(&[&[], &[0xf3], &[0xf2]]);
                self.put(repeat);
                let wide: &[u8] = numbers.of_these(&[&[], &[0x48], &[0x66]]);
                self.put(wide);
                self.put(&[
                    numbers.of_these(&[0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae])
                ]);
            }
            15 => {
                let escape = 0xd8 + numbers.below(8) as u8;
                let field = numbers.below(8) as u8;
                self.modrm(numbers, &[], &[escape], Some(field), memory);
            }
            16 | 17 => self.not_for_enclaves(numbers),
            18 => {
                let to = (self.slot + 1 + numbers.below(4) as usize).min(HANDLER - 1) * SLOT;
                match numbers.below(4) {
                    0 => self.put(&[0xe9]),
                    1 => self.put(&[0xe8]),
                    _ => self.put(&[0x0f, 0x80 | numbers.below(16) as u8]),
                }
                self.relative(to);
            }
            19 => self.counted(numbers),
            20 | 21 => self.leaf(numbers),
            22 => self.bases(numbers),
            _ => self.change_code(numbers),
        }
    }

    fn sse(&mut self, numbers: &mut Numbers, memory: bool) {
        // Without RSQRTPS and RCPPS, which are approximations.
        let second = match numbers.below(4) {
            0 => numbers
                .of_these(&[0x10, 0x11, 0x28, 0x29, 0x2a, 0x2c, 0x2d, 0x2e, 0x2f, 0x6f, 0x7f]),
            1 => numbers.of_these(&[
                0x51, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x5e,
            ]),
            2 => 0x60 | numbers.below(15) as u8,
            _ => 0xd1 | numbers.below(0x2e) as u8,
        };
        let prefix: &[u8] = numbers.of_these(&[&[], &[0x66], &[0xf3], &[0xf2]]);
        self.modrm(numbers, prefix, &[0x0f, second], None, memory);
    }

    /// VEX with three bytes, in each of the maps.
    fn avx(&mut self, numbers: &mut Numbers, memory: bool) {
        let map = 1 + numbers.below(3) as u8;
        let second = numbers.next() as u8;
        if map == 1 && matches!(second, 0x52 | 0x53 | 0xae) {
            return;
        }
        let (register, base) = (value(numbers), numbers.of_these(&BASES));
        let fields = numbers.next() as u8;
        let inverted = u8::from(register < 8) << 7 | 0x40 | u8::from(base < 8) << 5;
        self.put(&[0xc4, inverted | map, fields, second]);
        if memory {
            self.put(&[0x80 | (register & 7) << 3 | base & 7]);
            self.put(&displacement(numbers).to_le_bytes());
        } else {
            self.put(&[0xc0 | (register & 7) << 3 | numbers.below(8) as u8]);
        }
        if map == 3 || matches!(second, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6) {
            self.put(&[numbers.next() as u8]);
        }
        self.define_flags(numbers);
    }

    /// Exceptions, and what an enclave may not execute (SDM Vol. 3D, 34.6.1).
    fn not_for_enclaves(&mut self, numbers: &mut Numbers) {
        let bytes: &[u8] = numbers.of_these::<&[u8]>(&[
            &[0xcc],
            &[0xcd, 0x03],
            &[0xcd, 0x80],
            &[0xcd, 0x21],
            &[0xce],
            &[0x0f, 0x0b],
            &[0x0f, 0xff, 0xc0],
            &[0xf4],
            &[0x0f, 0xa2],
            &[0x0f, 0x05],
            &[0x0f, 0x34],
            &[0xec],
            &[0xef],
            &[0x6c],
            &[0x0f, 0x32],
            &[0x0f, 0x30],
            &[0x0f, 0x33],
            &[0x0f, 0x09],
            &[0x0f, 0x06],
            &[0x0f, 0x20, 0xc0],
            &[0x0f, 0x23, 0xc0],
            &[0x0f, 0x01, 0xc1],
            &[0x0f, 0x01, 0xd9],
            &[0x0f, 0x01, 0xcf],
            &[0x0f, 0x01, 0xc0],
            &[0x0f, 0x01, 0xf8],
            &[0x0f, 0x01, 0xca],
            &[0x0f, 0x01, 0xe0],
            &[0x0f, 0x01, 0x06],
            &[0x0f, 0x01, 0x0e],
            &[0x0f, 0x01, 0x3e],
            &[0x0f, 0x00, 0xc0],
            &[0x0f, 0x00, 0xc8],
            &[0x0f, 0x00, 0xd8],
            &[0x9a],
            &[0xcb],
            &[0xcf],
            &[0x48, 0xcf],
            &[0xc3],
            &[0xfa],
            &[0xfb],
            &[0x8e, 0xd8],
            &[0x8e, 0x1e],
            &[0x0f, 0xa1],
            &[0x0f, 0xa9],
            &[0x8c, 0xd8],
            &[0x9c],
            &[0xf3, 0x0f, 0xae, 0xc0],
            &[0x0f, 0xae, 0x06],
            &[0x0f, 0xae, 0x0e],
            &[0x0f, 0xae, 0x16],
            &[0x0f, 0xae, 0x1e],
            &[0xff, 0xe0],
            &[0xff, 0xd1],
            &[0xff, 0x2e],
            &[0xff, 0x1e],
        ]);
        self.put(bytes);
    }

    /// A loop, seldom one that takes long enough for an interrupt or two.
    fn counted(&mut self, numbers: &mut Numbers) {
        let bits = if numbers.once_in(12) { 17 } else { 6 };
        self.set(1, 1 + (numbers.next() as u32 & ((1 << bits) - 1)));
        let body: &[u8] = numbers.of_these::<&[u8]>(&[
            &[0x48, 0x01, 0xd0],
            &[0x48, 0x8b, 0x16, 0x48, 0x01, 0xd0],
            &[0x48, 0xff, 0x07],
            &[0x66, 0x0f, 0xfe, 0xc1],
            &[0x49, 0xff, 0xc0, 0x4d, 0x01, 0xc1],
        ]);
        self.put(body);
        self.put(&[0xff, 0xc9, 0x75, (-(body.len() as i8) - 4) as u8]);
        self.define_flags(numbers);
    }

    /// A leaf of ENCLU.
    fn leaf(&mut self, numbers: &mut Numbers) {
        let leaf = numbers.of_these(&[0, 1, 5, 5, 5, 6, 7, 9, 4, 2, 3, 8, 99]);
        let odd = if numbers.once_in(8) { 8 } else { 0 };
        match leaf {
            // EREPORT and EGETKEY: what they give is the machine's own, and stays where nothing reads it.
            0 => {
                self.address(3, CONSTANTS, odd);
                self.address(1, DATA, 0);
                self.address(2, SECRETS, 0);
            }
            1 => {
                self.address(3, SECRETS, 0x400 + odd);
                self.address(1, SECRETS, 0);
            }
            // EACCEPT, EMODPE and EACCEPTCOPY of dynamic and other pages, by a SECINFO on the stack.
            5..=7 => {
                let flags = numbers
                    .of_these(&[0x20b, 0x20b, 0x203, 0x213, 0x221, 0x223, 0x410, 0x110, 0x207]);
                self.address(3, SECRETS, 0xe00 + odd);
                self.put(&[0xc7, 0x03]);
                self.put(&u32::to_le_bytes(flags));
                let page = numbers.of_these(&[DYNAMIC, DYNAMIC + 1, DYNAMIC + 2, SPARE, DATA + 1]);
                self.address(1, page, 0);
                if leaf == 7 {
                    self.address(2, CONSTANTS, 0);
                }
            }
            4 => self.exit(),
            _ => self.address(3, DATA, 0),
        }
        self.set(0, leaf);
        self.put(&[0x0f, 0x01, 0xd7]);
    }

    /// Gives registers with addresses what they had at first, or else something.
    fn bases(&mut self, numbers: &mut Numbers) {
        self.address(6, DATA, numbers.below(PAGE));
        let page = numbers.of_these(&[DATA, CONSTANTS, SPARE, DYNAMIC, DYNAMIC + 1]);
        self.address(5, page, numbers.below(512) * 8);
        self.address(4, DATA + 1, PAGE / 2);
        self.put(&[0x49, 0xbe]);
        self.put(&(USER_DATA + numbers.below(512) * 8).to_le_bytes());
    }

    /// Stores into code that comes later, or has been.
    fn change_code(&mut self, numbers: &mut Numbers) {
        // INT3, UD2, or a jump over the slot: none goes on in the middle of what was there.
        let value = numbers.of_these(&[0xcccc_cccc_u32, 0x0b0f_0b0f, 0x9090_1eeb]);
        let to = 1 + numbers.below(HANDLER as u64 - 1) as usize;
        self.put(&[0xc7, 0x05]);
        // From the end of the immediate operand.
        let from = self.slot * SLOT + self.length + 8;
        self.put(&((to * SLOT) as i32 - from as i32).to_le_bytes());
        self.put(&value.to_le_bytes());
    }
}

fn value(numbers: &mut Numbers) -> u8 {
    numbers.of_these(&VALUES)
}

/// Mostly in the page that a base is in the middle of, sometimes beyond.
fn displacement(numbers: &mut Numbers) -> i32 {
    let within = numbers.below(4096) as i32 - 2048;
    match numbers.below(16) {
        0 => within * 4,
        1 | 2 => within,
        _ => within & !63,
    }
}
