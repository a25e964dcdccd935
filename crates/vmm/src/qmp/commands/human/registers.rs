//! A processor's registers as QEMU's `info registers` prints them (`x86_cpu_dump_state`), so that what
//! reads them there reads them here.

use std::fmt::{self, Display, Formatter};

use cloister_cpu::{Activity, ArchState, Shadow};
use cloister_x86::regs::{Cr0, Efer, Xfeatures};
use cloister_x86::segment::seg;
use cloister_x86::{Rights, Segment};

/// The text: lines, each with its end.
pub(super) struct Registers<'a>(pub(super) &'a ArchState);

/// Names of registers in 64-bit mode and otherwise, in encoding order.
const GPRS: [&str; 16] = [
    "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8 ", "R9 ", "R10", "R11", "R12",
    "R13", "R14", "R15",
];
/// In which order they are printed, four in a line.
const SHOWN: [usize; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
/// Segment registers as they are printed.
const SEGMENTS: [(&str, usize); 8] = [
    ("ES", seg::ES),
    ("CS", seg::CS),
    ("SS", seg::SS),
    ("DS", seg::DS),
    ("FS", seg::FS),
    ("GS", seg::GS),
    ("LDT", seg::LDTR),
    ("TR", seg::TR),
];
/// Flags as they are printed: bit in RFLAGS, and letter.
const FLAGS: [(u32, char); 7] =
    [(10, 'D'), (11, 'O'), (7, 'S'), (6, 'Z'), (4, 'A'), (2, 'P'), (0, 'C')];
/// Types of system segments outside IA-32e mode and in it (SDM Vol. 3A, table 3-2).
const SYSTEM_TYPES: [[&str; 16]; 2] = [
    [
        "Reserved",
        "TSS16-avl",
        "LDT",
        "TSS16-busy",
        "CallGate16",
        "TaskGate",
        "IntGate16",
        "TrapGate16",
        "Reserved",
        "TSS32-avl",
        "Reserved",
        "TSS32-busy",
        "CallGate32",
        "Reserved",
        "IntGate32",
        "TrapGate32",
    ],
    [
        "<hiword>",
        "Reserved",
        "LDT",
        "Reserved",
        "Reserved",
        "Reserved",
        "Reserved",
        "Reserved",
        "Reserved",
        "TSS64-avl",
        "Reserved",
        "TSS64-busy",
        "CallGate64",
        "Reserved",
        "IntGate64",
        "TrapGate64",
    ],
];

impl Registers<'_> {
    /// Whether IA-32e mode is active.
    fn long(&self) -> bool {
        self.0.efer.contains(Efer::LMA)
    }

    /// Whether the processor executes 64-bit code: then everything is printed in full.
    fn wide(&self) -> bool {
        self.long() && self.0.segs[seg::CS].rights.long()
    }

    /// An address or register, of 64 bits or of its low 32.
    const fn number(value: u64, wide: bool) -> Number {
        Number { value, wide }
    }

    fn general(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(state) = self;
        let (wide, registers) = (self.wide(), state.gpr.registers());
        let shown = if wide { &SHOWN[..] } else { &SHOWN[..8] };
        for line in shown.chunks(4) {
            for (at, &register) in line.iter().enumerate() {
                let name = GPRS[register];
                let name = if wide { name.to_owned() } else { name.replacen('R', "E", 1) };
                let end = if at == line.len() - 1 { '\n' } else { ' ' };
                write!(f, "{name}={}{end}", Self::number(registers[register], wide))?;
            }
        }
        let (ip, flags) = if wide { ("RIP", "RFL") } else { ("EIP", "EFL") };
        let rflags = state.rflags();
        write!(f, "{ip}={} {flags}={rflags:08x} [", Self::number(state.rip, wide))?;
        for (bit, letter) in FLAGS {
            write!(f, "{}", if rflags >> bit & 1 != 0 { letter } else { '-' })?;
        }
        let shadow = u8::from(state.shadow != Shadow::None);
        let halted = u8::from(state.activity != Activity::Active);
        writeln!(f, "] CPL={} II={shadow} A20=1 SMM=0 HLT={halted}", state.cpl)
    }

    fn segment(&self, f: &mut Formatter<'_>, name: &str, segment: &Segment) -> fmt::Result {
        let &Segment { selector, base, limit, rights } = segment;
        let present = rights.present() && !rights.unusable();
        let (wide, long) = (self.wide(), self.long());
        // The second doubleword of a descriptor, without base and limit. What is unusable is not present.
        let visible = if present { rights.0 } else { rights.0 & !Rights::P };
        let descriptor = visible << 8 & 0x00f0_ff00;
        let base = Self::number(base, wide);
        write!(f, "{name:<3}={selector:04x} {base} {limit:08x} {descriptor:08x}")?;
        if !present || !self.0.cr0.contains(Cr0::PE) {
            return writeln!(f);
        }
        write!(f, " DPL={} ", rights.dpl())?;
        let flag = |set: bool, letter: char| if set { letter } else { '-' };
        if rights.is_code_or_data() {
            let (kind, first) = match (rights.is_code(), rights.long(), rights.big()) {
                (true, true, _) => ("CS64", 'C'),
                (true, false, true) => ("CS32", 'C'),
                (true, false, false) => ("CS16", 'C'),
                (false, _, big) => (if big || long { "DS  " } else { "DS16" }, 'E'),
            };
            let second = if rights.is_code() { 'R' } else { 'W' };
            let (first, second) = (flag(rights.bit_ec(), first), flag(rights.bit_rw(), second));
            writeln!(f, "{kind} [{first}{second}{}]", flag(rights.0 & 1 != 0, 'A'))
        } else {
            writeln!(f, "{}", SYSTEM_TYPES[usize::from(long)][rights.kind() as usize])
        }
    }

    fn system(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(state) = self;
        let long = self.long();
        for (name, table) in [("GDT", &state.gdtr), ("IDT", &state.idtr)] {
            let base = Self::number(table.base, long);
            writeln!(f, "{name}=     {base} {:08x}", table.limit)?;
        }
        let [cr2, cr3] = [state.cr2, state.cr3].map(|value| Self::number(value, long));
        let [cr0, cr4] = [state.cr0.bits(), state.cr4.bits()].map(|bits| Self::number(bits, false));
        writeln!(f, "CR0={cr0} CR2={cr2} CR3={cr3} CR4={cr4}")?;
        for (number, value) in state.dr.iter().enumerate() {
            write!(f, "DR{number}={value:016x} ")?;
        }
        writeln!(f, "\nDR6={:016x} DR7={:016x}", state.dr6, state.dr7)?;
        writeln!(f, "EFER={:016x}", state.efer.bits())
    }

    fn floating_point(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (fpu, vector) = (&self.0.fpu, &self.0.vector);
        let top = u16::from(fpu.top);
        let status = fpu.status & !0x3800 | top << 11;
        writeln!(
            f,
            "FCW={:04x} FSW={status:04x} [ST={top}] FTW={:02x} MXCSR={:08x}",
            fpu.control, fpu.tags, vector.mxcsr
        )?;
        for (number, value) in fpu.regs.iter().enumerate() {
            let end = if number % 2 == 0 { ' ' } else { '\n' };
            write!(f, "FPR{number}={:016x} {:04x}{end}", value.mantissa, value.sign_exp)?;
        }
        let avx = self.0.xcr0.contains(Xfeatures::AVX);
        let count = if self.wide() { 16 } else { 8 };
        for (number, [a, b, c, d]) in vector.ymm.iter().take(count).enumerate() {
            if avx {
                writeln!(f, "YMM{number:02}={d:016x} {c:016x} {b:016x} {a:016x}")?;
            } else {
                let end = if number % 2 == 0 { ' ' } else { '\n' };
                write!(f, "XMM{number:02}={b:016x} {a:016x}{end}")?;
            }
        }
        Ok(())
    }
}

