//! What ENCLS and ENCLU check before the leaf, in order (SDM Vol. 2, ENCLS and ENCLU).

use cloister_sgx::encls::leaf;
use cloister_sgx::{Capabilities, enclu};
use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::segment::{Rights, seg};
use cloister_x86::{Exception, Gpr, Vector};

use super::host::Host;
use crate::cpu::Cpu;
use crate::exec::system::tests::kernel::Kernel;
use crate::testing::{CODE, Ending, Guest, Start};
use crate::{Exit, Vcpu};

const ENCLS: [u8; 3] = [0x0f, 0x01, 0xcf];
const ENCLU: [u8; 3] = [0x0f, 0x01, 0xd7];

const UD: Ending = Ending::Exception(Exception::ud());
const NM: Ending = Ending::Exception(Exception::new(Vector::Nm));
const GP: Ending = Ending::Exception(Exception::gp(0));

/// Executes one instruction on a machine with SGX, in this mode, after `change`.
fn ending(start: Start, code: &[u8], leaf: u32, change: impl FnOnce(&mut Cpu)) -> Ending {
    let platform = Host::new().platform;
    let mut guest = Guest::on_platform(start, 1, Some(platform));
    guest.load_code(code);
    guest.vcpu.cpu.ctl.sgx_enabled = true;
    guest.vcpu.cpu.arch.gpr[Gpr::Rax] = u64::from(leaf);
    change(&mut guest.vcpu.cpu);
    guest.vcpu.cpu.update_mode();
    guest.run()
}

/// An operand that the leaf refuses with #GP(0) shows that the leaf was reached: that of EREMOVE
/// is not aligned.
fn misaligned(cpu: &mut Cpu) {
    cpu.arch.gpr[Gpr::Rcx] = 1;
}

#[test]
fn encls_is_ud_without_sgx1_outside_protected_mode_and_above_cpl_0() {
    let everything = |cpu: &mut Cpu| {
        // What would be an exit or #GP comes later.
        cpu.ctl.encls_exiting = u64::MAX;
        misaligned(cpu);
    };

    for start in [Start::Real16, Start::User64, Start::User32] {
        assert_eq!(ending(start, &ENCLS, leaf::EREMOVE, everything), UD, "{start:?}");
    }
    let without = |cpu: &mut Cpu| {
        everything(cpu);
        cpu.ctl.features.sgx = Capabilities::NONE;
    };
    assert_eq!(ending(Start::Kernel64, &ENCLS, leaf::EREMOVE, without), UD);
}

#[test]
fn encls_is_ud_in_virtual_8086_mode() {
    let virtual_8086 = |cpu: &mut Cpu| {
        cpu.arch.system_flags.insert(Rflags::VM);
        cpu.ctl.encls_exiting = u64::MAX;
    };

    assert_eq!(ending(Start::Flat32, &ENCLS, leaf::EREMOVE, virtual_8086), UD);
}

#[test]
fn encls_and_enclu_with_a_prefix_are_ud() {
    for prefix in [0x66, 0xf2, 0xf3, 0xf0] {
        let encls = [&[prefix][..], &ENCLS].concat();
        let enclu = [&[prefix][..], &ENCLU].concat();

        assert_eq!(ending(Start::Kernel64, &encls, leaf::EREMOVE, misaligned), UD, "{prefix:#x}");
        let missing = enclu::leaf::EEXIT;
        assert_eq!(ending(Start::User64, &enclu, missing, |_| {}), UD, "{prefix:#x}");
    }
}

#[test]
fn segment_overrides_address_size_and_rex_do_not_matter() {
    for prefix in [0x64, 0x65, 0x67, 0x48, 0x41] {
        let encls = [&[prefix][..], &ENCLS].concat();

        assert_eq!(ending(Start::Kernel64, &encls, leaf::EREMOVE, misaligned), GP, "{prefix:#x}");
    }
}

