//! ENCLV (SDM Vol. 2A, ENCLV).

use cloister_sgx::{SgxFeatures, enclv};
use cloister_x86::Gpr;
use cloister_x86::regs::{Cr0, Efer, Rflags};
use cloister_x86::vmx::{ExitReason, SecondaryControls};

use super::encls::is_in_bitmap;
use super::port::Port;
use crate::cpu::Cpu;
use crate::exit::{Exec, Exit};
use crate::op::Op;

/// ENCLV: the checks before the leaf, in the order of the pseudo-code, then the leaf.
///
/// The processor counts as one in VMX non-root operation, whose VMM is the owner. The guest's own
/// hypervisor comes first.
pub(super) extern "C" fn enclv(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.arch.cr0.contains(Cr0::PE)
        || cpu.arch.system_flags.contains(Rflags::VM)
        || !cpu.ctl.features.has_sgx(SgxFeatures::SGX1 | SgxFeatures::OVERSUB_ENCLV)
    {
        return Err(cpu.ud());
    }
    let mode64 = cpu.run.mode.is_64();
    if (cpu.arch.efer.contains(Efer::LMA) && !mode64) || cpu.arch.cpl > 0 {
        return Err(cpu.ud());
    }
    let leaf = cpu.arch.gpr[Gpr::Rax] as u32;
    cpu.require_enabled(SecondaryControls::ENCLV)?;
    cpu.intercept(op, ExitReason::Enclv, |controls| is_in_bitmap(controls.enclv_exiting, leaf))?;
    match cpu.ctl.enclv_exiting {
        None => return Err(cpu.ud()),
        Some(bitmap) if is_in_bitmap(bitmap, leaf) => {
            return Err(cpu.exit_with(Exit::Enclv { leaf }));
        }
        Some(_) => {}
    }
    if !cpu.ctl.sgx_enabled || !cpu.reaches_operands() {
        return Err(cpu.gp(0));
    }
    let Some(platform) = cpu.package.platform.clone() else {
        return Err(cpu.gp(0));
    };
    let regs = cpu.leaf_registers();
    let mut port = Port::new(cpu);
    match enclv::execute(&platform, &mut port, &regs) {
        Ok(outcome) => {
            port.written();
            cpu.apply_leaf(&outcome);
            Ok(())
        }
        Err(stop) => Err(port.stop(stop)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cloister_sgx::encls::leaf as encls;
    use cloister_sgx::enclv::leaf;
    use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags, Secs};
    use cloister_sgx::{
        AttributeFlags, Attributes, Capabilities, EpcIndex, PageType, Platform, PlatformConfig,
        PlatformIdentity, SgxFeatures,
    };
    use cloister_x86::regs::{Cr0, Rflags};
    use cloister_x86::segment::{Rights, seg};
    use cloister_x86::{Exception, Gpr, PageFaultCode};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use crate::exit::Exit;
    use crate::testing::{self, CODE, DATA, Ending, Guest, Start};

    const ENCLS: [u8; 3] = [0x0f, 0x01, 0xcf];
    const ENCLV: [u8; 3] = [0x0f, 0x01, 0xc0];
    const GP: Ending = Ending::Exception(Exception::gp(0));
    const UD: Ending = Ending::Exception(Exception::ud());

    /// Where the EPC is mapped.
    const EPC: u64 = 0x40_0000;

    fn platform(oversubscription: SgxFeatures) -> Arc<Platform> {
        let mut config = PlatformConfig::single(8, PlatformIdentity::from_seed(&[3; 32]));
        config.capabilities.features = Capabilities::default().features | oversubscription;
        Arc::new(Platform::new(config).expect("a valid platform"))
    }

    /// A guest with SGX enabled and its EPC mapped, about to execute ENCLV.
    fn guest_on(start: Start, oversubscription: SgxFeatures) -> Guest {
        let mut guest = Guest::on_platform(start, 1, Some(platform(oversubscription)));
        guest.load_code(&ENCLV);
        // A large page beyond the RAM that the page tables map.
        guest.write_u64(page_directory(&guest) + (EPC >> 21) * 8, testing::EPC | 0x87);
        guest.vcpu.cpu.ctl.sgx_enabled = true;
        guest
    }

    /// The directory that maps the first gigabyte in 64-bit mode.
    fn page_directory(guest: &Guest) -> u64 {
        let mut table = 0x1000;
        for _ in 0..2 {
            table = guest.read_u64(table) & !0xfff;
        }
        table
    }

    /// The same, whose VMM lets it execute every ENCLV leaf.
    fn guest(start: Start) -> Guest {
        let mut guest = guest_on(start, SgxFeatures::OVERSUB_ENCLV | SgxFeatures::OVERSUB_ENCLS);
        guest.vcpu.cpu.ctl.enclv_exiting = Some(0);
        guest
    }

    /// Executes one instruction, of which `ud2` is the next.
    fn run(guest: &mut Guest, code: &[u8], gpr: [(Gpr, u64); 4]) -> Ending {
        guest.load_code(code);
        let cpu = &mut guest.vcpu.cpu;
        cpu.arch.rip = CODE;
        for (register, value) in gpr {
            cpu.arch.gpr[register] = value;
        }
        guest.run()
    }

    /// Whether the instruction completed, as [`run`] sees it.
    fn completed(guest: &Guest, ending: Ending) -> bool {
        ending == UD && guest.vcpu.cpu.arch.rip == CODE + 3
    }

    /// What a change to a guest makes of ENCLV with EAX = `eax`; completion is `None`.
    fn changed(start: Start, eax: u64, change: impl FnOnce(&mut Guest)) -> Option<Ending> {
        let mut guest = guest(start);
        guest.vcpu.cpu.arch.gpr[Gpr::Rax] = eax;
        change(&mut guest);
        let ending = guest.run();
        (!completed(&guest, ending)).then_some(ending)
    }

    /// A condition that comes after those of #UD and of VM exits.
    fn disabled(guest: &mut Guest) {
        guest.vcpu.cpu.ctl.sgx_enabled = false;
    }

    #[test]
    fn enclv_is_ud_where_it_does_not_exist() {
        let real = changed(Start::Real16, 0, disabled);
        let compatibility = changed(Start::User32, 0, disabled);
        let user = changed(Start::User64, 0, disabled);
        let no_sgx = changed(Start::Kernel64, 0, |guest| {
            guest.vcpu.cpu.ctl.features.sgx = Capabilities::NONE;
        });
        let control = changed(Start::Kernel64, 0, |guest| {
            guest.vcpu.cpu.ctl.enclv_exiting = None;
            disabled(guest);
        });
        let v8086 = changed(Start::Kernel64, 0, |guest| {
            guest.vcpu.cpu.arch.system_flags |= Rflags::VM;
        });
        let mut unannounced = guest_on(Start::Kernel64, SgxFeatures::OVERSUB_ENCLS);
        unannounced.vcpu.cpu.ctl.enclv_exiting = Some(!0);

        assert_eq!([real, compatibility, user, no_sgx, control, v8086], [Some(UD); 6]);
        assert_eq!((unannounced.run(), unannounced.vcpu.cpu.arch.rip), (UD, CODE));
    }

    #[test]
    fn enclv_without_sgx_at_all_is_ud() {
        let mut guest = Guest::new(Start::Kernel64);
        guest.load_code(&ENCLV);

        assert_eq!((guest.run(), guest.vcpu.cpu.arch.rip), (UD, CODE));
    }

    #[test]
    fn prefixes_make_enclv_invalid() {
        for prefix in [0xf0, 0x66, 0xf2, 0xf3] {
            let mut guest = guest(Start::Kernel64);
            guest.load_code(&[prefix, 0x0f, 0x01, 0xc0]);

            assert_eq!((guest.run(), guest.vcpu.cpu.arch.rip), (UD, CODE), "{prefix:#x}");
        }
    }

    #[test]
    fn the_bitmap_selects_leaves_that_exit_before_anything_faults() {
        let exits = |eax: u64, bitmap: u64| {
            changed(Start::Kernel64, eax, |guest| {
                guest.vcpu.cpu.ctl.enclv_exiting = Some(bitmap);
                disabled(guest);
            })
        };
        let exit = |leaf| Some(Ending::Exit(Exit::Enclv { leaf }));

        assert_eq!(exits(1, 1 << 1), exit(1));
        assert_eq!(exits(1, !(1 << 1)), Some(GP));
        assert_eq!(exits(62, 1 << 62), exit(62));
        assert_eq!(exits(63, 1 << 63), exit(63));
        assert_eq!(exits(0xffff_ffff_1234_5678, 1 << 63), exit(0x1234_5678));
        assert_eq!(exits(0x8000_0000, !(1 << 63)), Some(GP));
    }

    #[test]
    fn enclv_faults_while_sgx_is_off_or_the_leaf_is_unknown() {
        assert_eq!(changed(Start::Kernel64, 0, disabled), Some(GP), "IA32_FEATURE_CONTROL");
        assert_eq!(changed(Start::Kernel64, 3, |_| {}), Some(GP), "no leaf");
        assert_eq!(changed(Start::Flat32, 0, |_| {}), Some(GP), "CR0.PG = 0");
        let paged = |rights: u32| {
            changed(Start::Flat32, 0, |guest| {
                let directory = page_directory(guest);
                let cpu = &mut guest.vcpu.cpu;
                cpu.arch.pdptes[0] = directory | 1;
                cpu.arch.cr0 |= Cr0::PG;
                cpu.arch.segs[seg::DS].rights = Rights(rights);
                cpu.arch.gpr[Gpr::Rbx] = EPC;
                cpu.arch.gpr[Gpr::Rcx] = EPC;
                cpu.run.tlb.flush_all();
            })
        };
        let code = PageFaultCode::PRESENT | PageFaultCode::WRITE | PageFaultCode::SGX;
        let unused_page = Ending::Exception(Exception::pf(EPC, code));
        assert_eq!(paged(0xc093), Some(unused_page), "as far as the leaf");
        assert_eq!(paged(0xc097), Some(GP), "DS expands down");
    }

    /// ECREATE of an SECS in the first EPC page.
    fn create_secs(guest: &mut Guest) {
        let mut secs = Secs::new_zeroed();
        secs.size = 0x10000.into();
        secs.ssaframesize = 1.into();
        secs.attributes = Attributes::new(AttributeFlags::MODE64BIT, 3);
        let secinfo = SecInfo::new(SecInfoFlags::empty(), PageType::Secs);
        let pageinfo = PageInfo {
            srcpge: (DATA + 0x1000).into(),
            secinfo: (DATA + 0x40).into(),
            ..PageInfo::default()
        };
        guest.write(DATA, pageinfo.as_bytes());
        guest.write(DATA + 0x40, secinfo.as_bytes());
        guest.write(DATA + 0x1000, secs.as_bytes());
        let gpr =
            [(Gpr::Rax, encls::ECREATE.into()), (Gpr::Rbx, DATA), (Gpr::Rcx, EPC), (Gpr::Rdx, 0)];
        let created = run(guest, &ENCLS, gpr);
        assert!(completed(guest, created), "{created:?}");
    }

    #[test]
    fn the_leaves_work_on_an_secs_and_return_in_rax_and_zf() {
        let mut guest = guest(Start::Kernel64);
        create_secs(&mut guest);
        let leaf = |guest: &mut Guest, number: u32| {
            guest.vcpu.cpu.arch.flags.set_bits(0x8d5);
            let ending = run(
                guest,
                &ENCLV,
                [(Gpr::Rax, number.into()), (Gpr::Rbx, EPC), (Gpr::Rcx, EPC), (Gpr::Rdx, DATA)],
            );
            assert!(completed(guest, ending), "{ending:?}");
            (guest.vcpu.cpu.arch.gpr[Gpr::Rax], guest.vcpu.cpu.arch.flags.bits())
        };

        let underflow = leaf(&mut guest, leaf::EDECVIRTCHILD);
        let increment = leaf(&mut guest, leaf::EINCVIRTCHILD);
        let context = leaf(&mut guest, leaf::ESETCONTEXT);

        assert_eq!(underflow, (25, 0x40), "SGX_INVALID_COUNTER");
        assert_eq!((increment, context), ((0, 0), (0, 0)));
    }

    #[test]
    fn epc_virtualization_keeps_an_secs_with_virtual_children() {
        let mut guest = guest(Start::Kernel64);
        create_secs(&mut guest);
        let increment = [
            (Gpr::Rax, leaf::EINCVIRTCHILD.into()),
            (Gpr::Rbx, EPC),
            (Gpr::Rcx, EPC),
            (Gpr::Rdx, 0),
        ];
        let counted = run(&mut guest, &ENCLV, increment);
        assert!(completed(&guest, counted));
        let mut remove = |virtualized: bool| {
            guest.vcpu.cpu.ctl.epc_virtualization = virtualized;
            run(
                &mut guest,
                &ENCLS,
                [(Gpr::Rax, encls::EREMOVE.into()), (Gpr::Rbx, 0), (Gpr::Rcx, EPC), (Gpr::Rdx, 0)],
            );
            guest.vcpu.cpu.arch.gpr[Gpr::Rax]
        };

        let kept = remove(true);
        let removed = remove(false);

        let platform = guest.vcpu.cpu.package.platform.as_ref().expect("a platform");
        assert_eq!((kept, removed), (13, 0), "SGX_CHILD_PRESENT, then success");
        assert!(!platform.epcm(EpcIndex(0)).valid());
    }
}
