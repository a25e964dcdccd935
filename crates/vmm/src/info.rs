//! What the host offers, for `cloister info`.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use cloister_x86::cpuid::{FEATURE_7_EBX_SGX, FEATURE_7_ECX_SGX_LC, SGX_EAX_SGX1, SGX_EAX_SGX2};
use kvm_ioctls::Kvm;

use crate::accel::Accelerator;

/// The only version of the KVM API that was ever made.
const KVM_API_VERSION: i32 = 12;

/// Whether the host's processor has SGX, by CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostSgx {
    /// CPUID.7.0:EBX.SGX.
    pub sgx: bool,
    /// CPUID.7.0:ECX.SGX_LC.
    pub launch_control: bool,
    /// CPUID.12H.0:EAX.SGX1: firmware has enabled SGX.
    pub sgx1: bool,
    /// CPUID.12H.0:EAX.SGX2.
    pub sgx2: bool,
}

/// A device node of the host.
#[derive(Debug)]
pub struct Node {
    path: &'static str,
    /// Opened for reading and writing, or why not.
    opened: Result<(), io::Error>,
}

/// What the host offers.
#[derive(Debug)]
pub struct HostInfo {
    /// The version of the KVM API, or why KVM cannot be used.
    kvm: Result<i32, String>,
    sgx: Option<HostSgx>,
    nodes: [Node; 3],
    /// Why `--accel auto` is software processors, if it is.
    why_soft: Option<String>,
    /// Why it is for a guest with SGX, if it is for those alone.
    why_soft_sgx: Option<String>,
}

impl HostInfo {
    /// Asks the host.
    #[must_use]
    pub fn gather() -> Self {
        Self {
            kvm: probe_kvm(),
            sgx: host_sgx(),
            nodes: ["/dev/sgx_vepc", "/dev/sgx_enclave", "/dev/sgx_provision"]
                .map(|path| Node { path, opened: probe_node(Path::new(path)) }),
            why_soft: Accelerator::why_not_kvm().map(|why| why.to_string()),
            why_soft_sgx: Accelerator::why_no_host_sgx().map(|why| why.to_string()),
        }
    }
}

fn probe_kvm() -> Result<i32, String> {
    let kvm = Kvm::new()
        .map_err(|error| format!("/dev/kvm: {}", io::Error::from_raw_os_error(error.errno())))?;
    match kvm.get_api_version() {
        version @ KVM_API_VERSION => Ok(version),
        version => Err(format!("it has API version {version} instead of {KVM_API_VERSION}")),
    }
}

fn probe_node(path: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(path).map(drop)
}

/// SGX as the host's CPUID has it; `None` on a host that is not x86-64.
fn host_sgx() -> Option<HostSgx> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        let highest = __cpuid(0).eax;
        let features = if highest >= 7 { __cpuid_count(7, 0) } else { return Some(NO_SGX) };
        let sgx = features.ebx & FEATURE_7_EBX_SGX != 0;
        let leaves = if sgx && highest >= 0x12 { __cpuid_count(0x12, 0).eax } else { 0 };
        Some(HostSgx {
            sgx,
            launch_control: features.ecx & FEATURE_7_ECX_SGX_LC != 0,
            sgx1: leaves & SGX_EAX_SGX1 != 0,
            sgx2: leaves & SGX_EAX_SGX2 != 0,
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(target_arch = "x86_64")]
const NO_SGX: HostSgx = HostSgx { sgx: false, launch_control: false, sgx1: false, sgx2: false };

impl fmt::Display for HostSgx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.sgx {
            return f.write_str("the processor has none");
        }
        if !self.sgx1 {
            return f.write_str("the processor has it, and the firmware has not enabled it");
        }
        f.write_str("SGX1")?;
        for (has, name) in [(self.sgx2, ", SGX2"), (self.launch_control, ", launch control")] {
            f.write_str(if has { name } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for HostInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: usize = 20;
        match &self.kvm {
            Ok(version) => writeln!(f, "{:WIDTH$}usable, API version {version}", "KVM")?,
            Err(reason) => writeln!(f, "{:WIDTH$}not usable: {reason}", "KVM")?,
        }
        match &self.sgx {
            Some(sgx) => writeln!(f, "{:WIDTH$}{sgx}", "SGX")?,
            None => writeln!(f, "{:WIDTH$}the host is not x86-64", "SGX")?,
        }
        for node in &self.nodes {
            match &node.opened {
                Ok(()) => writeln!(f, "{:WIDTH$}usable", node.path)?,
                Err(error) => writeln!(f, "{:WIDTH$}not usable: {error}", node.path)?,
            }
        }
        writeln!(
            f,
            "{:WIDTH$}soft: processors and SGX are executed in software, and need neither KVM nor SGX \
             of the host",
            "Accelerator"
        )?;
        write!(f, "{:WIDTH$}", "Automatic choice")?;
        match (&self.why_soft, &self.why_soft_sgx) {
            (Some(why), _) => writeln!(f, "soft, since {why}"),
            (None, Some(why)) => writeln!(f, "kvm, and soft for a guest with SGX, since {why}"),
            (None, None) => writeln!(f, "kvm"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: io::ErrorKind) -> Result<(), io::Error> {
        Err(kind.into())
    }

    #[test]
    fn each_thing_has_a_line_with_the_reason() {
        let info = HostInfo {
            kvm: Err("/dev/kvm: permission denied".into()),
            sgx: Some(HostSgx { sgx: true, launch_control: true, sgx1: true, sgx2: false }),
            nodes: [
                Node { path: "/dev/sgx_vepc", opened: Ok(()) },
                Node { path: "/dev/sgx_enclave", opened: error(io::ErrorKind::NotFound) },
                Node { path: "/dev/sgx_provision", opened: error(io::ErrorKind::PermissionDenied) },
            ],
            why_soft: Some("there is no KVM".into()),
            why_soft_sgx: Some("there is no KVM".into()),
        };

        assert_eq!(
            info.to_string(),
            "KVM                 not usable: /dev/kvm: permission denied\n\
             SGX                 SGX1, launch control\n\
             /dev/sgx_vepc       usable\n\
             /dev/sgx_enclave    not usable: entity not found\n\
             /dev/sgx_provision  not usable: permission denied\n\
             Accelerator         soft: processors and SGX are executed in software, and need neither KVM \
             nor SGX of the host\n\
             Automatic choice    soft, since there is no KVM\n"
        );
    }

    #[test]
    fn the_host_this_runs_on_is_described_whatever_it_has() {
        assert_eq!(HostInfo::gather().to_string().lines().count(), 7);
    }
}
