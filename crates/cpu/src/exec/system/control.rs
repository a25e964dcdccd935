//! Control registers: MOV to and from them, CLTS, LMSW, SMSW, XGETBV and XSETBV
//! (SDM Vol. 2; Vol. 3A, 2.5 and 2.6).

use cloister_x86::Gpr;
use cloister_x86::paging::PTE_ADDRESS;
use cloister_x86::regs::{Cr0, Cr4, Efer, Xfeatures};
use cloister_x86::segment::seg;
use cloister_x86::vmx::ExitReason;
use iced_x86::Register;

use super::descriptor::system_type;
use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::mem::ept::Purpose;
use crate::mem::world::Paging;
use crate::op::{Handler, LOCK, NO_MEMORY, Op};

rows! {
    Clts => always(clts).ends_block(),
    Lmsw => always(lmsw).ends_block(),
    Smsw => always(smsw).illegal_in_enclave(),
    Xgetbv => always(xgetbv),
    Xsetbv => always(xsetbv).ends_block(),
}

/// The handler of MOV to or from a control register. There are no others than these, and LOCK MOV
/// CR0 means CR8 on AMD's processors only.
pub(super) fn mov(to: Register, op: &Op) -> Option<Handler> {
    if op.prefix & LOCK != 0 {
        return None;
    }
    if !to.is_cr() {
        return matches!(op.src, 0 | 2 | 3 | 4 | 8).then_some(mov_from_cr);
    }
    match op.dst {
        0 => Some(mov_to_cr0),
        2 => Some(mov_to_cr2),
        3 => Some(mov_to_cr3),
        4 => Some(mov_to_cr4),
        8 => Some(mov_to_cr8),
        _ => None,
    }
}

/// CR4 bits of a processor without protection keys, CET, VMX, SMX and 5-level paging. VMXE is there with VMX.
pub(crate) const CR4_ALLOWED: Cr4 = Cr4::VME
    .union(Cr4::PVI)
    .union(Cr4::TSD)
    .union(Cr4::DE)
    .union(Cr4::PSE)
    .union(Cr4::PAE)
    .union(Cr4::MCE)
    .union(Cr4::PGE)
    .union(Cr4::PCE)
    .union(Cr4::OSFXSR)
    .union(Cr4::OSXMMEXCPT)
    .union(Cr4::UMIP)
    .union(Cr4::FSGSBASE)
    .union(Cr4::PCIDE)
    .union(Cr4::OSXSAVE)
    .union(Cr4::SMEP)
    .union(Cr4::SMAP);
/// CR4 bits that translations depend on.
const CR4_PAGING: Cr4 =
    Cr4::PSE.union(Cr4::PAE).union(Cr4::PGE).union(Cr4::PCIDE).union(Cr4::SMEP).union(Cr4::SMAP);
/// CR4 bits whose change reloads the PDPTEs (SDM Vol. 3A, 4.4.1).
const CR4_PDPTE: Cr4 = Cr4::PSE.union(Cr4::PAE).union(Cr4::PGE).union(Cr4::SMEP);
/// CR0 bits that translations, as the TLB keeps them, depend on.
const CR0_PAGING: Cr0 = Cr0::PG.union(Cr0::PE).union(Cr0::WP);
/// MOV to CR3 with PCIDs: do not drop the PCID's translations.
const CR3_NO_FLUSH: u64 = 1 << 63;
/// PCID in CR3.
const CR3_PCID: u64 = 0xfff;

impl Cpu {
    /// What translations depend on besides the paging structures.
    pub(crate) fn paging(&self) -> Paging {
        let arch = &self.arch;
        Paging {
            cr0: arch.cr0 & CR0_PAGING,
            cr3: arch.cr3,
            cr4: arch.cr4 & CR4_PAGING,
            efer: arch.efer & (Efer::LMA | Efer::NXE),
            pdptes: if self.pae_paging() { arch.pdptes } else { [0; 4] },
        }
    }

    /// PAE paging is in force: the PDPTE registers matter.
    #[must_use]
    pub(crate) fn pae_paging(&self) -> bool {
        self.arch.cr0.contains(Cr0::PG) && self.arch.cr4.contains(Cr4::PAE) && !self.long_mode()
    }

    /// Reads the four PDPTEs at `cr3` and checks their reserved bits (SDM Vol. 3A, 4.4.1).
    ///
    /// # Errors
    ///
    /// #GP(0).
    pub(crate) fn read_pdptes(&mut self, cr3: u64) -> Exec<[u64; 4]> {
        let table = match self.nested(cr3 & 0xffff_ffe0, Purpose::Pdptes) {
            Ok(table) => table.0,
            Err(exit) => return Err(self.vm_exit(exit)),
        };
        self.valid_pdptes(self.pdptes_at(table)).ok_or_else(|| self.gp(0))
    }

    /// The four PDPTEs at a physical address, of which the low 5 bits do not count.
    pub(crate) fn pdptes_at(&self, address: u64) -> [u64; 4] {
        let table = self.physical_page(address);
        std::array::from_fn(|n| table.read((address & 0xfe0) as usize + 8 * n))
    }

