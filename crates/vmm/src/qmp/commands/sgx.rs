//! Commands about SGX. QEMU's answers say that there is everything; these are read from what the guest
//! reads, its CPUID.

use cloister_sgx::{Capabilities, SgxFeatures};
use cloister_x86::PAGE_SIZE;
use cloister_x86::cpuid::{
    CpuidResult, FEATURE_7_EBX_SGX, FEATURE_7_ECX_SGX_LC, LEAF_EXTENDED_FEATURES, LEAF_SGX,
};
use serde::Serialize;

use super::{Outcome, give};
use crate::accel::GuestSgx;
use crate::config::EpcConfig;
use crate::qmp::context::Context;
use crate::qmp::request::Arguments;

/// Subleaf of leaf 12H that tells of the first section (SDM Vol. 3D, 34.7.2).
const FIRST_SECTION: u32 = 2;
/// Bits 3:0 of EAX in the subleaf of a section.
const SECTION_VALID: u32 = 1;
const SECTION_TYPE: u32 = 0xf;

/// `SgxInfo`. QEMU has no `cpuid`.
#[derive(Serialize)]
struct SgxInfo {
    sgx: bool,
    sgx1: bool,
    sgx2: bool,
    /// Flexible launch control: the guest can write the hash MSRs.
    flc: bool,
    sections: Vec<SgxEpcSection>,
    /// The leaves that the rest is read from, as an instruction in the guest gets them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpuid: Vec<CpuidLeaf>,
}

/// `SgxEpcSection`. QEMU has no `id`.
#[derive(Serialize)]
struct SgxEpcSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    node: u32,
    size: u64,
}

#[derive(Serialize)]
struct CpuidLeaf {
    leaf: u32,
    subleaf: u32,
    eax: u32,
    ebx: u32,
    ecx: u32,
    edx: u32,
}

/// `query-sgx`: the SGX of the guest.
pub(super) fn query_sgx(context: &Context, _: &Arguments) -> Outcome {
    let mut cpuid = Vec::new();
    let mut query = |leaf, subleaf| {
        let result = context.cpuid.query_at_reset(leaf, subleaf);
        let CpuidResult { eax, ebx, ecx, edx } = result;
        cpuid.push(CpuidLeaf { leaf, subleaf, eax, ebx, ecx, edx });
        result
    };
    let features = query(LEAF_EXTENDED_FEATURES, 0);
    let sgx = features.ebx & FEATURE_7_EBX_SGX != 0;
    let leaves = if sgx { query(LEAF_SGX, 0).eax } else { 0 };
    let mut sections = Vec::new();
    if sgx {
        query(LEAF_SGX, 1);
        for subleaf in FIRST_SECTION.. {
            let result = query(LEAF_SGX, subleaf);
            if result.eax & SECTION_TYPE != SECTION_VALID {
                break;
            }
            sections.push(section(result, context.config.epc.get(sections.len())));
        }
    }
    let has = |feature: SgxFeatures| leaves & feature.bits() != 0;
    give(SgxInfo {
        sgx,
        sgx1: has(SgxFeatures::SGX1),
        sgx2: has(SgxFeatures::SGX2),
        flc: features.ecx & FEATURE_7_ECX_SGX_LC != 0,
        sections,
        cpuid,
    })
}

/// A section from its subleaf: the size is in ECX 31:12 and EDX 19:0.
fn section(leaf: CpuidResult, config: Option<&EpcConfig>) -> SgxEpcSection {
    SgxEpcSection {
        id: config.map(|config| config.id.clone()),
        node: config.map_or(0, |config| config.node),
        size: u64::from(leaf.edx & 0xf_ffff) << 32 | u64::from(leaf.ecx & !0xfff),
    }
}

/// `query-sgx-capabilities`: what the platform under the machine can do. Without EPC there is none,
/// and the answer is what a machine with EPC gets.
pub(super) fn query_sgx_capabilities(context: &Context, _: &Arguments) -> Outcome {
    let possible = Capabilities::default();
    let (features, flc, sections) = match &context.sgx {
        Some(GuestSgx::Soft(sgx)) => {
            let nodes = sgx.account().pool().nodes().into_iter().map(|node| SgxEpcSection {
                id: None,
                node: node.node,
                size: node.total as u64 * PAGE_SIZE,
            });
            let platform = sgx.platform();
            (platform.capabilities().features, platform.le_hash_writable(), nodes.collect())
        }
        // The kernel tells nobody where the EPC of its nodes is.
        Some(GuestSgx::Host(sgx)) => (sgx.host().features, sgx.cpuid().launch_control, Vec::new()),
        None => (possible.features, true, Vec::new()),
    };
    give(SgxInfo {
        sgx: true,
        sgx1: features.contains(SgxFeatures::SGX1),
        sgx2: features.contains(SgxFeatures::SGX2),
        flc,
        sections,
        cpuid: Vec::new(),
    })
}