impl Display for Registers<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.general(f)?;
        for (name, index) in SEGMENTS {
            self.segment(f, name, &self.0.segs[index])?;
        }
        self.system(f)?;
        self.floating_point(f)
    }
}

/// A number of 16 hexadecimal digits, or of the 8 low ones.
struct Number {
    value: u64,
    wide: bool,
}

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.wide {
            write!(f, "{:016x}", self.value)
        } else {
            write!(f, "{:08x}", self.value & u64::from(u32::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use cloister_x86::regs::Cr4;
    use cloister_x86::{Gpr, TableRegister};

    use super::*;

    /// What QEMU 7.2 prints of a processor after reset (`-S`, `info registers`), but for EDX, which has
    /// the processor's signature.
    const AT_RESET: &str = "\
EAX=00000000 EBX=00000000 ECX=00000000 EDX=00000000
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 0000ffff 00009300
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000 \n\
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000000
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
FPR0=0000000000000000 0000 FPR1=0000000000000000 0000
FPR2=0000000000000000 0000 FPR3=0000000000000000 0000
FPR4=0000000000000000 0000 FPR5=0000000000000000 0000
FPR6=0000000000000000 0000 FPR7=0000000000000000 0000
XMM00=0000000000000000 0000000000000000 XMM01=0000000000000000 0000000000000000
XMM02=0000000000000000 0000000000000000 XMM03=0000000000000000 0000000000000000
XMM04=0000000000000000 0000000000000000 XMM05=0000000000000000 0000000000000000
XMM06=0000000000000000 0000000000000000 XMM07=0000000000000000 0000000000000000
";

    #[test]
    fn a_processor_after_reset_prints_as_qemu_prints_it() {
        let mut state = ArchState::at_reset(false);
        // As firmware leaves them, and QEMU from the beginning.
        (state.fpu.control, state.fpu.tags) = (0x37f, 0);
        state.gpr[Gpr::Rdx] = 0;

        assert_eq!(Registers(&state).to_string(), AT_RESET);
    }

    /// The registers of a processor in 64-bit code, in the form of QEMU under KVM.
    fn in_long_mode() -> ArchState {
        let mut state = ArchState::at_reset(true);
        state.gpr.set_registers(&std::array::from_fn(|n| 0x1000_0000_0000_0000 + n as u64));
        state.rip = 0xffff_ffff_8100_0000;
        state.set_rflags(0x246);
        (state.cpl, state.shadow) = (3, Shadow::Sti);
        let flat = |selector, rights| Segment::flat(selector, Rights(rights));
        state.segs[seg::CS] = flat(0x33, 0xa0fb);
        state.segs[seg::SS] = flat(0x2b, 0xc0f3);
        let unusable = Rights(Rights::UNUSABLE | Rights::P);
        state.segs[seg::FS] =
            Segment { base: 0x7fff_0000_1234, limit: 0, selector: 0, rights: unusable };
        let busy = Rights(0x8b);
        state.segs[seg::TR] = Segment { base: 0xfe00, limit: 0x206f, selector: 0x40, rights: busy };
        state.gdtr = TableRegister { base: 0xffff_fe00_0000_1000, limit: 0x7f };
        (state.cr2, state.cr3) = (0xffff_8880_0000_0000, 0x1_0000_1000);
        state.cr0 = Cr0::PE | Cr0::PG;
        state.cr4 = Cr4::PAE;
        state.efer = Efer::LMA | Efer::LME;
        state.xcr0 = Xfeatures::from_bits_truncate(7);
        (state.fpu.top, state.fpu.tags) = (5, 0x20);
        (state.fpu.regs[5].sign_exp, state.fpu.regs[5].mantissa) = (0x3fff, 1 << 63);
        state.vector.ymm[15] = [1, 2, 3, 4];
        state
    }

    #[test]
    fn sixty_four_bit_code_prints_everything_in_full() {
        let text = Registers(&in_long_mode()).to_string();

        for line in [
            "RAX=1000000000000000 RBX=1000000000000003 RCX=1000000000000001 RDX=1000000000000002",
            "RSI=1000000000000006 RDI=1000000000000007 RBP=1000000000000005 RSP=1000000000000004",
            "R8 =1000000000000008 R9 =1000000000000009 R10=100000000000000a R11=100000000000000b",
            "RIP=ffffffff81000000 RFL=00000246 [---Z-P-] CPL=3 II=1 A20=1 SMM=0 HLT=0",
            "CS =0033 0000000000000000 ffffffff 00a0fb00 DPL=3 CS64 [-RA]",
            "SS =002b 0000000000000000 ffffffff 00c0f300 DPL=3 DS   [-WA]",
            "FS =0000 00007fff00001234 00000000 00000000",
            "TR =0040 000000000000fe00 0000206f 00008b00 DPL=0 TSS64-busy",
            "GDT=     fffffe0000001000 0000007f",
            "CR0=80000001 CR2=ffff888000000000 CR3=0000000100001000 CR4=00000020",
            "EFER=0000000000000500",
            "FCW=0040 FSW=2800 [ST=5] FTW=20 MXCSR=00001f80",
            "FPR4=0000000000000000 0000 FPR5=8000000000000000 3fff",
            "YMM15=0000000000000004 0000000000000003 0000000000000002 0000000000000001",
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line}\n{text}");
        }
    }

    #[test]
    fn code_of_another_size_prints_as_many_digits_as_it_has() {
        let mut state = in_long_mode();
        state.segs[seg::CS].rights = Rights(0xc09b);

        let compatibility = Registers(&state).to_string();
        state.efer = Efer::empty();
        let protected = Registers(&state).to_string();

        for text in [&compatibility, &protected] {
            assert!(text.starts_with("EAX=00000000 EBX=00000003 ECX=00000001 EDX=00000002\n"));
            assert!(text.contains("\nCS =0033 00000000 ffffffff 00c09b00 DPL=0 CS32 [-RA]\n"));
            assert!(!text.contains("YMM08"));
        }
        assert!(compatibility.contains("TSS64-busy") && compatibility.contains("CR2=ffff8880"));
        assert!(protected.contains("TSS32-busy") && protected.contains("CR2=00000000 "));
    }
}
