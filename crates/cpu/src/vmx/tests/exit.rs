//! Instructions that exit, and what the exit says of them.

use cloister_x86::regs::{Cr0, Cr4};
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{EntryControls, PinControls, ProcControls, SecondaryControls};
use cloister_x86::{Gpr, msr};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::machine::{End, GUEST, HOST, Machine, PAGE, become_guest};
use crate::exit::Stop;
use crate::testing::{CODE, DATA};
use crate::vmx::Pauses;

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

#[test]
fn instructions_exit_always_or_where_a_control_says_so() {
    use ProcControls as P;
    // Name, control, code, reason, length, qualification.
    let table: [(&str, ProcControls, Code, u32, u64, u64); 32] = [
        ("CPUID", P::empty(), |a| a.cpuid(), 10, 2, 0),
        ("INVD", P::empty(), |a| a.invd(), 13, 2, 0),
        ("VMCALL", P::empty(), |a| a.vmcall(), 18, 3, 0),
        ("VMXOFF", P::empty(), |a| a.vmxoff(), 26, 3, 0),
        ("VMLAUNCH", P::empty(), |a| a.vmlaunch(), 20, 3, 0),
        ("XSETBV", P::empty(), |a| a.xsetbv(), 55, 3, 0),
        ("HLT", P::HLT, |a| a.hlt(), 12, 1, 0),
        ("PAUSE", P::PAUSE, |a| a.pause(), 40, 2, 0),
        ("RDTSC", P::RDTSC, |a| a.rdtsc(), 16, 2, 0),
        ("RDPMC", P::RDPMC, |a| a.rdpmc(), 15, 2, 0),
        ("INVLPG", P::INVLPG, |a| a.invlpg(byte_ptr(0x1234)), 14, 8, 0x1234),
        ("RDMSR", P::empty(), |a| a.rdmsr(), 31, 2, 0),
        ("WRMSR", P::empty(), |a| a.wrmsr(), 32, 2, 0),
        ("MOV to CR3", P::CR3_LOAD, |a| a.mov(cr3, rdx), 28, 3, 0x203),
        ("MOV from CR3", P::CR3_STORE, |a| a.mov(rdi, cr3), 28, 3, 0x713),
        ("MOV to CR8", P::CR8_LOAD, |a| a.mov(cr8, rcx), 28, 4, 0x108),
        ("MOV from CR8", P::CR8_STORE, |a| a.mov(rcx, cr8), 28, 4, 0x118),
        ("MOV to DR7", P::MOV_DR, |a| a.mov(dr7, rax), 29, 3, 7),
        ("MOV from DR0", P::MOV_DR, |a| a.mov(rbx, dr0), 29, 3, 0x310),
        ("IN", P::UNCONDITIONAL_IO, |a| a.in_(al, 0x70), 30, 2, 0x0070_0048),
        ("OUT DX", P::UNCONDITIONAL_IO, |a| a.out(dx, eax), 30, 1, 3),
        ("REP OUTSB", P::UNCONDITIONAL_IO, |a| a.rep().outsb(), 30, 2, 0x30),
        ("VMPTRLD", P::empty(), |a| a.vmptrld(qword_ptr(rax + 0x40)), 21, 4, 0x40),
        ("VMREAD", P::empty(), |a| a.vmread(rdx, rbx), 23, 3, 0),
        ("VMCLEAR", P::empty(), |a| a.vmclear(qword_ptr(rax + 0x40)), 19, 5, 0x40),
        ("VMPTRST", P::empty(), |a| a.vmptrst(qword_ptr(rax + 0x40)), 22, 4, 0x40),
        ("VMRESUME", P::empty(), |a| a.vmresume(), 24, 3, 0),
        ("VMWRITE", P::empty(), |a| a.vmwrite(rdx, rbx), 25, 3, 0),
        ("VMXON", P::empty(), |a| a.vmxon(qword_ptr(rax + 0x40)), 27, 5, 0x40),
        ("INVEPT", P::empty(), |a| a.invept(rax, xmmword_ptr(rbx + 0x40)), 50, 6, 0x40),
        ("INVVPID", P::empty(), |a| a.invvpid(rax, xmmword_ptr(rbx + 0x40)), 53, 6, 0x40),
        ("REP INSB", P::UNCONDITIONAL_IO, |a| a.rep().insb(), 30, 2, 0x38),
    ];
    for (name, control, code, reason, length, qualification) in table {
        let mut machine = Machine::new();
        machine.control(control);
        machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = 1;
        assert_eq!(machine.run(code), End::Host(reason), "{name}");
        assert_eq!(machine.read(Field::EXIT_INSTRUCTION_LENGTH), length, "{name}");
        assert_eq!(machine.read(Field::EXIT_QUALIFICATION), qualification, "{name}");
        assert_eq!(machine.read(Field::GUEST_RIP), GUEST, "{name}");
    }
}

