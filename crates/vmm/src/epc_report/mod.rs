//! The report on the EPC of a machine, which an operator may ask for at any time.

mod page_map;

use std::collections::HashMap;
use std::sync::Arc;

use cloister_epc_view::{
    AccountReport, EnclavePages, EnclaveReport, EnclsExitsReport, EpcReport, PageMap, PagesReport,
    PoolReport, SectionReport, VERSION,
};
use cloister_sgx::{AttributeFlags, EpcIndex};
use cloister_virt::{EnclaveCensus, PageCounts, SectionCensus, SgxVm, VirtualEpc};

use crate::platform_dir::hex;
use page_map::Mapper;

/// What reports on the EPC of a machine are made from. A clone sees the same machine.
#[derive(Clone, Debug)]
pub struct EpcView {
    name: String,
    sgx: Option<(Arc<SgxVm>, Vec<String>)>,
}

impl EpcView {
    /// The view of the machine `name`, which has no SGX.
    #[must_use]
    pub fn without_sgx(name: impl Into<String>) -> Self {
        Self { name: name.into(), sgx: None }
    }

    /// The view of the machine `name`, whose sections have these ids, in their order.
    ///
    /// # Panics
    /// If there are not as many ids as sections.
    #[must_use]
    pub fn new(name: impl Into<String>, sgx: Arc<SgxVm>, ids: Vec<String>) -> Self {
        assert_eq!(ids.len(), sgx.sections().len(), "each section has an id");
        Self { name: name.into(), sgx: Some((sgx, ids)) }
    }

    /// How things are now. The machine goes on meanwhile; see [`SgxVm::census`]. It takes as long
    /// as there are backed pages, and its size is bounded whatever the guest does.
    #[must_use]
    pub fn report(&self, page_map: bool) -> EpcReport {
        let Some((sgx, ids)) = &self.sgx else {
            return EpcReport {
                version: VERSION,
                name: self.name.clone(),
                pool: PoolReport::default(),
                account: AccountReport::default(),
                encls_exits: EnclsExitsReport::default(),
                faults: 0,
                sections: Vec::new(),
                enclaves: Vec::new(),
                enclaves_unlisted: 0,
            };
        };
        let mut maps: Vec<Mapper> = if page_map {
            sgx.sections().iter().map(|section| Mapper::new(section.pages())).collect()
        } else {
            Vec::new()
        };
        let census = sgx.census(|section, number, page| {
            if let Some(map) = maps.get_mut(section) {
                map.add(number, page);
            }
        });
        let numbers: HashMap<EpcIndex, u64> =
            census.enclaves.iter().map(|enclave| enclave.secs).zip(0..).collect();
        let mut maps = maps.into_iter().map(|map| map.finish(&numbers));
        let sections = sgx.sections().iter().zip(&census.sections).zip(ids);
        let sections: Vec<SectionReport> = sections
            .map(|((section, counts), id)| section_report(section, counts, id, maps.next()))
            .collect();
        EpcReport {
            version: VERSION,
            name: self.name.clone(),
            pool: pool(sgx),
            account: account(sgx),
            encls_exits: encls_exits(sgx),
            faults: census.sections.iter().map(|section| section.faults).sum(),
            sections,
            enclaves: census.enclaves.iter().map(|enclave| enclave_report(enclave, ids)).collect(),
            enclaves_unlisted: census.unlisted as u64,
        }
    }
}

fn pool(sgx: &SgxVm) -> PoolReport {
    let counts = sgx.account().pool().statistics();
    PoolReport {
        total: counts.total as u64,
        used: counts.used as u64,
        reserved: counts.reserved as u64,
        zombies: counts.zombies as u64,
        leaked: counts.leaked as u64,
    }
}

fn account(sgx: &SgxVm) -> AccountReport {
    let (counts, limits) = (sgx.account().statistics(), sgx.account().limits());
    AccountReport {
        used: counts.used as u64,
        zombies: counts.zombies as u64,
        leaked: counts.leaked as u64,
        refused: counts.refused,
        reservation: limits.reservation as u64,
        quota: (limits.quota != usize::MAX).then_some(limits.quota as u64),
    }
}

fn encls_exits(sgx: &SgxVm) -> EnclsExitsReport {
    let exits = sgx.encls_exits();
    EnclsExitsReport { ecreate: exits.ecreate, einit: exits.einit, others: exits.others }
}

