//! The host's KVM: whether it can run machines, and what its processors are.

use std::os::unix::fs::MetadataExt as _;
use std::{fmt, fs, io};

use cloister_x86::cpuid::CpuidResult;
use kvm_bindings::{
    KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_READONLY_MEM, KVM_CAP_SET_GUEST_DEBUG, KVM_CAP_SIGNAL_MSI,
    KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X86_MSR_FILTER, KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_XSAVE,
    KVM_MAX_CPUID_ENTRIES,
};
use kvm_ioctls::Kvm;
use thiserror::Error;

use super::{msrs, probe};
use crate::cpuid::HostCpu;

/// The device.
const NODE: &str = "/dev/kvm";
/// The only version of the API that was ever made.
const API_VERSION: i32 = 12;
/// What a machine needs of it, by the names of the kernel.
const NEEDED: [(u32, &str); 4] = [
    (KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP"),
    (KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"),
    (KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"),
    (KVM_CAP_XSAVE, "KVM_CAP_XSAVE"),
];
/// What SGX in software takes.
const NEEDED_TO_TRAP: [(u32, &str); 4] = [
    (KVM_CAP_SET_GUEST_DEBUG, "KVM_CAP_SET_GUEST_DEBUG"),
    (KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"),
    (KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"),
    (KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"),
];
/// Who is in which group.
const GROUPS: &str = "/etc/group";

/// Why the host's KVM runs no machine.
#[derive(Debug, Error)]
pub enum KvmError {
    /// There is no such device.
    #[error(
        "there is no {NODE}: load the kernel's module kvm_intel or kvm_amd, and enable virtualization \
         in the firmware"
    )]
    Missing,
    /// The process may not open it.
    #[error("cannot open {NODE}, which {0}")]
    Forbidden(String),
    /// It cannot be opened.
    #[error("cannot open {NODE}: {0}: load the kernel's module kvm_intel or kvm_amd")]
    Open(io::Error),
    /// Another API.
    #[error("{NODE} has version {0} of the API and not {API_VERSION}")]
    Version(i32),
    /// Something that machines need.
    #[error("the host's KVM lacks {0}: use a kernel from 4.12 on")]
    Lacks(&'static str),
    /// It makes no machine.
    #[error("{NODE}: {what}: {source}: end the other hypervisor of this host, if there is one")]
    Refused {
        /// The request.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Why guests cannot have SGX in software under the host's KVM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NoTrap {
    /// A capability.
    #[error("lacks {0}, which SGX without it takes: use a kernel from 5.10 on")]
    Lacks(&'static str),
    /// The breakpoint at the #UD handler does not stop the processor there, as a trial has shown.
    #[error(
        "does not stop a guest at its handler of #UD (KVM_SET_GUEST_DEBUG), which SGX without it takes"
    )]
    Passes,
}

/// The host's KVM, opened.
pub struct Host {
    pub(super) kvm: Kvm,
    /// What processors of its machines can be.
    pub(in crate::accel) cpu: HostCpu,
    /// MSRs that say of the host's processor what the guest need not work around.
    pub(super) msrs: Vec<(u32, u64)>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("msrs", &self.msrs).finish_non_exhaustive()
    }
}

impl Host {
    /// Opens the device, and sees whether it makes machines.
    ///
    /// # Errors
    ///
    /// [`KvmError`].
    pub fn open() -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(|error| not_opened(error.into()))?;
        let version = kvm.get_api_version();
        if version != API_VERSION {
            return Err(KvmError::Version(version));
        }
        for (capability, name) in NEEDED {
            if kvm.check_extension_raw(capability.into()) <= 0 {
                return Err(KvmError::Lacks(name));
            }
        }
        let refused =
            |what| move |error: kvm_ioctls::Error| KvmError::Refused { what, source: error.into() };
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let supported = supported.map_err(refused("KVM_GET_SUPPORTED_CPUID"))?;
        let leaves = supported.as_slice().iter().map(|entry| {
            let &kvm_bindings::kvm_cpuid_entry2 { eax, ebx, ecx, edx, .. } = entry;
            ((entry.function, entry.index), CpuidResult { eax, ebx, ecx, edx })
        });
        // The clock's frequency is a processor's to say.
        let vm = kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
        let vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
        let tsc_khz = vcpu.get_tsc_khz().map_err(refused("KVM_GET_TSC_KHZ"))?;
        Ok(Self {
            cpu: HostCpu::new(leaves.collect(), tsc_khz),
            msrs: msrs::of_the_host(&kvm),
            kvm,
        })
    }

    /// Whether guests can have the host's SGX.
    #[must_use]
    pub fn has_sgx(&self) -> bool {
        self.cpu.sgx().is_some()
    }

    /// Whether guests can have SGX that the host does not have.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub(in crate::accel) fn check_trap(&self) -> Result<(), NoTrap> {
        let lacks =
            |&(capability, _): &(u32, &str)| self.kvm.check_extension_raw(capability.into()) <= 0;
        if let Some(&(_, name)) = NEEDED_TO_TRAP.iter().find(|needed| lacks(needed)) {
            return Err(NoTrap::Lacks(name));
        }
        if probe::stops_at_handlers(&self.kvm) { Ok(()) } else { Err(NoTrap::Passes) }
    }

    /// Whether a guest's Linux learns the frequency of the time stamp counter: from CPUID on Intel's processors, and
    /// else from KVM's clock.
    #[must_use]
    pub fn has_clock(&self) -> bool {
        !self.cpu.needs_kvm_clock() || self.cpu.has_kvm_clock()
    }

    /// Whether its processors run guests: with VMX or SVM. Where they have neither, as in a sandbox that
    /// offers a KVM of its own, ring 3 alone runs on them, and ring 0 is emulated, hundreds of times slower
    /// than by software processors.
    #[must_use]
    pub fn is_hardware() -> bool {
        use std::arch::x86_64::__cpuid;
        let vmx = __cpuid(1).ecx & 1 << 5 != 0;
        let svm = __cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx & 1 << 2 != 0;
        vmx || svm
    }
}

fn not_opened(error: io::Error) -> KvmError {
    match error.kind() {
        io::ErrorKind::NotFound => KvmError::Missing,
        io::ErrorKind::PermissionDenied => KvmError::Forbidden(who_can(NODE, "kvm")),
        _ => KvmError::Open(error),
    }
}

/// Who can open a device, and what to do to be one of them; `usual` is the group that such devices have elsewhere.
pub(super) fn who_can(path: &str, usual: &str) -> String {
    let gid = fs::metadata(path).map_or(0, |metadata| metadata.gid());
    if gid == 0 {
        // Nobody is to be added to root's own.
        return format!(
            "root alone can: have the device belong to a group (chgrp {usual} {path}) and add the user to that"
        );
    }
    let groups = fs::read_to_string(GROUPS).unwrap_or_default();
    let group = named(&groups, gid).unwrap_or_else(|| gid.to_string());
    format!("group {group} can: add the user to it (usermod -aG {group} USER) and log in again")
}

fn named(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_device_the_group_and_the_fix() {
        assert_eq!(named("root:x:0:\nkvm:x:104:qemu\n", 104).as_deref(), Some("kvm"));
        assert_eq!(named("root:x:0:\n", 104), None);
        assert_eq!(
            KvmError::Forbidden(who_can("/dev/null", "kvm")).to_string(),
            "cannot open /dev/kvm, which root alone can: \
             have the device belong to a group (chgrp kvm /dev/null) and add the user to that"
        );
        assert!(not_opened(io::ErrorKind::NotFound.into()).to_string().contains("kvm_intel"));
    }
}
