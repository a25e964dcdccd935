//! What the runtime can do (OCI runtime specification, features.md).

use serde_json::json;

pub(super) fn text() -> String {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": super::state::OCI_VERSION,
        "hooks": [],
        "mountOptions": super::mounts::options(),
        "linux": {
            "namespaces": ["network"],
            "capabilities": super::names::capability_names(),
            "cgroup": {
                "v1": false, "v2": false, "systemd": false, "systemdUser": false, "rdma": false
            },
            "seccomp": { "enabled": false },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
        },
        "annotations": {
            "org.opencontainers.runtime.name": "cloister",
            "org.opencontainers.runtime.version": env!("CARGO_PKG_VERSION"),
        },
    });
    format!("{features:#}\n")
}