fn section_report(
    section: &VirtualEpc,
    census: &SectionCensus,
    id: &str,
    page_map: Option<PageMap>,
) -> SectionReport {
    let PageCounts {
        valid,
        secs,
        tcs,
        reg,
        va,
        trim,
        ss_first,
        ss_rest,
        blocked,
        pending,
        modified,
        restricted,
    } = census.pages;
    SectionReport {
        id: id.to_owned(),
        base: section.base().0,
        size: section.size(),
        host_node: section.node().into(),
        pages: PagesReport {
            total: census.total as u64,
            backed: census.backed as u64,
            valid: valid as u64,
            secs: secs as u64,
            tcs: tcs as u64,
            reg: reg as u64,
            va: va as u64,
            trim: trim as u64,
            ss_first: ss_first as u64,
            ss_rest: ss_rest as u64,
            blocked: blocked as u64,
            pending: pending as u64,
            modified: modified as u64,
            restricted: restricted as u64,
        },
        faults: census.faults,
        page_map,
    }
}

fn enclave_report(enclave: &EnclaveCensus, ids: &[String]) -> EnclaveReport {
    let view = &enclave.view;
    let identity = view.identity.as_ref();
    let pages = enclave.pages.iter().zip(ids).filter(|&(&count, _)| count != 0);
    EnclaveReport {
        secs: enclave.gpa.0,
        section: ids[enclave.section].clone(),
        eid: view.eid,
        initialized: view.attributes.has(AttributeFlags::INIT),
        mrenclave: identity.map(|identity| hex(&identity.mrenclave)),
        mrsigner: identity.map(|identity| hex(&identity.mrsigner)),
        isv_prod_id: identity.map(|identity| identity.isvprodid),
        isv_svn: identity.map(|identity| identity.isvsvn),
        base: view.base,
        size: view.size,
        attributes: view.attributes.flags.get(),
        xfrm: view.attributes.xfrm.get(),
        miscselect: view.miscselect,
        debug: view.attributes.has(AttributeFlags::DEBUG),
        threads_inside: view.threads_inside.into(),
        children: view.children.into(),
        virtual_children: view.virtual_children,
        blocked: enclave.counts.blocked as u64,
        pages: pages
            .map(|(&count, id)| EnclavePages { section: id.clone(), count: count as u64 })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use cloister_sgx::encls::{self, leaf};
    use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags, Secs};
    use cloister_sgx::{
        Attributes, Capabilities, EnclsRegs, EpcAccess, LeafPort, PageType, Platform,
        PlatformConfig, PlatformIdentity, Stop,
    };
    use cloister_virt::{EpcPool, SectionConfig, SgxCpuid};
    use cloister_x86::{Gpa, La, PAGE_SIZE};
    use serde_json::{Value, json};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    const BASE: u64 = 1 << 32;

    /// A machine with sections of these sizes, which follow each other, on a host of 64 pages.
    fn machine(sizes: &[u64]) -> Arc<SgxVm> {
        let config = PlatformConfig::single(64, PlatformIdentity::from_seed(&[1; 32]));
        let cpuid = SgxCpuid::all_of(&config.capabilities, None);
        let pool = EpcPool::new(Arc::new(Platform::new(config).unwrap()));
        let mut base = BASE;
        let sections: Vec<SectionConfig> = sizes
            .iter()
            .map(|&size| {
                let section = SectionConfig { base: Gpa(base), size, node: 0, preallocate: false };
                base += size;
                section
            })
            .collect();
        Arc::new(SgxVm::new(pool.unlimited("web-7"), &sections, cpuid).unwrap())
    }

    fn touch(sgx: &SgxVm, gpa: u64) -> EpcIndex {
        sgx.populate(Gpa(gpa)).unwrap().unwrap()
    }

    /// Where a processor finds the operands of ECREATE.
    const PAGEINFO: u64 = 0x1000;
    const SECINFO: u64 = 0x2000;
    const SOURCE: u64 = 0x3000;

    /// A processor that sees those operands, and virtual EPC, at their own addresses.
    struct Processor<'a> {
        sgx: &'a SgxVm,
        secs: Secs,
    }

    impl LeafPort for Processor<'_> {
        fn linear(&mut self, ea: u64, _: u64) -> Result<La, Stop> {
            Ok(La(ea))
        }

        fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop> {
            let pageinfo =
                PageInfo { srcpge: SOURCE.into(), secinfo: SECINFO.into(), ..PageInfo::default() };
            let secinfo = SecInfo::new(SecInfoFlags::empty(), PageType::Secs);
            buf.copy_from_slice(match la.0 {
                PAGEINFO => pageinfo.as_bytes(),
                SECINFO => secinfo.as_bytes(),
                _ => self.secs.as_bytes(),
            });
            Ok(())
        }

        fn write(&mut self, _: La, _: &[u8]) -> Result<(), Stop> {
            Ok(())
        }

        fn resolve_epc(&mut self, la: La, _: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
            Ok(Some(touch(self.sgx, la.0)))
        }

        fn event_pending(&mut self) -> bool {
            false
        }

        fn capabilities(&self) -> Capabilities {
            *self.sgx.platform().capabilities()
        }

        fn le_pubkey_hash(&self) -> [u8; 32] {
            *self.sgx.platform().default_le_hash()
        }
    }

    /// ECREATE of a 64-bit enclave of 64 KiB in the page at `gpa`.
    fn create(sgx: &SgxVm, gpa: u64) {
        let mut secs = Secs::new_zeroed();
        secs.size = 0x1_0000.into();
        secs.baseaddr = 0x7f00_0000_0000.into();
        secs.ssaframesize = 1.into();
        secs.attributes = Attributes::new(AttributeFlags::MODE64BIT | AttributeFlags::DEBUG, 3);
        let regs = EnclsRegs { eax: leaf::ECREATE, rbx: PAGEINFO, rcx: gpa, rdx: 0, mode64: true };
        encls::execute(sgx.platform(), &mut Processor { sgx, secs }, &regs).unwrap();
    }

    fn json(view: &EpcView, page_map: bool) -> Value {
        serde_json::to_value(view.report(page_map)).unwrap()
    }

    #[test]
    fn a_report_has_the_documented_form() {
        let sgx = machine(&[4 * PAGE_SIZE, 8 * PAGE_SIZE]);
        touch(&sgx, BASE + 4 * PAGE_SIZE);
        create(&sgx, BASE + PAGE_SIZE);
        let view = EpcView::new("web-7", sgx, vec!["epc0".into(), "epc1".into()]);

        let report = json(&view, true);

        let pages = |total: u64, secs: u64| {
            json!({
                "total": total, "backed": 1, "valid": secs, "secs": secs, "tcs": 0, "reg": 0,
                "va": 0, "trim": 0, "ss-first": 0, "ss-rest": 0, "blocked": 0, "pending": 0,
                "modified": 0, "restricted": 0
            })
        };
        let expected = json!({
            "version": 1,
            "name": "web-7",
            "pool": { "total": 64, "used": 2, "reserved": 0, "zombies": 0, "leaked": 0 },
            "account": { "used": 2, "zombies": 0, "leaked": 0, "refused": 0, "reservation": 0 },
            "encls-exits": { "ecreate": 0, "einit": 0, "others": 0 },
            "faults": 2,
            "sections": [
                {
                    "id": "epc0", "base": BASE, "size": 0x4000, "host-node": 0, "pages": pages(4, 1),
                    "faults": 1, "page-map": {
                        "pages-per-cell": 1, "cells": ".S..",
                        "owners": [{ "enclave": 0, "first": 1, "count": 1 }]
                    }
                },
                {
                    "id": "epc1", "base": BASE + 0x4000, "size": 0x8000, "host-node": 0,
                    "pages": pages(8, 0), "faults": 1,
                    "page-map": { "pages-per-cell": 1, "cells": "-......." }
                }
            ],
            "enclaves": [{
                "secs": BASE + 0x1000, "section": "epc0", "eid": 1, "initialized": false,
                "base": 0x7f00_0000_0000_u64, "size": 0x1_0000, "attributes": 6, "xfrm": 3,
                "miscselect": 0, "debug": true, "threads-inside": 0, "children": 0,
                "virtual-children": 0, "blocked": 0,
                "pages": [{ "section": "epc0", "count": 1 }]
            }],
            "enclaves-unlisted": 0
        });
        assert_eq!(report, expected);
        assert_eq!(serde_json::from_value::<EpcReport>(report).unwrap(), view.report(true));
    }

    #[test]
    fn page_maps_come_only_when_they_are_wanted() {
        let view = EpcView::new("vm", machine(&[PAGE_SIZE]), vec!["epc0".into()]);

        assert_eq!(json(&view, false)["sections"][0].get("page-map"), None);
        assert_eq!(json(&view, true)["sections"][0]["page-map"]["cells"], ".");
    }

    #[test]
    fn a_machine_without_sgx_has_an_empty_report() {
        let report = json(&EpcView::without_sgx("vm"), true);

        assert_eq!((&report["name"], &report["sections"]), (&json!("vm"), &json!([])));
        assert_eq!(report["enclaves"], json!([]));
    }

    #[test]
    fn a_report_of_512_gib_is_small_and_quick() {
        let sgx = machine(&[512 << 30]);
        create(&sgx, BASE + (511 << 30));
        let view = EpcView::new("vm", sgx, vec!["epc0".into()]);
        let start = std::time::Instant::now();

        let report = view.report(true);

        assert!(start.elapsed() < std::time::Duration::from_secs(5));
        let map = report.sections[0].page_map.as_ref().unwrap();
        assert_eq!((map.pages_per_cell, map.cells.len()), (8192, 1 << 14));
        assert_eq!(map.cells.matches('S').count(), 1);
        assert!(serde_json::to_string(&report).unwrap().len() < 20_000);
    }
}