#[test]
fn an_exiting_leaf_exits_before_every_check_of_the_leaf_and_of_paging() {
    let exit = |leaf| Ending::Exit(Exit::Encls { leaf });
    for (number, bitmap, expected) in [
        (leaf::EREMOVE, 1 << leaf::EREMOVE, exit(leaf::EREMOVE)),
        (leaf::EREMOVE, !(1 << leaf::EREMOVE), GP),
        (62, 1 << 62, exit(62)),
        (63, 1 << 63, exit(63)),
        (64, 1 << 63, exit(64)),
        (u32::MAX, 1 << 63, exit(u32::MAX)),
        (64, !(1 << 63), GP),
        (u32::MAX, !(1 << 63), GP),
    ] {
        let outcome = ending(Start::Kernel64, &ENCLS, number, |cpu| {
            misaligned(cpu);
            cpu.ctl.encls_exiting = bitmap;
        });

        assert_eq!(outcome, expected, "leaf {number:#x}, bitmap {bitmap:#x}");
    }
    // Without paging, too.
    let outcome = ending(Start::Flat32, &ENCLS, leaf::EREMOVE, |cpu| cpu.ctl.encls_exiting = 8);
    assert_eq!(outcome, exit(leaf::EREMOVE));
}

#[test]
fn the_leaf_is_the_low_half_of_rax() {
    let outcome = ending(Start::Kernel64, &ENCLS, 0, |cpu| {
        cpu.arch.gpr[Gpr::Rax] = 0xffff_ffff_0000_0003;
        cpu.ctl.encls_exiting = 8;
    });

    assert_eq!(outcome, Ending::Exit(Exit::Encls { leaf: leaf::EREMOVE }));
}

#[test]
fn encls_is_gp_without_paging_and_with_an_expand_down_ds() {
    // The leaf itself would find nothing to object to.
    let no_paging = ending(Start::Flat32, &ENCLS, leaf::EREMOVE, |_| {});
    assert_eq!(no_paging, GP);

    let mut host = Host::new();
    host.kernel.guest.load_code(&[ENCLS, [0xf4; 3]].concat());
    let expand_down = |rights: u32, long: bool| {
        let platform = Host::new().platform;
        let mut guest = Guest::on_platform(Start::Kernel64, 1, Some(platform));
        guest.vcpu.cpu.arch.segs[seg::CS].rights = Rights(if long { 0x209b } else { 0xc09b });
        guest.vcpu.cpu.arch.segs[seg::DS].rights = Rights(rights);
        guest.vcpu.cpu.update_mode();
        guest.load_code(&ENCLS);
        // An invalid leaf and a good DS are #GP(0) as well: only an exit tells that DS was
        // looked at, so look at what is not there: EREMOVE of an unmapped page is #PF.
        guest.vcpu.cpu.arch.gpr[Gpr::Rax] = u64::from(leaf::EREMOVE);
        guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = 0x50_0000;
        guest.run()
    };
    let page_fault = |outcome: Ending| {
        matches!(outcome, Ending::Exception(Exception { vector: Vector::Pf, .. }))
    };
    assert!(page_fault(expand_down(0xc093, false)));
    assert_eq!(expand_down(0xc097, false), GP);
    assert!(page_fault(expand_down(0xc097, true)));
}

/// What makes a check fail.
type Change = fn(&mut Cpu);

#[test]
fn enclu_checks_come_in_order() {
    // Each change is of an earlier check than all that come after it.
    let changes: [(&str, Change, Ending); 4] = [
        ("no SGX1", |cpu| cpu.ctl.features.sgx = Capabilities::NONE, UD),
        ("TS", |cpu| cpu.arch.cr0 |= Cr0::TS, NM),
        ("CPL 0", |cpu| set_level(cpu, 0), UD),
        ("SGX off", |cpu| cpu.ctl.sgx_enabled = false, GP),
    ];
    for first in 0..changes.len() {
        let outcome = ending(Start::User64, &ENCLU, enclu::leaf::EENTER, |cpu| {
            for (_, change, _) in &changes[first..] {
                change(cpu);
            }
        });

        assert_eq!(outcome, changes[first].2, "{}", changes[first].0);
    }
}

fn set_level(cpu: &mut Cpu, cpl: u8) {
    cpu.arch.cpl = cpl;
    cpu.arch.segs[seg::CS].rights = Rights(0x209b | u32::from(cpl) << 5);
    cpu.arch.segs[seg::SS].rights = Rights(0xc093 | u32::from(cpl) << 5);
}

