//! The table of differences between hosts: that it excuses what is known and nothing beside it,
//! and that `docs/cpu.md` has the same rows.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Register};

use super::case::{CODE, Case, DATA, Fault, Mode, State};
use super::compare::differences;
use super::variance::{Part, Processor, ROWS, Trial, Vendor, excuse};

const INTEL: Processor = Processor {
    vendor: Vendor::Intel,
    la57: false,
    fdp_on_exceptions_only: true,
    deprecates_fpu_cs_ds: true,
};
const AMD: Processor = Processor { vendor: Vendor::Amd, ..INTEL };

/// A case of 64-bit code in which everything is 0.
fn case(bytes: &[u8]) -> (Instruction, Case) {
    let instruction = Decoder::with_ip(64, bytes, CODE, DecoderOptions::NONE).decode();
    let state = State { rflags: 0x202, selectors: [0, 0x33, 0x2b, 0, 0, 0], ..State::empty() };
    (instruction, Case::new(Mode::Bits64, bytes, state))
}

/// The names of the rows that excuse the differences of an outcome, and the parts that none does.
fn judge(
    processor: &Processor,
    (instruction, before): &(Instruction, Case),
    native: &Case,
    soft: &Case,
) -> (Vec<&'static str>, Vec<Part>) {
    let trial = Trial { instruction, before, native, soft };
    let (mut rows, mut left) = (Vec::new(), Vec::new());
    for difference in differences(&trial) {
        match excuse(processor, &trial, difference.part) {
            Some(row) => rows.push(ROWS[row].name),
            None => left.push(difference.part),
        }
    }
    rows.dedup();
    (rows, left)
}

fn fault(before: &Case, vector: u64) -> Case {
    Case { fault: Fault { vector, code: 0, address: 0 }, ..*before }
}

/// XRSTOR64 [RSP], XSAVEC [RBP], FXSAVE [RSP], FNSTENV [RBP].
const IMAGES_BY_THE_STACK: [&[u8]; 4] = [
    &[0x48, 0x0f, 0xae, 0x2c, 0x24],
    &[0x0f, 0xc7, 0x65, 0x00],
    &[0x0f, 0xae, 0x04, 0x24],
    &[0xd9, 0x75, 0x00],
];

#[test]
fn a_non_canonical_image_by_rsp_or_rbp_may_be_gp_on_amd_alone() {
    for bytes in IMAGES_BY_THE_STACK {
        let begun = case(bytes);
        let (native, soft) = (fault(&begun.1, 13), fault(&begun.1, 12));

        let on_amd = judge(&AMD, &begun, &native, &soft);
        let on_intel = judge(&INTEL, &begun, &native, &soft);
        let reversed = judge(&AMD, &begun, &soft, &native);

        assert_eq!(on_amd, (vec!["amd image #GP"], vec![]), "{}", begun.0);
        assert_eq!(on_intel, (vec![], vec![Part::Vector]), "{}", begun.0);
        assert_eq!(reversed, (vec![], vec![Part::Vector]), "{}", begun.0);
    }
}

#[test]
fn a_non_canonical_image_by_another_register_is_not_excused() {
    // XSAVEC [RAX]: the data segment, so that #SS would be wrong on either.
    let begun = case(&[0x0f, 0xc7, 0x20]);
    let (native, soft) = (fault(&begun.1, 13), fault(&begun.1, 12));

    let judged = judge(&AMD, &begun, &native, &soft);

    assert_eq!(judged, (vec![], vec![Part::Vector]));
}

/// DPPS XMM1, XMM2, -1; VDPPS YMM1, YMM2, YMM3, -1; VDPPD XMM1, XMM2, XMM3, -1.
const DOT_PRODUCTS: [(&[u8], usize); 3] = [
    (&[0x66, 0x0f, 0x3a, 0x40, 0xca, 0xff], 4),
    (&[0xc4, 0xe3, 0x6d, 0x40, 0xcb, 0xff], 4),
    (&[0xc4, 0xe3, 0x69, 0x41, 0xcb, 0xff], 8),
];