    /// PDPTEs of which no present one has a reserved bit set.
    pub(crate) fn valid_pdptes(&self, entries: [u64; 4]) -> Option<[u64; 4]> {
        let address = PTE_ADDRESS & ((1 << self.ctl.features.physical_bits) - 1);
        // P, PWT, PCD, the ignored bits 11:9 and the address.
        let allowed = 1 | 0x18 | 0xe00 | address;
        let valid = entries.iter().all(|entry| entry & 1 == 0 || entry & !allowed == 0);
        valid.then_some(entries)
    }

    /// Sets CR0 and IA32_EFER.LMA as MOV to CR0 does (SDM Vol. 3A, 2.5 and 9.8.5).
    ///
    /// # Errors
    ///
    /// #GP(0).
    pub(crate) fn write_cr0(&mut self, value: u64) -> Exec {
        if value >> 32 != 0 {
            return Err(self.gp(0));
        }
        // Reserved bits of the low half are ignored; ET is always one.
        let new = Cr0::from_bits_truncate(value) | Cr0::ET;
        let old = self.arch.cr0;
        if (new.contains(Cr0::PG) && !new.contains(Cr0::PE))
            || (new.contains(Cr0::NW) && !new.contains(Cr0::CD))
            || !self.vmx_allows_cr0(new)
        {
            return Err(self.gp(0));
        }
        let cs_long = self.arch.segs[seg::CS].rights.long();
        let mut efer = self.arch.efer;
        let mut pdptes = self.arch.pdptes;
        if new.contains(Cr0::PG) && !old.contains(Cr0::PG) {
            if efer.contains(Efer::LME) {
                let tss = self.arch.segs[seg::TR].rights.0 & 0x1f;
                let tss16 = matches!(tss, system_type::TSS16_AVAILABLE | system_type::TSS16_BUSY)
                    && !self.arch.segs[seg::TR].rights.unusable();
                if !self.arch.cr4.contains(Cr4::PAE) || cs_long || tss16 {
                    return Err(self.gp(0));
                }
                efer |= Efer::LMA;
            } else if self.arch.cr4.contains(Cr4::PAE) {
                pdptes = self.read_pdptes(self.arch.cr3)?;
            }
        }
        if !new.contains(Cr0::PG) && old.contains(Cr0::PG) {
            if self.arch.cr4.contains(Cr4::PCIDE) || (self.long_mode() && cs_long) {
                return Err(self.gp(0));
            }
            efer.remove(Efer::LMA);
        }
        self.arch.cr0 = new;
        self.arch.efer = efer;
        self.arch.pdptes = pdptes;
        if (old ^ new).intersects(CR0_PAGING) {
            self.run.tlb.flush_all();
        }
        self.update_mode();
        Ok(())
    }

    /// Sets CR3 as MOV to CR3 does.
    ///
    /// # Errors
    ///
    /// #GP(0) for reserved bits, here or in the PDPTEs.
    pub(crate) fn write_cr3(&mut self, value: u64) -> Exec {
        if !self.long_mode() {
            if self.pae_paging() {
                self.arch.pdptes = self.read_pdptes(value)?;
            }
            self.arch.cr3 = value & 0xffff_ffff;
            self.run.tlb.switch_to_flushed(0);
            return Ok(());
        }
        let pcide = self.arch.cr4.contains(Cr4::PCIDE);
        let keep = pcide && value & CR3_NO_FLUSH != 0;
        let value = if pcide { value & !CR3_NO_FLUSH } else { value };
        if value >> self.ctl.features.physical_bits != 0 {
            return Err(self.gp(0));
        }
        self.arch.cr3 = value;
        let pcid = if pcide { (value & CR3_PCID) as u16 } else { 0 };
        if keep {
            self.run.tlb.switch_to(pcid);
        } else {
            self.run.tlb.switch_to_flushed(pcid);
        }
        Ok(())
    }

    /// Sets CR4 as MOV to CR4 does.
    ///
    /// # Errors
    ///
    /// #GP(0).
    pub(crate) fn write_cr4(&mut self, value: u64) -> Exec {
        let vmx = if self.ctl.features.vmx { Cr4::VMXE } else { Cr4::empty() };
        let allowed = CR4_ALLOWED | vmx;
        let Some(new) =
            Cr4::from_bits(value).filter(|new| allowed.contains(*new) && self.vmx_allows_cr4(*new))
        else {
            return Err(self.gp(0));
        };
        let old = self.arch.cr4;
        let changed = old ^ new;
        if self.long_mode() && !new.contains(Cr4::PAE) {
            return Err(self.gp(0));
        }
        if changed.contains(Cr4::PCIDE)
            && new.contains(Cr4::PCIDE)
            && (!self.long_mode() || self.arch.cr3 & CR3_PCID != 0)
        {
            return Err(self.gp(0));
        }
        if self.arch.cr0.contains(Cr0::PG)
            && !self.long_mode()
            && new.contains(Cr4::PAE)
            && changed.intersects(CR4_PDPTE)
        {
            self.arch.pdptes = self.read_pdptes(self.arch.cr3)?;
        }
        self.arch.cr4 = new;
        if changed.intersects(CR4_PAGING) {
            self.run.tlb.flush_all();
            if changed.contains(Cr4::PCIDE) {
                // Without PCIDs all translations are of PCID 0.
                let pcid = if new.contains(Cr4::PCIDE) { self.arch.cr3 & CR3_PCID } else { 0 };
                self.run.tlb.switch_to_flushed(pcid as u16);
            }
        }
        Ok(())
    }
}