#[test]
fn enclu_is_ud_outside_protected_mode() {
    for (start, flags) in [(Start::Real16, Rflags::empty()), (Start::User32, Rflags::VM)] {
        let outcome = ending(start, &ENCLU, enclu::leaf::EENTER, |cpu| {
            cpu.arch.system_flags |= flags;
            // #NM comes later.
            cpu.arch.cr0 |= Cr0::TS;
        });

        assert_eq!(outcome, UD, "{start:?}");
    }
}

#[test]
fn enclu_is_gp_without_native_errors_and_for_leaves_that_are_not_there() {
    let page_fault = |outcome: Ending| {
        matches!(outcome, Ending::Exception(Exception { vector: Vector::Pf, .. }))
    };
    // The TCS is not mapped: with nothing before it to object to, EENTER is #PF.
    let unmapped =
        |cpu: &mut Cpu| (cpu.arch.gpr[Gpr::Rbx], cpu.arch.gpr[Gpr::Rcx]) = (0x50_0000, 0x9000);
    let enter = enclu::leaf::EENTER;

    assert!(page_fault(ending(Start::User64, &ENCLU, enter, unmapped)));
    let no_native_errors = |cpu: &mut Cpu| {
        unmapped(cpu);
        cpu.arch.cr0.remove(Cr0::NE);
    };
    assert_eq!(ending(Start::User64, &ENCLU, enter, no_native_errors), GP);
    for number in [8, 10, 64, 0x8000_0002, u32::MAX] {
        assert_eq!(ending(Start::User64, &ENCLU, number, unmapped), GP, "{number:#x}");
    }
}

#[test]
fn enclu_is_gp_in_16_bit_code() {
    let page_fault = |outcome: Ending| {
        matches!(outcome, Ending::Exception(Exception { vector: Vector::Pf, .. }))
    };
    let unmapped =
        |cpu: &mut Cpu| (cpu.arch.gpr[Gpr::Rbx], cpu.arch.gpr[Gpr::Rcx]) = (0x50_0000, 0x9000);
    let sixteen = |cpu: &mut Cpu| {
        unmapped(cpu);
        cpu.arch.segs[seg::CS].rights = Rights(0x80fb);
    };

    assert!(page_fault(ending(Start::User32, &ENCLU, enclu::leaf::EENTER, unmapped)));
    assert_eq!(ending(Start::User32, &ENCLU, enclu::leaf::EENTER, sixteen), GP);
}

#[test]
fn leaves_for_the_inside_are_gp_outside() {
    use enclu::leaf::{EACCEPT, EACCEPTCOPY, EDECCSSA, EEXIT, EGETKEY, EMODPE, EREPORT};

    for number in [EREPORT, EGETKEY, EEXIT, EACCEPT, EMODPE, EACCEPTCOPY, EDECCSSA] {
        assert_eq!(ending(Start::User64, &ENCLU, number, |_| {}), GP, "{number}");
    }
}

#[test]
fn a_leaf_that_exited_and_was_skipped_steps_like_one_that_did_not() {
    for exiting in [0, u64::MAX] {
        let mut host = Host::new();
        let kernel: &mut Kernel = &mut host.kernel;
        kernel.guest.load_code(&[&ENCLS[..], &[0x90]].concat());
        let vcpu: &mut Vcpu = kernel.vcpu();
        vcpu.cpu.ctl.encls_exiting = exiting;
        vcpu.cpu.arch.gpr[Gpr::Rax] = u64::from(leaf::EREMOVE);
        vcpu.cpu.arch.gpr[Gpr::Rcx] = super::host::window(1);
        vcpu.cpu.set_rflags(2 | Rflags::TF.bits());
        if exiting != 0 {
            assert_eq!(vcpu.run(), Exit::Encls { leaf: leaf::EREMOVE });
            vcpu.skip();
        }

        let frame = kernel.run_to_handler();

        assert_eq!((frame.vector, frame.rip), (1, CODE + 3));
    }
}