#[test]
fn without_their_controls_instructions_do_not_exit() {
    let table: [(&str, Code); 6] = [
        ("RDTSC", |a| a.rdtsc()),
        ("PAUSE", |a| a.pause()),
        ("INVLPG", |a| a.invlpg(byte_ptr(0x1234))),
        ("MOV CR3", |a| {
            a.mov(rdx, cr3)?;
            a.mov(cr3, rdx)
        }),
        ("MOV CR8", |a| a.mov(rcx, cr8)),
        ("WBINVD", |a| a.wbinvd()),
    ];
    for (name, code) in table {
        assert_eq!(Machine::new().run(code), End::Guest, "{name}");
    }
}

#[test]
fn secondary_controls_intercept_or_enable() {
    use SecondaryControls as S;
    let exits: [(&str, SecondaryControls, Code, u32); 11] = [
        ("WBINVD", S::WBINVD, |a| a.wbinvd(), 54),
        ("RDRAND", S::RDRAND, |a| a.rdrand(rax), 57),
        ("RDSEED", S::RDSEED, |a| a.rdseed(rax), 61),
        ("SGDT", S::DESCRIPTOR_TABLE, |a| a.sgdt(fword_ptr(0x2_0000)), 46),
        ("SIDT", S::DESCRIPTOR_TABLE, |a| a.sidt(fword_ptr(0x2_0000)), 46),
        ("LGDT", S::DESCRIPTOR_TABLE, |a| a.lgdt(fword_ptr(0x2_0000)), 46),
        ("LIDT", S::DESCRIPTOR_TABLE, |a| a.lidt(fword_ptr(0x2_0000)), 46),
        ("LLDT", S::DESCRIPTOR_TABLE, |a| a.lldt(ax), 47),
        ("LTR", S::DESCRIPTOR_TABLE, |a| a.ltr(ax), 47),
        ("SLDT", S::DESCRIPTOR_TABLE, |a| a.sldt(ax), 47),
        ("STR", S::DESCRIPTOR_TABLE, |a| a.str(ax), 47),
    ];
    for (name, control, code, reason) in exits {
        let mut machine = Machine::new();
        machine.second(control);
        assert_eq!(machine.run(code), End::Host(reason), "{name}");
    }
    let enabled: [(&str, SecondaryControls, Code); 2] =
        [("RDTSCP", S::RDTSCP, |a| a.rdtscp()), ("RDPID", S::RDTSCP, |a| a.rdpid(rax))];
    for (name, control, code) in enabled {
        let mut machine = Machine::new();
        machine.second(control);
        assert_eq!(machine.run(code), End::Guest, "{name}");
        let mut machine = Machine::new();
        machine.write(Field::EXCEPTION_BITMAP, 1 << 6);
        assert_eq!(machine.run(code), End::Host(0), "{name} is #UD");
        assert_eq!(machine.read(Field::EXIT_INTERRUPTION), 1 << 31 | 3 << 8 | 6, "{name}");
    }
}

#[test]
fn masks_and_shadows_of_cr0_decide_what_is_read_and_what_exits() {
    let ts = Cr0::TS.bits();
    let shadowed = |machine: &mut Machine| {
        machine.write(Field::CR0_MASK, ts);
        machine.write(Field::CR0_SHADOW, ts);
    };
    let mut machine = Machine::new();
    shadowed(&mut machine);
    assert_eq!(machine.run(|a| a.mov(rax, cr0)), End::Guest);
    let arch = &machine.guest.vcpu.cpu.arch;
    assert_eq!((arch.gpr[Gpr::Rax] & ts, arch.cr0.bits() & ts), (ts, 0));

    let exits: [(&str, Code, u64); 3] = [
        ("CLTS", |a| a.clts(), 2 << 4),
        (
            "MOV",
            |a| {
                a.mov(rax, cr0)?;
                a.btr(rax, 3)?;
                a.mov(cr0, rax)
            },
            0,
        ),
        (
            "LMSW",
            |a| {
                a.mov(eax, 1)?;
                a.lmsw(ax)
            },
            3 << 4 | 1 << 16,
        ),
    ];
    for (name, code, qualification) in exits {
        let mut machine = Machine::new();
        shadowed(&mut machine);
        assert_eq!(machine.run(code), End::Host(28), "{name}");
        assert_eq!(machine.read(Field::EXIT_QUALIFICATION), qualification, "{name}");
    }
}

