//! Memory operands: their address, and the look into the TLB.

use cloister_cpu::native::layout;
use cloister_x86::segment::seg;
use iced_x86::{Instruction, Register};

use crate::asm::alu::{ADD, AND, CMP, OR};
use crate::asm::condition::{EQUAL, NOT_EQUAL};
use crate::asm::shift::SHR;
use crate::asm::{Asm, Jump, Reg, Rm, Size};
use crate::block::Emitter;
use crate::registers::{ADDRESS, TEMP, TEMP2, field, home, host};

/// Access to a memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// A load.
    Read,
    /// A store, or a read-modify-write.
    Write,
}

/// Jumps to where the interpreter does an instruction, since translated code cannot.
#[derive(Debug, Default)]
pub(crate) struct Misses {
    jumps: Vec<Jump>,
    stack: Vec<StackMiss>,
}

/// An access to another page than the last one to the stack, or not aligned: the TLB may know it.
#[derive(Debug)]
struct StackMiss {
    from: Vec<Jump>,
    access: Access,
    size: Size,
    back: u64,
}

impl Misses {
    pub(crate) fn push(&mut self, jump: Jump) {
        self.jumps.push(jump);
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.jumps.extend(more.jumps);
        self.stack.extend(more.stack);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jumps.is_empty() && self.stack.is_empty()
    }
}

/// What a memory operand's address is made of.
pub(crate) struct Address {
    base: Option<Register>,
    index: Option<Register>,
    scale: u8,
    disp: i32,
    size: Size,
    /// FS or GS, whose base is added.
    segment: Option<usize>,
}

impl Address {
    /// Whether it is most likely on the stack.
    fn is_stack(&self) -> bool {
        self.base == Some(Register::RSP) && self.segment.is_none()
    }
}

/// `TEMP` is where the TLB would have the page of the linear address in `ADDRESS`. Overwrites flags.
pub(crate) fn find_entry(asm: &mut Asm, access: Access) {
    let table = match access {
        Access::Read => layout::TLB_READ,
        Access::Write => layout::TLB_WRITE,
    };
    let shift = 12 - layout::ENTRY_SHIFT as u8;
    let mask = (layout::ENTRIES as i32 - 1) << layout::ENTRY_SHIFT;
    asm.mov(4, TEMP, ADDRESS);
    asm.shift_imm(4, SHR, TEMP, shift);
    asm.alu_imm(4, AND, TEMP, mask);
    asm.alu(8, ADD, TEMP, field(table));
}

/// The address of the instruction's memory operand; `None` for one that is not made here.
pub(crate) fn address(instruction: &Instruction) -> Option<Address> {
    let some = |register: Register| (register != Register::None).then_some(register);
    let (base, index) = (some(instruction.memory_base()), some(instruction.memory_index()));
    let narrow = |register: Option<Register>| register.is_some_and(Register::is_gpr32);
    if index.is_some_and(Register::is_vector_register) {
        return None;
    }
    let none = base.is_none() && index.is_none();
    let size = if narrow(base) || narrow(index) || base == Some(Register::EIP) { 4 } else { 8 };
    if none && instruction.memory_displ_size() != 8 {
        // Its address size is that of a prefix.
        return None;
    }
    let disp = i32::try_from(instruction.memory_displacement64() as i64);
    let disp = match disp {
        Ok(disp) => disp,
        // A 32-bit address is extended with zeros.
        Err(_) if size == 4 => instruction.memory_displacement64() as u32 as i32,
        Err(_) => return None,
    };
    let segment = match instruction.memory_segment() {
        Register::FS => Some(seg::FS),
        Register::GS => Some(seg::GS),
        _ => None,
    };
    let scale = instruction.memory_index_scale().trailing_zeros() as u8;
    Some(Address { base, index, scale, disp, size, segment })
}

