//! A processor's registers as GDB knows them: their order, names and types, as QEMU has them for x86-64.

use std::fmt::Write as _;
use std::sync::LazyLock;

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;
use cloister_x86::segment::seg;
use gdbstub::arch::{Arch, Registers};

use crate::accel::ArchState;

/// One register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Register {
    General(usize),
    Rip,
    Flags,
    /// The selector of a segment register.
    Selector(usize),
    St(usize),
    /// One of the x87 control registers, as FSTENV stores them.
    Environment(usize),
    Xmm(usize),
    Mxcsr,
    /// The base of a segment register.
    Base(usize),
    KernelGsBase,
    Control(usize),
    Efer,
}

/// GDB's order of the general-purpose registers.
const GENERAL: [Gpr; 16] = [
    Gpr::Rax,
    Gpr::Rbx,
    Gpr::Rcx,
    Gpr::Rdx,
    Gpr::Rsi,
    Gpr::Rdi,
    Gpr::Rbp,
    Gpr::Rsp,
    Gpr::R8,
    Gpr::R9,
    Gpr::R10,
    Gpr::R11,
    Gpr::R12,
    Gpr::R13,
    Gpr::R14,
    Gpr::R15,
];
const GENERAL_NAMES: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const SEGMENTS: [(usize, &str); 6] = [
    (seg::CS, "cs"),
    (seg::SS, "ss"),
    (seg::DS, "ds"),
    (seg::ES, "es"),
    (seg::FS, "fs"),
    (seg::GS, "gs"),
];
const ENVIRONMENT: [&str; 8] =
    ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"];