#[test]
fn a_mask_of_cr4_decides_what_is_read_and_what_exits() {
    let vmxe = Cr4::VMXE.bits();
    let masked = || {
        let mut machine = Machine::new();
        machine.write(Field::CR4_MASK, vmxe);
        machine
    };
    let mut machine = masked();
    assert_eq!(machine.run(|a| a.mov(rax, cr4)), End::Guest);
    assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rax] & vmxe, 0);
    // What it has read it may write, and CR4 keeps what is the host's.
    let mut machine = masked();
    let end = machine.run(|a| {
        a.mov(rax, cr4)?;
        a.mov(cr4, rax)
    });
    assert_eq!(end, End::Guest);
    assert_eq!(machine.guest.vcpu.cpu.arch.cr4.bits() & vmxe, vmxe);
    let mut machine = masked();
    let end = machine.run(|a| {
        a.mov(rax, cr4)?;
        a.bts(rax, 13)?;
        a.mov(cr4, rax)
    });
    assert_eq!(end, End::Host(28));
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 4);
}

#[test]
fn cr3_targets_do_not_exit() {
    for (count, end) in [(0, End::Host(28)), (1, End::Host(28)), (2, End::Guest)] {
        let mut machine = Machine::new();
        machine.control(ProcControls::CR3_LOAD);
        machine.write(Field::CR3_TARGET_COUNT, count);
        machine.write(Field::CR3_TARGET0.plus(1), machine.read(Field::GUEST_CR3));
        let end_of_run = machine.run(|a| {
            a.mov(rdx, cr3)?;
            a.mov(cr3, rdx)
        });
        assert_eq!(end_of_run, end, "{count}");
    }
}

#[test]
fn rdtscp_and_invpcid_exit_by_two_controls() {
    let table: [(SecondaryControls, ProcControls, Code, u32); 2] = [
        (SecondaryControls::RDTSCP, ProcControls::RDTSC, |a| a.rdtscp(), 51),
        (
            SecondaryControls::INVPCID,
            ProcControls::INVLPG,
            |a| a.invpcid(rax, xmmword_ptr(0x2_0000)),
            58,
        ),
    ];
    for (second, primary, code, reason) in table {
        let mut machine = Machine::new();
        machine.second(second);
        assert_eq!(machine.run(code), End::Guest, "{reason}");
        let mut machine = Machine::new();
        machine.second(second);
        machine.control(primary);
        assert_eq!(machine.run(code), End::Host(reason));
    }
}

#[test]
fn faults_of_privilege_come_before_exits_but_of_what_exits_at_any() {
    let table: [(&str, Code, u32); 5] = [
        ("RDMSR", |a| a.rdmsr(), 0),
        ("HLT", |a| a.hlt(), 0),
        ("CPUID", |a| a.cpuid(), 10),
        ("VMCALL", |a| a.vmcall(), 18),
        ("MOV DR", |a| a.mov(rbx, dr0), 29),
    ];
    for (name, code, reason) in table {
        let mut machine = Machine::new();
        machine.control(ProcControls::HLT | ProcControls::MOV_DR);
        machine.write(Field::EXCEPTION_BITMAP, 1 << 13);
        machine.write(Field::GUEST_CS_SELECTOR, 0xb);
        machine.write(Field::GUEST_SS_SELECTOR, 0x13);
        machine.write(Field::GUEST_CS_RIGHTS, 0xa0fb);
        machine.write(Field::GUEST_SS_RIGHTS, 0xc0f3);
        machine.write(Field::GUEST_DS_RIGHTS, 0xc0f3);
        machine.write(Field::GUEST_ES_RIGHTS, 0xc0f3);
        assert_eq!(machine.run(code), End::Host(reason), "{name}");
        if reason == 0 {
            assert_eq!(machine.read(Field::EXIT_INTERRUPTION) & 0xff, 13, "{name}");
        }
    }
    // Likewise #UD by CR4.DE.
    for (control, reason) in [(ProcControls::empty(), 0), (ProcControls::MOV_DR, 29)] {
        let mut machine = Machine::new();
        machine.control(control);
        machine.set(Field::GUEST_CR4, Cr4::DE.bits() as u32);
        machine.write(Field::EXCEPTION_BITMAP, 1 << 6);
        assert_eq!(machine.run(|a| a.mov(rbx, dr4)), End::Host(reason));
    }
}

