//! What CPUID does not announce is not there.

use core::mem::offset_of;

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::GprSgx;
use cloister_sgx::{Capabilities, SgxFeatures, enclu};
use cloister_x86::Vector;
use iced_x86::code_asm::*;

use super::host::{AEP, CODE, EXITED, Host, READ_ONLY, capabilities, epc_page, exit, window};

const GP: (u8, Option<u64>) = (Vector::Gp as u8, Some(0));

/// A processor whose CPUID announces these leaves, on a platform that has more.
fn with(features: SgxFeatures) -> Host {
    let platform = SgxFeatures::SGX1 | SgxFeatures::SGX2 | SgxFeatures::EDECCSSA;
    let mut host = Host::with(Capabilities { features: platform, ..capabilities() }, 1);
    host.kernel.vcpu().cpu.ctl.features.sgx.features = features;
    host
}

/// Executes an ENCLU leaf in an enclave with zeros as operands: the exception.
fn inside(features: SgxFeatures, number: u32) -> (u8, Option<u64>) {
    let mut host = with(features);
    host.load(|a| {
        a.mov(eax, number)?;
        a.xor(ebx, ebx)?;
        a.xor(ecx, ecx)?;
        a.enclu()?;
        exit(a)
    });
    let frame = host.enter_and_run();
    (frame.vector, frame.error_code)
}

#[test]
fn without_sgx2_its_leaves_are_gp() {
    let mut host = with(SgxFeatures::SGX1);
    for number in [leaf::EAUG, leaf::EMODPR, leaf::EMODT] {
        let frame = host.encls(number, [0, window(1), 0]).expect_err("no such leaf");

        assert_eq!((frame.vector, frame.error_code), GP, "{number:#x}");
    }
    use enclu::leaf::{EACCEPT, EACCEPTCOPY, EMODPE};
    for number in [EACCEPT, EMODPE, EACCEPTCOPY] {
        assert_eq!(inside(SgxFeatures::SGX1, number), GP, "{number:#x}");
    }
}

#[test]
fn edeccssa_is_there_only_where_announced() {
    // At CSSA 0 there is nothing to take away, which is #GP(0) as well: enter again first.
    let run = |features| {
        let mut host = with(features);
        host.load(|a| {
            // The second entry, at CSSA 1.
            let mut again = a.create_label();
            a.cmp(eax, 1)?;
            a.je(again)?;
            a.ud2()?;
            a.set_label(&mut again)?;
            a.mov(eax, enclu::leaf::EDECCSSA)?;
            a.enclu()?;
            exit(a)
        });
        let first = host.enter_and_run();
        assert_eq!((first.vector, first.rip), (Vector::Ud as u8, AEP));
        let second = host.enter_and_run();
        (second.vector, second.rip)
    };

    let announced = SgxFeatures::SGX1 | SgxFeatures::EDECCSSA;
    assert_eq!(run(announced), (Vector::Ud as u8, EXITED));
    assert_eq!(run(SgxFeatures::SGX1 | SgxFeatures::SGX2), (Vector::Gp as u8, AEP));
}

#[test]
fn rdtsc_in_an_enclave_needs_sgx2() {
    for code in [&[0x0f, 0x31][..], &[0x0f, 0x01, 0xf9]] {
        for (features, rip) in
            [(SgxFeatures::SGX1, AEP), (SgxFeatures::SGX1 | SgxFeatures::SGX2, EXITED)]
        {
            let mut host = with(features);
            host.load(|a| {
                a.db(code)?;
                exit(a)
            });

            let frame = host.enter_and_run();

            assert_eq!((frame.vector, frame.rip), (Vector::Ud as u8, rip), "{code:x?}");
        }
    }
}

#[test]
fn rdtsc_outside_an_enclave_does_not_care() {
    let mut host = with(SgxFeatures::SGX1);
    host.kernel.assemble(|a| a.rdtsc());

    assert_eq!(host.kernel.vcpu().run(), crate::Exit::Hlt);
}

#[test]
fn without_sgx2_what_the_epcm_forbids_is_gp() {
    let mut host = with(SgxFeatures::SGX1);
    host.load(|a| {
        a.mov(rdi, READ_ONLY)?;
        a.mov(byte_ptr(rdi), 1)?;
        exit(a)
    });

    let frame = host.enter_and_run();
    let saved = host.saved(offset_of!(GprSgx, rip));
    // EREMOVE of what is not EPC.
    let leaf = host.encls(leaf::EREMOVE, [0, super::host::SHARED, 0]).expect_err("no EPC");

    assert_eq!((frame.vector, frame.error_code, frame.rip), (GP.0, GP.1, AEP));
    assert!(saved > CODE);
    assert_eq!((leaf.vector, leaf.error_code), GP);
}

#[test]
fn without_sgx2_what_the_page_tables_forbid_is_pf() {
    let mut host = with(SgxFeatures::SGX1);
    host.load(|a| {
        a.mov(rdi, READ_ONLY)?;
        a.mov(byte_ptr(rdi), 1)?;
        exit(a)
    });
    host.map(READ_ONLY, Some(epc_page(READ_ONLY)), 5);

    let frame = host.enter_and_run();

    assert_eq!((frame.vector, frame.error_code), (Vector::Pf as u8, Some(0b111)));
}
