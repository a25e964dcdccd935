//! What a leaf that exited is carried out through: the guest's processor, under the guest's policy.

use cloister_sgx::{Capabilities, EpcAccess, EpcIndex, LeafPort, Stop};
use cloister_x86::{Gpa, La};

use crate::epc::EpcExhausted;
use crate::vcpu::SgxVcpu;

/// A virtual processor's port with the guest's policy in front of it.
///
/// Memory and event lines are those of `port`. What the leaf may do is what the guest's CPUID
/// announces, whatever the processor can do; the launch-control hash is the virtual processor's;
/// and a page of virtual EPC that has no backing gets one. As the leaf asks this port for all
/// that, what policy judges is the leaf's own copy of its operands.
#[derive(Debug)]
pub struct PolicyPort<'a, P> {
    vcpu: &'a SgxVcpu,
    port: &'a mut P,
    exhausted: Option<(Gpa, EpcExhausted)>,
}

impl<'a, P: LeafPort> PolicyPort<'a, P> {
    /// The policy of `vcpu` and its machine, over `port`.
    pub const fn new(vcpu: &'a SgxVcpu, port: &'a mut P) -> Self {
        Self { vcpu, port, exhausted: None }
    }

    /// After [`Stop::EpcMiss`]: the page that there was no EPC for, and why.
    #[must_use]
    pub const fn exhausted(&self) -> Option<(Gpa, EpcExhausted)> {
        self.exhausted
    }
}

impl<P: LeafPort> LeafPort for PolicyPort<'_, P> {
    fn linear(&mut self, ea: u64, len: u64) -> Result<La, Stop> {
        self.port.linear(ea, len)
    }

    fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), Stop> {
        self.port.read(la, buf)
    }

    fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), Stop> {
        self.port.write(la, bytes)
    }

    fn resolve_epc(&mut self, la: La, access: EpcAccess) -> Result<Option<EpcIndex>, Stop> {
        let gpa = match self.port.resolve_epc(la, access) {
            Err(Stop::EpcMiss { gpa }) => gpa,
            resolved => return resolved,
        };
        match self.vcpu.vm().populate(gpa) {
            Some(Ok(_)) => match self.port.resolve_epc(la, access) {
                // Meanwhile the page tables lead to another page: the guest runs the leaf again.
                Err(Stop::EpcMiss { .. }) => Err(Stop::Retry),
                resolved => resolved,
            },
            Some(Err(reason)) => {
                self.exhausted = Some((gpa.page(), reason));
                Err(Stop::EpcMiss { gpa: gpa.page() })
            }
            None => {
                debug_assert!(false, "{gpa} is in no section, so it is not virtual EPC");
                Ok(None)
            }
        }
    }

    fn event_pending(&mut self) -> bool {
        self.port.event_pending()
    }

    fn epc_virtualization(&self) -> bool {
        self.port.epc_virtualization()
    }

    fn capabilities(&self) -> Capabilities {
        self.vcpu.vm().cpuid().capabilities
    }

    fn le_pubkey_hash(&self) -> [u8; 32] {
        self.vcpu.le_hash()
    }
}