/// The features of GDB's target descriptions, and ours, with their registers in the order of the packet.
fn features() -> [(&'static str, Vec<Register>); 4] {
    let core = (0..16).map(Register::General).chain([Register::Rip, Register::Flags]);
    let core = core.chain((0..6).map(Register::Selector)).chain((0..8).map(Register::St));
    let core = core.chain((0..8).map(Register::Environment));
    let sse = (0..16).map(Register::Xmm).chain([Register::Mxcsr]);
    let control = [0, 2, 3, 4].map(Register::Control);
    let system = [Register::KernelGsBase].into_iter().chain(control).chain([Register::Efer]);
    [
        ("org.gnu.gdb.i386.core", core.collect()),
        ("org.gnu.gdb.i386.sse", sse.collect()),
        ("org.gnu.gdb.i386.segments", vec![Register::Base(seg::FS), Register::Base(seg::GS)]),
        ("org.cloister.i386.system", system.collect()),
    ]
}

fn all() -> impl Iterator<Item = Register> {
    features().into_iter().flat_map(|(_, registers)| registers)
}

impl Register {
    fn name(self) -> String {
        match self {
            Self::General(n) => GENERAL_NAMES[n].to_owned(),
            Self::Rip => "rip".to_owned(),
            Self::Flags => "eflags".to_owned(),
            Self::Selector(n) => SEGMENTS[n].1.to_owned(),
            Self::St(n) => format!("st{n}"),
            Self::Environment(n) => ENVIRONMENT[n].to_owned(),
            Self::Xmm(n) => format!("xmm{n}"),
            Self::Mxcsr => "mxcsr".to_owned(),
            Self::Base(seg::FS) => "fs_base".to_owned(),
            Self::Base(_) => "gs_base".to_owned(),
            Self::KernelGsBase => "k_gs_base".to_owned(),
            Self::Control(n) => format!("cr{n}"),
            Self::Efer => "efer".to_owned(),
        }
    }

    /// Its size in bytes, and its type in GDB's words.
    const fn form(self) -> (usize, &'static str) {
        match self {
            Self::Rip => (8, "code_ptr"),
            Self::Flags => (4, "eflags"),
            Self::Selector(_) => (4, "int32"),
            Self::St(_) => (10, "i387_ext"),
            Self::Environment(_) | Self::Mxcsr => (4, "int"),
            Self::Xmm(_) => (16, "vec128"),
            Self::General(6 | 7) | Self::Base(_) | Self::KernelGsBase => (8, "data_ptr"),
            Self::General(_) | Self::Control(_) | Self::Efer => (8, "int64"),
        }
    }

    fn get(self, state: &ArchState) -> u128 {
        match self {
            Self::General(n) => state.gpr[GENERAL[n]].into(),
            Self::Rip => state.rip.into(),
            Self::Flags => state.rflags().into(),
            Self::Selector(n) => state.segs[SEGMENTS[n].0].selector.into(),
            Self::St(n) => {
                let register = state.fpu.regs[(usize::from(state.fpu.top) + n) & 7];
                u128::from(register.sign_exp) << 64 | u128::from(register.mantissa)
            }
            Self::Environment(n) => environment(state)[n].into(),
            Self::Xmm(n) => {
                let [low, high, ..] = state.vector.ymm[n];
                u128::from(high) << 64 | u128::from(low)
            }
            Self::Mxcsr => state.vector.mxcsr.into(),
            Self::Base(segment) => state.segs[segment].base.into(),
            Self::KernelGsBase => state.msrs.kernel_gs_base.into(),
            Self::Control(0) => state.cr0.bits().into(),
            Self::Control(2) => state.cr2.into(),
            Self::Control(3) => state.cr3.into(),
            Self::Control(_) => state.cr4.bits().into(),
            Self::Efer => state.efer.bits().into(),
        }
    }

    /// Changes it; `false` where what depends on it would have to change with it, as segments and paging
    /// do.
    #[cfg_attr(
        not(test),
        expect(clippy::cast_possible_truncation, reason = "a value has its register's size")
    )]
    fn set(self, state: &mut ArchState, value: u128) -> bool {
        let low = value as u64;
        match self {
            Self::General(n) => state.gpr[GENERAL[n]] = low,
            Self::Rip => state.rip = low,
            Self::Flags => {
                let mode = Rflags::VM.bits();
                if (low ^ state.rflags()) & mode != 0 {
                    return false;
                }
                state.set_rflags(low);
            }
            Self::St(n) => {
                let register = &mut state.fpu.regs[(usize::from(state.fpu.top) + n) & 7];
                (register.sign_exp, register.mantissa) = ((value >> 64) as u16, low);
            }
            Self::Xmm(n) => {
                let register = &mut state.vector.ymm[n];
                (register[0], register[1]) = (low, (value >> 64) as u64);
            }
            // Its other bits do not exist (SDM Vol. 1, 10.2.3).
            Self::Mxcsr if low >> 16 == 0 => state.vector.mxcsr = low as u32,
            Self::Base(segment) => state.segs[segment].base = low,
            Self::KernelGsBase => state.msrs.kernel_gs_base = low,
            Self::Control(2) => state.cr2 = low,
            Self::Selector(_)
            | Self::Environment(_)
            | Self::Mxcsr
            | Self::Control(_)
            | Self::Efer => return false,
        }
        true
    }
}

/// What FSTENV stores (SDM Vol. 1, figure 8-9).
#[cfg_attr(
    not(test),
    expect(clippy::cast_possible_truncation, reason = "offsets are stored in 32 bits")
)]
fn environment(state: &ArchState) -> [u32; 8] {
    let fpu = &state.fpu;
    let status = fpu.status | u16::from(fpu.top) << 11;
    // 3 is empty. Of the others GDB shows what the registers hold.
    let tag = |n: usize| if fpu.tags >> n & 1 == 0 { 3_u32 << (2 * n) } else { 0 };
    let tags = (0..8).map(tag).sum();
    let high = |pointer: u64| (pointer >> 32) as u32;
    [
        fpu.control.into(),
        status.into(),
        tags,
        high(fpu.fip),
        fpu.fip as u32,
        high(fpu.fdp),
        fpu.fdp as u32,
        fpu.fop.into(),
    ]
}

/// All registers of a processor, in the order and form of the packet.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Packet {
    rip: u64,
    bytes: Vec<u8>,
}

impl Packet {
    pub(super) fn of(state: &ArchState) -> Self {
        let bytes = all().flat_map(|register| {
            let (size, _) = register.form();
            register.get(state).to_le_bytes().into_iter().take(size)
        });
        Self { rip: state.rip, bytes: bytes.collect() }
    }

