//! What vendors and generations of processors may differ in: the rows of the table in
//! `docs/cpu.md`. Whatever compares the interpreter with the host offers its differences to them.

mod amd;
mod amd_faults;
mod image;
mod numeric;
mod open;
mod processor;
mod row;

pub(crate) use numeric::is_approximate;
pub(crate) use processor::{Processor, Vendor};
pub(crate) use row::{Part, Row, Trial, excuse};

/// The table.
pub(crate) const ROWS: &[Row] = &[
    open::FLAGS,
    open::DOUBLE_SHIFT,
    open::RANDOM,
    open::XCR0,
    open::PUSH_SEGMENT,
    open::FOUR_GIB,
    open::POPA,
    open::REP_EXTENSION,
    open::XRSTOR_MXCSR,
    numeric::CONDITIONS,
    numeric::ULP,
    numeric::ULP_RANGE,
    numeric::APPROXIMATION,
    image::WIDE_FIP,
    image::DATA_POINTER,
    image::SELECTORS,
    image::ALIGNMENT,
    image::WRAP,
    amd::POINTERS,
    amd::IMAGE,
    amd::DOT_PRODUCT,
    amd::SMALL_SINE,
    amd::UNCHANGED_UNDERFLOW,
    amd::MMX_STORE,
    amd::EXTENDED_STORE,
    amd::GATHER,
    amd::REPEATED_FLAGS,
    amd_faults::IMAGE_STACK,
    amd_faults::IMAGE_ADDRESS,
    amd_faults::STACK_ALIGNMENT,
    amd_faults::SHA_ALIGNMENT,
    amd_faults::CALL_TARGET,
    amd_faults::PORT_COUNT,
    amd_faults::NUMERIC_STORE,
    amd_faults::HALF_STORE,
    amd_faults::VEX_W,
    amd_faults::STRING_ORDER,
    amd_faults::MASKED_MMX,
    amd_faults::MASKED_ADDRESS,
];
