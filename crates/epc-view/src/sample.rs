//! A report for the tests of its renderers.

use super::report::{
    AccountReport, EnclavePages, EnclaveReport, EnclsExitsReport, EpcReport, OwnedCells, PageMap,
    PagesReport, PoolReport, SectionReport, VERSION,
};

/// Two sections, an enclave that runs and one that is being built.
pub(super) fn report() -> EpcReport {
    let built = EnclaveReport {
        secs: 0x1_0000_0000,
        section: "epc0".to_owned(),
        eid: 1,
        initialized: true,
        mrenclave: Some("ab".repeat(32)),
        mrsigner: Some("cd".repeat(32)),
        isv_prod_id: Some(1),
        isv_svn: Some(2),
        base: 0x7f12_3450_0000,
        size: 0x4_0000,
        attributes: 7,
        xfrm: 3,
        miscselect: 1,
        debug: true,
        threads_inside: 4,
        children: 42,
        virtual_children: 0,
        blocked: 16,
        pages: vec![EnclavePages { section: "epc0".to_owned(), count: 43 }],
    };
    let building = EnclaveReport {
        secs: 0x1_0000_1000,
        eid: 2,
        initialized: false,
        mrenclave: None,
        mrsigner: None,
        isv_prod_id: None,
        isv_svn: None,
        size: 64 << 30,
        attributes: 4,
        debug: false,
        threads_inside: 0,
        children: 0,
        blocked: 0,
        pages: vec![EnclavePages { section: "epc0".to_owned(), count: 1 }],
        ..built.clone()
    };
    let pages = PagesReport {
        total: 16384,
        backed: 1200,
        valid: 1100,
        secs: 2,
        tcs: 4,
        reg: 1089,
        va: 5,
        blocked: 16,
        ..PagesReport::default()
    };
    let cells = format!(
        "SS{}{}{}{}{}",
        "TRRRRRRRRR".repeat(4),
        "B".repeat(16),
        "R".repeat(1037),
        "VVVVV",
        "-".repeat(100)
    );
    let first = SectionReport {
        id: "epc0".to_owned(),
        base: 0x1_0000_0000,
        size: 64 << 20,
        host_node: 0,
        pages,
        faults: 1200,
        page_map: Some(PageMap {
            pages_per_cell: 1,
            cells: format!("{cells:.<16384}"),
            owners: vec![
                OwnedCells { enclave: 0, first: 0, count: 1 },
                OwnedCells { enclave: 1, first: 1, count: 1 },
                OwnedCells { enclave: 0, first: 2, count: 40 + 16 + 1037 },
            ],
        }),
    };
    let second = SectionReport {
        id: "epc1".to_owned(),
        base: 0x1_0400_0000,
        pages: PagesReport { total: 16384, backed: 34, ..PagesReport::default() },
        faults: 34,
        page_map: Some(PageMap {
            pages_per_cell: 1,
            cells: format!("{:.<16384}", "-".repeat(34)),
            owners: Vec::new(),
        }),
        ..first.clone()
    };
    EpcReport {
        version: VERSION,
        name: "guest".to_owned(),
        pool: PoolReport { total: 32768, used: 1300, reserved: 0, zombies: 1, leaked: 2 },
        account: AccountReport {
            used: 1234,
            zombies: 1,
            leaked: 2,
            refused: 3,
            reservation: 0,
            quota: None,
        },
        encls_exits: EnclsExitsReport { ecreate: 5, einit: 6, others: 7 },
        faults: 1234,
        sections: vec![first, second],
        enclaves: vec![built, building],
        enclaves_unlisted: 0,
    }
}