    /// Changes what differs in a processor's state; `None` where that cannot be.
    pub(super) fn apply(&self, state: &ArchState) -> Option<ArchState> {
        let mut changed = state.clone();
        let mut rest = &self.bytes[..];
        for register in all() {
            let (bytes, others) = rest.split_at_checked(register.form().0)?;
            rest = others;
            let mut value = [0; 16];
            value[..bytes.len()].copy_from_slice(bytes);
            let value = u128::from_le_bytes(value);
            if value != register.get(state) && !register.set(&mut changed, value) {
                return None;
            }
        }
        Some(changed)
    }
}

impl Registers for Packet {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.bytes.iter().for_each(|&byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes = bytes.to_vec();
        Ok(())
    }
}

/// x86-64, whatever mode a processor is in.
#[derive(Debug)]
pub(super) enum X86_64 {}

impl Arch for X86_64 {
    type Usize = u64;
    type Registers = Packet;
    type BreakpointKind = usize;
    type RegId = ();

    fn target_description_xml() -> Option<&'static str> {
        static DESCRIPTION: LazyLock<String> = LazyLock::new(description);
        Some(&DESCRIPTION)
    }
}

/// Types of GDB's own descriptions that this one uses.
const FLAGS: &str = r#"<flags id="eflags" size="4">
<field name="CF" start="0" end="0"/><field name="" start="1" end="1"/>
<field name="PF" start="2" end="2"/><field name="AF" start="4" end="4"/>
<field name="ZF" start="6" end="6"/><field name="SF" start="7" end="7"/>
<field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/>
<field name="DF" start="10" end="10"/><field name="OF" start="11" end="11"/>
<field name="NT" start="14" end="14"/><field name="RF" start="16" end="16"/>
<field name="VM" start="17" end="17"/><field name="AC" start="18" end="18"/>
<field name="VIF" start="19" end="19"/><field name="VIP" start="20" end="20"/>
<field name="ID" start="21" end="21"/></flags>
"#;
const VECTORS: &str = r#"<vector id="v4f" type="ieee_single" count="4"/>
<vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/>
<vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/>
<vector id="v2i64" type="int64" count="2"/>
<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>
<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>
<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>
<field name="uint128" type="uint128"/></union>
"#;

fn description() -> String {
    let mut text = "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n\
                    <target version=\"1.0\"><architecture>i386:x86-64</architecture>\n"
        .to_owned();
    for (feature, registers) in features() {
        let _ = writeln!(text, "<feature name=\"{feature}\">");
        for (register, types) in [(Register::Flags, FLAGS), (Register::Mxcsr, VECTORS)] {
            if registers.contains(&register) {
                text += types;
            }
        }
        for register in registers {
            let (name, (size, kind)) = (register.name(), register.form());
            let bits = size * 8;
            let _ = writeln!(text, "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"/>");
        }
        text += "</feature>\n";
    }
    text + "</target>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_are_written_back_unchanged_change_nothing() {
        let mut state = ArchState::at_reset(true);
        (state.rip, state.gpr[Gpr::Rsi], state.vector.ymm[3][1]) = (0x1234, 5, 6);

        let packet = Packet::of(&state);

        assert_eq!(packet.apply(&state), Some(state.clone()));
        // RSI is the fifth, RIP the seventeenth.
        assert_eq!(packet.bytes[4 * 8..5 * 8], 5_u64.to_le_bytes());
        assert_eq!(packet.bytes[16 * 8..17 * 8], 0x1234_u64.to_le_bytes());
    }

    #[test]
    fn what_can_be_written_alone_is_written_and_the_rest_refused() {
        let state = ArchState::at_reset(true);
        for register in all() {
            let mut changed = state.clone();
            let value = register.get(&state) ^ 1;
            let done = register.set(&mut changed, value);
            let name = register.name();
            let refused = ["cs", "ss", "ds", "es", "fs", "gs", "cr0", "cr3", "cr4", "efer"];
            let refused = refused.contains(&name.as_str()) || ENVIRONMENT.contains(&name.as_str());
            assert_eq!(done, !refused, "{name}");
            let expected = if done { value } else { register.get(&state) };
            assert_eq!(register.get(&changed), expected, "{name}");
        }
    }

    #[test]
    fn the_description_names_every_register_once() {
        let text = description();
        for register in all() {
            let name = format!("<reg name=\"{}\"", register.name());
            assert_eq!(text.matches(&name).count(), 1, "{name}");
        }
    }
}
