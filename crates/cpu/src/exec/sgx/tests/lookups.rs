//! Decoded code of an enclave that is entered again (SDM Vol. 3D, 35.5.4: entries and exits drop the
//! translations): what it leads to is asked anew.

use cloister_sgx::encls::leaf;
use cloister_x86::paging::Pte;
use cloister_x86::{Gpr, Vector};
use iced_x86::code_asm::*;

use super::host::{AEP, CODE, DATA, EXITED, Host, epc_page, exit, window};
use crate::exec::system::tests::kernel::Frame;

/// An enclave that has run once: it says so in R8.
fn has_run() -> Host {
    let mut host = Host::new();
    host.load(|a| {
        a.mov(r8d, 1)?;
        exit(a)
    });
    assert!(runs(&mut host));
    host
}

fn run(host: &mut Host) -> Frame {
    host.kernel.vcpu().cpu.arch.gpr[Gpr::R8] = 0;
    host.enter_and_run()
}

/// Whether the enclave runs to its exit.
fn runs(host: &mut Host) -> bool {
    let frame = run(host);
    let ran = host.kernel.vcpu().cpu.arch.gpr[Gpr::R8] == 1;
    assert_eq!(ran, (frame.vector, frame.rip) == (Vector::Ud as u8, EXITED));
    ran
}

/// The entry of the code's page in the page tables.
fn entry(host: &mut Host) -> Pte {
    Pte::from_bits_retain(host.kernel.guest.read_u64(Host::entry(CODE)))
}

fn set_entry(host: &mut Host, entry: Pte) {
    host.kernel.guest.write_u64(Host::entry(CODE), entry.bits());
}

#[test]
fn lookups_are_kept_while_the_code_is_where_it_was() {
    let mut host = has_run();
    let before = host.kernel.vcpu().cpu.run.tlb.enclave_code().clone();

    assert!(runs(&mut host));

    assert_eq!(*host.kernel.vcpu().cpu.run.tlb.enclave_code(), before);
}

/// What becomes of an entry of the page tables.
type Change = fn(Pte) -> Pte;

#[test]
fn code_that_cannot_be_fetched_any_more_does_not_run_though_nothing_was_flushed() {
    let other = epc_page(DATA);
    let changes: [(&str, Change, u64); 5] = [
        ("not present", |pte| pte - Pte::PRESENT, 0x14),
        ("the kernel's", |pte| pte - Pte::USER, 0x15),
        ("not executable", |pte| pte | Pte::NO_EXECUTE, 0x15),
        ("reserved bits", |pte| pte | Pte::from_bits_retain(1 << 51), 0x1d),
        ("another page", |pte| Pte::from_bits_retain(pte.bits() + 0x1000), 0x8015),
    ];
    assert_eq!(other, epc_page(CODE) + 1);
    for (name, change, code) in changes {
        let mut host = has_run();
        let fine = entry(&mut host);
        set_entry(&mut host, change(fine));

        let frame = run(&mut host);

        let outcome = (frame.vector, frame.rip, frame.error_code);
        assert_eq!(outcome, (Vector::Pf as u8, AEP, Some(code)), "{name}");
        let cpu = &host.kernel.vcpu().cpu;
        assert_eq!((cpu.arch.gpr[Gpr::R8], cpu.arch.cr2), (0, CODE), "{name}");
        set_entry(&mut host, fine);
        host.return_and_run(&frame);
        assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], 1, "{name}");
    }
}

#[test]
fn code_that_is_blocked_meanwhile_does_not_run() {
    let mut host = has_run();
    host.encls_ok(leaf::EBLOCK, [0, window(epc_page(CODE)), 0]);

    let frame = run(&mut host);

    assert_eq!((frame.vector, frame.error_code), (Vector::Pf as u8, Some(0x8015)));
}

#[test]
fn the_accessed_bit_of_code_that_runs_again_is_set_again() {
    let mut host = has_run();
    let fine = entry(&mut host);
    assert!(fine.contains(Pte::ACCESSED));
    set_entry(&mut host, fine - Pte::ACCESSED);

    assert!(runs(&mut host));

    assert_eq!(entry(&mut host), fine);
}