impl Emitter<'_> {
    /// Makes the effective address in `to`, without the segment's base and without touching flags.
    /// `TEMP` may be overwritten.
    pub(crate) fn effective(&mut self, address: &Address, to: Reg, size: Size) {
        let size = size.min(address.size);
        let rip = matches!(address.base, Some(Register::RIP | Register::EIP));
        if rip {
            self.asm.mov(8, ADDRESS, field(layout::PAGE));
        }
        let mut fetch = |register: Register, into: Reg| {
            let number = register.number() as u8;
            host(number).unwrap_or_else(|| {
                self.asm.mov(8, into, home(number));
                into
            })
        };
        let base = if rip { Some(ADDRESS) } else { address.base.map(|base| fetch(base, ADDRESS)) };
        let index = address.index.map(|index| fetch(index, TEMP));
        match (base, index) {
            (Some(base), Some(index)) => {
                self.asm.lea(size, to, Rm::Index(base, index, address.scale, address.disp));
            }
            (Some(base), None) => self.asm.lea(size, to, Rm::Mem(base, address.disp)),
            (None, Some(index)) => {
                self.asm.lea(size, to, Rm::Scaled(index, address.scale, address.disp));
            }
            (None, None) if size == 8 => self.asm.mov_imm(to, address.disp as i64 as u64),
            (None, None) => self.asm.mov_imm(to, u64::from(address.disp as u32)),
        }
    }

    /// Looks up `size` bytes at the linear address in `ADDRESS`: afterwards that is their host
    /// address; for a store, `TEMP2` has the tracker of the page. The flags are saved before; `TEMP` and
    /// `TEMP2` are overwritten.
    pub(crate) fn probe(&mut self, access: Access, size: Size) -> Misses {
        // An instruction that may be left wants all flags before it.
        self.lose_flags();
        let asm = &mut *self.asm;
        find_entry(asm, access);
        // The tag of the last byte's page: another one's if the access leaves the page.
        if size == 1 {
            asm.mov(8, TEMP2, ADDRESS);
        } else {
            asm.lea(8, TEMP2, Rm::Mem(ADDRESS, i32::from(size) - 1));
        }
        asm.alu_imm(8, AND, TEMP2, -4096);
        asm.alu(8, OR, TEMP2, field(layout::CONTEXT));
        asm.alu(8, CMP, TEMP2, Rm::Mem(TEMP, layout::ENTRY_TAG as i32));
        let mut misses = Misses::default();
        misses.push(asm.jcc(NOT_EQUAL));
        if access == Access::Write {
            asm.mov(8, TEMP2, Rm::Mem(TEMP, layout::ENTRY_TRACK as i32));
        }
        asm.alu(8, ADD, ADDRESS, Rm::Mem(TEMP, layout::ENTRY_ADDEND as i32));
        misses
    }

    /// As [`Emitter::probe`], of an access to the stack, which most likely goes to the page that the last
    /// one went to. `size` may be that of several slots of 8 bytes.
    pub(crate) fn probe_stack(&mut self, access: Access, size: Size) -> Misses {
        // Aligned ones do not leave their page.
        let (unit, slots) = if size.is_power_of_two() && size <= 8 {
            (size, 1)
        } else if size.is_multiple_of(8) {
            (8, size / 8)
        } else {
            return self.probe(access, size);
        };
        self.lose_flags();
        let asm = &mut *self.asm;
        let mut from = Vec::new();
        let last = 8 * (i32::from(slots) - 1);
        for slot in [0, last].into_iter().take(usize::from(slots).min(2)) {
            if slot == 0 {
                asm.mov(8, TEMP, ADDRESS);
            } else {
                asm.lea(8, TEMP, Rm::Mem(ADDRESS, slot));
            }
            asm.alu_imm(8, AND, TEMP, -4096 | i32::from(unit - 1));
            asm.alu(8, CMP, TEMP, field(layout::STACK_TAG));
            from.push(asm.jcc(NOT_EQUAL));
        }
        if access == Access::Write {
            asm.mov(8, TEMP2, field(layout::STACK_TRACK));
        }
        asm.alu(8, ADD, ADDRESS, field(layout::STACK_ADDEND));
        let stack = vec![StackMiss { from, access, size, back: asm.here() }];
        Misses { jumps: Vec::new(), stack }
    }

    /// The misses of an instruction lead here, as far as the TLB does not know the page.
    pub(crate) fn land_misses(&mut self, misses: Misses) {
        let asm = &mut *self.asm;
        let mut jumps = misses.jumps;
        let mut above = None;
        for miss in misses.stack {
            jumps.extend(above.take());
            miss.from.into_iter().for_each(|jump| asm.land(jump));
            asm.mov_imm(TEMP, u64::from(miss.size - 1));
            asm.call(match miss.access {
                Access::Read => self.stubs.read_stack,
                Access::Write => self.stubs.write_stack,
            });
            asm.jcc_to(EQUAL, miss.back);
            above = Some(asm.jmp());
        }
        jumps.extend(above);
        jumps.into_iter().for_each(|jump| asm.land(jump));
    }

    /// Looks up the instruction's memory operand, of which [`address`] has said something.
    pub(crate) fn operand(
        &mut self,
        instruction: &Instruction,
        access: Access,
        size: Size,
    ) -> Misses {
        self.address_of(instruction);
        if address(instruction).is_some_and(|address| address.is_stack()) {
            self.probe_stack(access, size)
        } else {
            self.probe(access, size)
        }
    }

    /// Makes the linear address of the instruction's memory operand, of which [`address`] has said
    /// something, in `ADDRESS`. `TEMP` and, of FS and GS, the host's flags may be overwritten.
    pub(crate) fn address_of(&mut self, instruction: &Instruction) {
        let Some(address) = address(instruction) else { unreachable!("it is not translated") };
        self.effective(&address, ADDRESS, 8);
        if let Some(segment) = address.segment {
            self.lose_flags();
            let base = layout::SEGMENT_BASE + segment * layout::SEGMENT_SIZE;
            self.asm.alu(8, ADD, ADDRESS, field(base));
        }
    }

    /// What comes after a store by the op at `op` of `size` bytes to `ADDRESS`, with the tracker in
    /// `TEMP2`: the page may hold code.
    ///
    /// Only after the store, since another processor may come to decode from the page at any time: it
    /// marks before it reads, so that one of the two sees the other.
    pub(crate) fn after_store(&mut self, op: u64, size: Size) {
        // The block may be left after the instruction, too.
        self.lose_flags();
        self.asm.alu_imm(8, CMP, Rm::Mem(TEMP2, layout::TRACK_LINES as i32), 0);
        let from = self.asm.jcc(NOT_EQUAL);
        self.stored_to_code_page(from, op, size);
    }
}