#[test]
fn a_task_switch_exits_before_it_begins() {
    let mut machine = Machine::new();
    machine.clear_entry(EntryControls::IA32E);
    machine.write(Field::GUEST_CS_RIGHTS, 0xc09b);
    machine.write(Field::GUEST_EFER, 0);
    machine.write(Field::GUEST_CR3, PAGE);
    machine.guest.write_u64(PAGE, 0x3000 | 1);
    machine.write(Field::GUEST_GDTR_BASE, DATA);
    machine.write(Field::GUEST_GDTR_LIMIT, 0x27);
    // An available 32-bit TSS.
    machine.guest.write_u64(DATA + 0x20, 0x67 | (DATA + 0x100) << 16 | 0x89 << 40);
    // JMP 20H:0
    assert_eq!(machine.run(|a| a.db(&[0xea, 0, 0, 0, 0, 0x20, 0])), End::Host(9));
    assert_eq!(machine.read(Field::EXIT_QUALIFICATION), 2 << 30 | 0x20);
    assert_eq!(machine.read(Field::EXIT_INSTRUCTION_LENGTH), 7);
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST);
    assert_eq!(machine.read(Field::GUEST_TR_SELECTOR), 0x18);
}

#[test]
fn bitmaps_choose_ports_and_msrs() {
    for (bit, expected) in [(0x70, End::Host(30)), (0x71, End::Guest)] {
        let mut machine = Machine::new();
        machine.control(ProcControls::IO_BITMAPS);
        machine.write(Field::IO_BITMAP_A, PAGE);
        machine.write(Field::IO_BITMAP_B, PAGE + 0x1000);
        machine.guest.write(PAGE + bit / 8, &[1 << (bit % 8)]);
        let end = machine.run(|a| a.out(0x70, al));
        let owner = matches!(end, End::Other(_));
        assert!(end == expected || (owner && expected == End::Guest), "{bit:#x}: {end:?}");
    }
    for (at, expected) in [(0x100, End::Guest), (1024 + 0x100 / 8, End::Host(31))] {
        let mut machine = Machine::new();
        machine.control(ProcControls::MSR_BITMAP);
        machine.write(Field::MSR_BITMAP, PAGE);
        machine.guest.write(PAGE + at, &[1]);
        machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = msr::FS_BASE.into();
        assert_eq!(machine.run(|a| a.rdmsr()), expected, "{at}");
    }
    // Where the bit is, for read and write.
    for (index, bit) in [(msr::SYSENTER_CS, 0x174), (msr::KERNEL_GS_BASE, 8 * 1024 + 0x102)] {
        for (code, at, reason) in [(0x32, bit, 31), (0x30, 8 * 2048 + bit, 32)] {
            for (set, exits) in [(false, false), (true, true)] {
                let mut machine = Machine::new();
                machine.control(ProcControls::MSR_BITMAP);
                machine.write(Field::MSR_BITMAP, PAGE);
                machine.guest.write(PAGE + at / 8, &[if set { 1 << (at % 8) } else { 0 }]);
                machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = index.into();
                let end = machine.run(|a| a.db(&[0x0f, code]));
                assert_eq!(end == End::Host(reason), exits, "{index:#x} {reason}");
            }
        }
    }
    // MSRs and ports that no bitmap has.
    let mut machine = Machine::new();
    machine.control(ProcControls::MSR_BITMAP | ProcControls::IO_BITMAPS);
    for field in [Field::MSR_BITMAP, Field::IO_BITMAP_A, Field::IO_BITMAP_B] {
        machine.write(field, PAGE);
    }
    machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx] = 0x4000_0000;
    machine.guest.vcpu.cpu.arch.gpr[Gpr::Rdx] = 0xffff;
    assert_eq!(machine.run(|a| a.rdmsr()), End::Host(31));
    machine.guest.vcpu.complete(0);
    machine.code(GUEST, |a| a.out(dx, eax));
    machine.code(HOST + 2, |a| a.vmresume());
    assert_eq!(machine.go(), End::Host(30), "ports FFFFH and 0");
}

#[test]
fn the_preemption_timer_and_the_monitor_trap_flag_exit_between_instructions() {
    let mut machine = Machine::new();
    machine.set(Field::PIN_CONTROLS, PinControls::PREEMPTION_TIMER.bits());
    assert_eq!(machine.run(|a| a.nop()), End::Host(52));
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST);

    let mut machine = Machine::new();
    machine.control(ProcControls::MONITOR_TRAP);
    assert_eq!(machine.run(|a| a.nop()), End::Host(37));
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST + 1);
}

