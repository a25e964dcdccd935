//! What the comparison with the host's user mode cannot reach: CR0, CR4, XCR0, other modes, and
//! instructions that start over.

mod gather;
mod state;
mod vex;