/// The value of a register operand as wide as the mode.
fn wide_source(cpu: &Cpu, number: u8) -> u64 {
    let value = cpu.reg::<u64>(number, false);
    if cpu.run.mode.is_64() { value } else { value & 0xffff_ffff }
}

extern "C" fn mov_to_cr0(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let value = cpu.intercept_cr0(op, wide_source(cpu, op.src))?;
    cpu.write_cr0(value)
}

extern "C" fn mov_to_cr2(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    cpu.arch.cr2 = wide_source(cpu, op.src);
    Ok(())
}

extern "C" fn mov_to_cr3(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let value = wide_source(cpu, op.src);
    cpu.intercept_cr3(op, value)?;
    cpu.write_cr3(value)
}

extern "C" fn mov_to_cr4(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let value = cpu.intercept_cr4(op, wide_source(cpu, op.src))?;
    cpu.write_cr4(value)
}

extern "C" fn mov_to_cr8(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let value = wide_source(cpu, op.src);
    if value > 0xf {
        return Err(cpu.gp(0));
    }
    if cpu.intercept_cr8(op, value)? {
        return Ok(());
    }
    cpu.set_task_priority((value as u8) << 4);
    Ok(())
}

extern "C" fn mov_from_cr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let shadowed = cpu.intercept_cr_read(op, op.src)?;
    let value = match op.src {
        0 => cpu.visible_cr0(),
        2 => cpu.arch.cr2,
        3 => cpu.arch.cr3,
        4 => cpu.visible_cr4(),
        _ if let Some(value) = shadowed => value,
        _ => u64::from(cpu.apic.task_priority() >> 4),
    };
    let value = if cpu.run.mode.is_64() { value } else { value & 0xffff_ffff };
    cpu.set_dst(op, value);
    Ok(())
}

extern "C" fn clts(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    if cpu.intercept_clts(op)? {
        cpu.arch.cr0.remove(Cr0::TS);
    }
    Ok(())
}

extern "C" fn lmsw(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let source: u16 = if op.mem_operand == NO_MEMORY { cpu.dst(op) } else { cpu.load_operand(op)? };
    let source = cpu.intercept_lmsw(op, source)?;
    let loaded = Cr0::MP | Cr0::EM | Cr0::TS;
    let source = Cr0::from_bits_truncate(u64::from(source));
    // LMSW can set PE but not clear it.
    let new = (cpu.arch.cr0 - loaded) | (source & (loaded | Cr0::PE));
    cpu.write_cr0(new.bits())
}

extern "C" fn smsw(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_umip()?;
    let value = cpu.visible_cr0();
    if op.mem_operand != NO_MEMORY {
        return cpu.store_operand(op, value as u16);
    }
    match op.size {
        2 => cpu.set_dst(op, value as u16),
        _ => cpu.set_dst(op, value),
    }
    Ok(())
}

fn require_osxsave(cpu: &mut Cpu) -> Exec {
    if cpu.arch.cr4.contains(Cr4::OSXSAVE) { Ok(()) } else { Err(cpu.ud()) }
}

extern "C" fn xgetbv(cpu: &mut Cpu, _op: &Op) -> Exec {
    require_osxsave(cpu)?;
    let value = match cpu.arch.gpr[Gpr::Rcx] as u32 {
        0 => cpu.arch.xcr0,
        1 => cpu.arch.xcr0 & cpu.xinuse(),
        _ => return Err(cpu.gp(0)),
    };
    let value = value.bits();
    cpu.arch.gpr[Gpr::Rax] = value & 0xffff_ffff;
    cpu.arch.gpr[Gpr::Rdx] = value >> 32;
    Ok(())
}

extern "C" fn xsetbv(cpu: &mut Cpu, op: &Op) -> Exec {
    require_osxsave(cpu)?;
    cpu.require_cpl0()?;
    cpu.intercept_always(op, ExitReason::Xsetbv)?;
    let value = cpu.arch.gpr[Gpr::Rax] & 0xffff_ffff | cpu.arch.gpr[Gpr::Rdx] << 32;
    let valid = Xfeatures::from_bits(value).filter(|value| {
        cpu.ctl.features.xcr0.contains(*value)
            && value.contains(Xfeatures::X87)
            && (value.contains(Xfeatures::SSE) || !value.contains(Xfeatures::AVX))
    });
    match valid {
        Some(value) if cpu.arch.gpr[Gpr::Rcx] as u32 == 0 => {
            cpu.arch.xcr0 = value;
            Ok(())
        }
        _ => Err(cpu.gp(0)),
    }
}
