//! CPUID claims what the interpreter executes: no instruction set extension is announced that
//! would be #UD, and none that is there is hidden.

use cloister_cpu::Features;
use cloister_cpu::testing::executes;
use cloister_vmm::cpuid::{CpuModel, CpuidState, CpuidTable};
use cloister_x86::cpuid::CpuidResult;
use cloister_x86::regs::Cr4;

/// A register of a CPUID leaf.
type Field = fn(&CpuidResult) -> u32;

const EAX: Field = |leaf| leaf.eax;
const EBX: Field = |leaf| leaf.ebx;
const ECX: Field = |leaf| leaf.ecx;
const EDX: Field = |leaf| leaf.edx;

/// Feature, CPUID leaf and subleaf, register and bit, and an instruction that exists only with it
/// (SDM Vol. 2, "CPUID Feature Flag" of the instruction's page).
type Feature = (&'static str, u32, u32, Field, u32, &'static [u8]);

const FEATURES: &[Feature] = &[
    ("x87", 1, 0, EDX, 0, &[0xd9, 0xe8]),
    ("RDTSC", 1, 0, EDX, 4, &[0x0f, 0x31]),
    ("RDMSR", 1, 0, EDX, 5, &[0x0f, 0x32]),
    ("CMPXCHG8B", 1, 0, EDX, 8, &[0x0f, 0xc7, 0x0f]),
    ("SYSENTER", 1, 0, EDX, 11, &[0x0f, 0x34]),
    ("CMOVcc", 1, 0, EDX, 15, &[0x0f, 0x44, 0xc1]),
    ("CLFLUSH", 1, 0, EDX, 19, &[0x0f, 0xae, 0x3f]),
    ("MMX", 1, 0, EDX, 23, &[0x0f, 0xfc, 0xc1]),
    ("FXSAVE", 1, 0, EDX, 24, &[0x0f, 0xae, 0x07]),
    ("SSE", 1, 0, EDX, 25, &[0x0f, 0x58, 0xc1]),
    ("SSE2", 1, 0, EDX, 26, &[0x66, 0x0f, 0xfe, 0xc1]),
    ("SSE3", 1, 0, ECX, 0, &[0xf2, 0x0f, 0x7c, 0xc1]),
    ("PCLMULQDQ", 1, 0, ECX, 1, &[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0x00]),
    ("MONITOR", 1, 0, ECX, 3, &[0x0f, 0x01, 0xc8]),
    ("SSSE3", 1, 0, ECX, 9, &[0x66, 0x0f, 0x38, 0x00, 0xc1]),
    ("FMA", 1, 0, ECX, 12, &[0xc4, 0xe2, 0xf1, 0x98, 0xc2]),
    ("CMPXCHG16B", 1, 0, ECX, 13, &[0x48, 0x0f, 0xc7, 0x0f]),
    ("SSE4.1", 1, 0, ECX, 19, &[0x66, 0x0f, 0x38, 0x17, 0xc1]),
    ("SSE4.2", 1, 0, ECX, 20, &[0x66, 0x0f, 0x38, 0x37, 0xc1]),
    ("MOVBE", 1, 0, ECX, 22, &[0x0f, 0x38, 0xf0, 0x07]),
    ("POPCNT", 1, 0, ECX, 23, &[0xf3, 0x0f, 0xb8, 0xc1]),
    ("AES", 1, 0, ECX, 25, &[0x66, 0x0f, 0x38, 0xdc, 0xc1]),
    ("XSAVE", 1, 0, ECX, 26, &[0x0f, 0xae, 0x27]),
    ("AVX", 1, 0, ECX, 28, &[0xc5, 0xf0, 0x58, 0xc2]),
    ("F16C", 1, 0, ECX, 29, &[0xc4, 0xe2, 0x79, 0x13, 0xc1]),
    ("RDRAND", 1, 0, ECX, 30, &[0x0f, 0xc7, 0xf0]),
    ("RDFSBASE", 7, 0, EBX, 0, &[0xf3, 0x0f, 0xae, 0xc0]),
    ("BMI1", 7, 0, EBX, 3, &[0xc4, 0xe2, 0x70, 0xf2, 0xc2]),
    ("AVX2", 7, 0, EBX, 5, &[0xc5, 0xf5, 0xfe, 0xc2]),
    ("BMI2", 7, 0, EBX, 8, &[0xc4, 0xe2, 0x73, 0xf5, 0xc2]),
    ("INVPCID", 7, 0, EBX, 10, &[0x66, 0x0f, 0x38, 0x82, 0x07]),
    ("RDSEED", 7, 0, EBX, 18, &[0x0f, 0xc7, 0xf8]),
    ("ADX", 7, 0, EBX, 19, &[0x66, 0x0f, 0x38, 0xf6, 0xc1]),
    ("CLAC", 7, 0, EBX, 20, &[0x0f, 0x01, 0xca]),
    ("CLFLUSHOPT", 7, 0, EBX, 23, &[0x66, 0x0f, 0xae, 0x3f]),
    ("CLWB", 7, 0, EBX, 24, &[0x66, 0x0f, 0xae, 0x37]),
    ("SHA", 7, 0, EBX, 29, &[0x0f, 0x38, 0xc8, 0xc1]),
    ("RDPKRU", 7, 0, ECX, 3, &[0x0f, 0x01, 0xee]),
    ("GFNI", 7, 0, ECX, 8, &[0x66, 0x0f, 0x38, 0xcf, 0xc1]),
    ("RDPID", 7, 0, ECX, 22, &[0xf3, 0x0f, 0xc7, 0xf8]),
    ("SERIALIZE", 7, 0, EDX, 14, &[0x0f, 0x01, 0xe8]),
    ("XSAVEOPT", 0xd, 1, EAX, 0, &[0x0f, 0xae, 0x37]),
    ("XSAVEC", 0xd, 1, EAX, 1, &[0x0f, 0xc7, 0x27]),
    ("XSAVES", 0xd, 1, EAX, 3, &[0x0f, 0xc7, 0x2f]),
    ("LAHF", 0x8000_0001, 0, ECX, 0, &[0x9f]),
    ("LZCNT", 0x8000_0001, 0, ECX, 5, &[0xf3, 0x0f, 0xbd, 0xc1]),
    ("PREFETCHW", 0x8000_0001, 0, ECX, 8, &[0x0f, 0x0d, 0x0f]),
    ("SYSCALL", 0x8000_0001, 0, EDX, 11, &[0x0f, 0x05]),
    ("RDTSCP", 0x8000_0001, 0, EDX, 27, &[0x0f, 0x01, 0xf9]),
];

#[test]
fn announced_features_are_those_that_execute() {
    let features = Features::default();
    let xfeatures = features.xcr0;
    let table = CpuidTable::new(CpuModel::software(xfeatures), 1);
    let state = CpuidState { cr4: Cr4::OSXSAVE, xcr0: xfeatures, ..CpuidState::at_reset(0) };

    let wrong: Vec<String> = FEATURES
        .iter()
        .filter_map(|&(name, leaf, subleaf, field, bit, bytes)| {
            let announced = field(&table.query(leaf, subleaf, &state)) >> bit & 1 != 0;
            (announced != executes(bytes, &features)).then(|| {
                format!("{name} is {}", if announced { "announced only" } else { "hidden" })
            })
        })
        .collect();

    assert!(wrong.is_empty(), "{wrong:#?}");
}