#[test]
fn sign_and_payload_of_a_nan_of_a_dot_product_may_differ_on_amd_alone() {
    for (bytes, size) in DOT_PRODUCTS {
        let begun = case(bytes);
        let (mut native, mut soft) = (begun.1, begun.1);
        native.state.fx.xmm[1][size - 2..size].copy_from_slice(&[0xf8, 0x7f]);
        soft.state.fx.xmm[1][size - 2..size].copy_from_slice(&[0xf9, 0xff]);

        let on_amd = judge(&AMD, &begun, &native, &soft);
        let on_intel = judge(&INTEL, &begun, &native, &soft);

        assert_eq!(on_amd, (vec!["amd dot product"], vec![]), "{}", begun.0);
        assert_eq!(on_intel, (vec![], vec![Part::Xmm(1)]), "{}", begun.0);
    }
}

#[test]
fn a_number_in_a_dot_product_is_not_excused() {
    let begun = case(DOT_PRODUCTS[1].0);
    let (mut native, soft) = (begun.1, begun.1);
    // A NaN on one side only, and in the upper lane.
    native.state.high[1][2..4].copy_from_slice(&[0xc0, 0x7f]);

    let judged = judge(&AMD, &begun, &native, &soft);

    assert_eq!(judged, (vec![], vec![Part::High(1)]));
}

/// VPGATHERQQ YMM5, [RAX + YMM7], YMM6.
const GATHER: &[u8] = &[0xc4, 0xe2, 0xcd, 0x91, 0x2c, 0x38];

#[test]
fn a_gather_that_faults_may_leave_other_elements_on_amd() {
    for vector in [13, 14] {
        let begun = case(GATHER);
        let (mut native, soft) = (fault(&begun.1, vector), fault(&begun.1, vector));
        native.state.fx.xmm[5][0] = 1;
        native.state.high[6][0] = 1;

        let on_amd = judge(&AMD, &begun, &native, &soft);
        let on_intel = judge(&INTEL, &begun, &native, &soft);

        assert_eq!(on_amd, (vec!["amd gather"], vec![]));
        assert_eq!(on_intel, (vec![], vec![Part::Xmm(5), Part::High(6)]));
    }
}

#[test]
fn a_gather_is_held_to_its_indices_and_to_its_result_without_a_fault() {
    let begun = case(GATHER);
    let (mut indices, soft) = (fault(&begun.1, 14), fault(&begun.1, 14));
    indices.state.fx.xmm[7][0] = 1;
    let mut retired = begun.1;
    retired.state.fx.xmm[5][0] = 1;

    let faulted = judge(&AMD, &begun, &indices, &soft);
    let complete = judge(&AMD, &begun, &retired, &begun.1);

    assert_eq!(faulted, (vec![], vec![Part::Xmm(7)]));
    assert_eq!(complete, (vec![], vec![Part::Xmm(5)]));
}

/// FSINCOS of a number with this biased exponent, after which one side has UE and the other has
/// not.
fn sine_underflow(exponent: u16) -> ((Instruction, Case), Case) {
    let mut begun = case(&[0xd9, 0xfb]);
    begun.1.state.fx.st[0][7] = 0x80;
    begun.1.state.fx.st[0][8..10].copy_from_slice(&exponent.to_le_bytes());
    let mut native = begun.1;
    native.state.fx.status = 0x10;
    (begun, native)
}

#[test]
fn the_sine_of_a_small_number_may_underflow_on_amd_alone() {
    let (begun, native) = sine_underflow(1);

    let on_amd = judge(&AMD, &begun, &native, &begun.1);
    let on_intel = judge(&INTEL, &begun, &native, &begun.1);

    assert_eq!(on_amd, (vec!["amd small sine"], vec![]));
    assert_eq!(on_intel, (vec![], vec![Part::Status(0x10)]));
}

#[test]
fn the_sine_of_a_number_that_is_not_small_does_not_underflow() {
    let (begun, native) = sine_underflow(0x3ff0);

    let judged = judge(&AMD, &begun, &native, &begun.1);

    assert_eq!(judged, (vec![], vec![Part::Status(0x10)]));
}