#[test]
fn the_monitor_trap_flag_counts_iterations() {
    let mut machine = Machine::new();
    machine.control(ProcControls::MONITOR_TRAP);
    let gpr = &mut machine.guest.vcpu.cpu.arch.gpr;
    (gpr[Gpr::Rcx], gpr[Gpr::Rdi]) = (4, DATA);
    assert_eq!(machine.run(|a| a.rep().stosb()), End::Host(37));
    assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rcx], 3);
    assert_eq!(machine.read(Field::GUEST_RIP), GUEST);
}

#[test]
fn tsc_offset_is_added() {
    let mut machine = Machine::new();
    machine.control(ProcControls::TSC_OFFSETTING);
    machine.write(Field::TSC_OFFSET, 1 << 60);
    assert_eq!(machine.run(|a| a.rdtsc()), End::Guest);
    assert_eq!(machine.guest.vcpu.cpu.arch.gpr[Gpr::Rdx] >> 28, 1);
}

#[test]
fn the_time_stamp_counter_is_multiplied_before_the_offset_is_added() {
    let mut machine = Machine::new();
    machine.control(ProcControls::TSC_OFFSETTING);
    machine.second(SecondaryControls::TSC_SCALING);
    machine.write(Field::TSC_OFFSET, 5);
    for (multiplier, low) in [(0, 5), (1, 5)] {
        machine.write(Field::TSC_MULTIPLIER, multiplier);
        become_guest(&mut machine.guest.vcpu.cpu);
        assert_eq!(machine.guest.vcpu.cpu.guest_tsc(), low);
    }
    machine.write(Field::TSC_MULTIPLIER, 3 << 47);
    become_guest(&mut machine.guest.vcpu.cpu);
    let cpu = &machine.guest.vcpu.cpu;
    let (before, scaled, after) = (cpu.tsc(), cpu.guest_tsc(), cpu.tsc());
    assert!((before * 3 / 2 + 5..=after * 3 / 2 + 5).contains(&scaled));
}

#[test]
fn a_loop_of_pauses_exits_after_its_window() {
    let exits = |gap: u64, window: u64, level: u8| {
        let mut machine = Machine::new();
        machine.second(SecondaryControls::PAUSE_LOOP);
        machine.write(Field::PLE_GAP, gap);
        machine.write(Field::PLE_WINDOW, window);
        machine.code(CODE, |a| a.pause());
        let vcpu = &mut machine.guest.vcpu;
        become_guest(&mut vcpu.cpu);
        vcpu.cpu.arch.cpl = level;
        [0, 1].map(|_| {
            vcpu.cpu.arch.rip = CODE;
            let outcome = vcpu.execute_one();
            std::thread::sleep(std::time::Duration::from_micros(1));
            outcome == Err(Stop::VM_EXIT)
        })
    };
    let forever = 0xffff_ffff;
    assert_eq!(exits(forever, 0, 0), [false, true]);
    assert_eq!(exits(forever, forever, 0), [false, false]);
    // Each PAUSE begins a loop, and user code has none.
    assert_eq!(exits(0, 0, 0), [false, false]);
    assert_eq!(exits(forever, 0, 3), [false, false]);
}

#[test]
fn a_loop_of_pauses_may_be_slower_than_one_of_hardware() {
    let begun = Pauses::with(None, 1_000, 128);
    let slow = Pauses::with(Some(begun), 5_000, 128);
    let too_slow = Pauses::with(Some(slow), 10_000, 128);

    assert_eq!(begun, Pauses { first: 1_000, last: 1_000 });
    assert_eq!(slow, Pauses { first: 1_000, last: 5_000 });
    assert_eq!(too_slow, Pauses { first: 10_000, last: 10_000 });
}

#[test]
fn no_guest_reads_a_time_after_its_preemption_timer_has_expired() {
    for (deadline, outcome) in [(u64::MAX, Ok(())), (0, Err(Stop::ALONE))] {
        let mut machine = Machine::new();
        machine.code(CODE, |a| a.rdtsc());
        let vcpu = &mut machine.guest.vcpu;
        become_guest(&mut vcpu.cpu);
        if let Some(guest) = &mut vcpu.cpu.arch.vmx.guest {
            guest.deadline = Some(deadline);
        }
        assert_eq!(vcpu.execute_one(), outcome);
    }
}