#[test]
fn bits_63_to_48_of_fip_may_stay_where_linear_addresses_have_57() {
    let mut begun = case(&[0x48, 0x0f, 0xae, 0x08]);
    begun.1.state.gpr[0] = DATA;
    let (mut native, mut soft) = (begun.1, begun.1);
    native.state.fx.fip = 0xff6e_68ac_70b2_9104;
    soft.state.fx.fip = 0x68ac_70b2_9104;

    let wide = judge(&Processor { la57: true, ..INTEL }, &begun, &native, &soft);
    let narrow = judge(&INTEL, &begun, &native, &soft);

    assert_eq!(begun.0.code(), Code::Fxrstor64_m512byte);
    assert_eq!(wide, (vec!["wide fip"], vec![]));
    assert_eq!(narrow, (vec![], vec![Part::Fip]));
}

#[test]
fn fields_of_an_image_beside_the_pointers_are_not_excused_on_amd() {
    // FXSAVE [RAX]
    let mut begun = case(&[0x0f, 0xae, 0x00]);
    begun.1.state.gpr[0] = DATA;
    let mut native = begun.1;
    // FIP, MXCSR_MASK; FCW and ST0.
    for byte in [8, 28, 0, 32] {
        native.state.data[byte] = 1;
    }

    let judged = judge(&AMD, &begun, &native, &begun.1);

    assert_eq!(judged, (vec!["amd image"], vec![Part::Byte(0), Part::Byte(32)]));
}

#[test]
fn xrstor_refused_for_mxcsr_excuses_the_host_and_not_the_interpreter() {
    let begun = case(&[0x0f, 0xae, 0x28]);
    let (mut loaded, kept) = (fault(&begun.1, 13), fault(&begun.1, 13));
    loaded.state.fx.xmm[0][0] = 1;

    let host = judge(&INTEL, &begun, &loaded, &kept);
    let interpreter = judge(&INTEL, &begun, &kept, &loaded);

    assert_eq!(host, (vec!["xrstor mxcsr"], vec![]));
    assert_eq!(interpreter, (vec![], vec![Part::Xmm(0)]));
}

#[test]
fn a_call_that_pushes_after_its_checks_is_excused_on_amd_alone() {
    // CALL RAX
    let mut begun = case(&[0xff, 0xd0]);
    begun.1.state.gpr[4] = DATA + 64;
    let (native, mut soft) = (fault(&begun.1, 13), fault(&begun.1, 13));
    // The return address, and a byte that has nothing to do with it.
    soft.state.data[60] = 1;
    soft.state.data[64] = 1;

    let on_amd = judge(&AMD, &begun, &native, &soft);
    let on_intel = judge(&INTEL, &begun, &native, &soft);

    assert_eq!(on_amd, (vec!["amd call target"], vec![Part::Byte(64)]));
    assert_eq!(on_intel, (vec![], vec![Part::Byte(60), Part::Byte(64)]));
}

#[test]
fn a_register_of_an_addition_is_excused_by_no_row() {
    let begun = case(&[0x48, 0x01, 0xd8]);
    let mut native = begun.1;
    native.state.gpr[0] = 1;

    for processor in [INTEL, AMD] {
        let judged = judge(&processor, &begun, &native, &begun.1);

        assert_eq!(begun.0.op0_register(), Register::RAX);
        assert_eq!(judged, (vec![], vec![Part::Gpr(0)]));
    }
}

#[test]
fn the_documentation_has_the_rows_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cpu.md");
    let document = std::fs::read_to_string(path).unwrap();
    let documented: Vec<_> = document
        .lines()
        .skip_while(|line| *line != "## Where hosts differ")
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(str::to_owned)
        .collect();

    let rows: Vec<_> = ROWS
        .iter()
        .map(|row| {
            let cells =
                [row.name, row.instructions, row.differs, row.why, row.hosts.text()].join(" | ");
            format!("| {cells} |")
        })
        .collect();

    assert_eq!(documented, rows);
}
