//! `config.json` of a bundle: what is read of it (OCI runtime specification, config.md and config-linux.md).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{mounts, names};
use crate::exec::{Container, Limit};
use crate::host_file::read_at_most;

/// Bytes of a configuration at most: many times what engines write.
const LONGEST: u64 = 16 << 20;
/// What containers call themselves that are not told.
const HOST_NAME: &str = "cloister";
/// The mask of new files' modes where none is given.
const UMASK: u32 = 0o022;

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) oci_version: String,
    pub(super) root: Option<Root>,
    pub(super) process: Option<Process>,
    hostname: Option<String>,
    #[serde(default)]
    pub(super) mounts: Vec<MountSpec>,
    #[serde(default)]
    hooks: BTreeMap<String, Vec<IgnoredAny>>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) linux: Linux,
}

#[derive(Deserialize, Debug)]
pub(super) struct Root {
    pub(super) path: PathBuf,
    #[serde(default)]
    readonly: bool,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    #[serde(default)]
    pub(super) terminal: bool,
    #[serde(default)]
    pub(super) user: User,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    pub(super) cwd: PathBuf,
    capabilities: Option<Capabilities>,
    #[serde(default)]
    rlimits: Vec<LimitSpec>,
    #[serde(default)]
    no_new_privileges: bool,
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct User {
    #[serde(default)]
    pub(super) uid: u32,
    #[serde(default)]
    pub(super) gid: u32,
    #[serde(default)]
    additional_gids: Vec<u32>,
    umask: Option<u32>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(default)]
struct Capabilities {
    bounding: Vec<String>,
    effective: Vec<String>,
    permitted: Vec<String>,
    inheritable: Vec<String>,
    ambient: Vec<String>,
}

#[derive(Deserialize, Debug)]
struct LimitSpec {
    #[serde(rename = "type")]
    kind: String,
    soft: u64,
    hard: u64,
}

#[derive(Deserialize, Debug)]
pub(super) struct MountSpec {
    pub(super) destination: String,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) source: Option<String>,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Linux {
    namespaces: Vec<Namespace>,
    masked_paths: Vec<String>,
    readonly_paths: Vec<String>,
    sysctl: BTreeMap<String, String>,
    pub(super) resources: Resources,
}

#[derive(Deserialize, Debug)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<PathBuf>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(default)]
pub(super) struct Resources {
    pub(super) memory: Option<Memory>,
    pub(super) cpu: Option<Cpu>,
}

#[derive(Deserialize, Debug)]
pub(super) struct Memory {
    pub(super) limit: Option<i64>,
}

#[derive(Deserialize, Debug)]
pub(super) struct Cpu {
    pub(super) quota: Option<i64>,
    pub(super) period: Option<u64>,
}

impl Spec {
    /// Reads `config.json` in a folder.
    pub(super) fn read(bundle: &Path) -> Result<Self, String> {
        let path = bundle.join("config.json");
        let fix = "name a bundle with --bundle";
        let bytes = read_at_most(&path, LONGEST)
            .map_err(|why| format!("cannot read {}: {why}: {fix}", path.display()))?;
        Self::parse(&bytes)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let spec: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("config.json: {error}: correct it"))?;
        if !spec.oci_version.starts_with("1.") {
            let version = &spec.oci_version;
            return Err(format!("config.json: ociVersion: {version:?} is not known: write 1.0.2"));
        }
        if let Some((name, _)) = spec.hooks.iter().find(|(_, hooks)| !hooks.is_empty()) {
            return Err(format!("config.json: hooks: {name}: hooks are not run: leave them out"));
        }
        Ok(spec)
    }

    /// The network namespace of the host that the container was to join.
    pub(super) fn network_namespace(&self) -> Option<&Path> {
        let mut namespaces = self.linux.namespaces.iter();
        namespaces.find(|namespace| namespace.kind == "network")?.path.as_deref()
    }

    /// The process's environment.
    pub(super) fn environment(process: &Process) -> Result<Vec<(OsString, OsString)>, String> {
        let pair = |text: &String| {
            let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
            let (name, value) = pair.ok_or_else(|| {
                format!("config.json: process.env: {text:?} names no variable: write NAME=VALUE")
            })?;
            Ok((name.into(), value.into()))
        };
        process.env.iter().map(pair).collect()
    }

    /// The rest of the container `id`, whose configuration is in the folder `bundle`.
    pub(super) fn container(
        &self,
        id: &str,
        process: &Process,
        bundle: &Path,
    ) -> Result<Container, String> {
        let mounts = self.mounts.iter().map(|spec| mounts::mount(spec, bundle));
        let limits = process.rlimits.iter().map(|limit| {
            let resource = names::limit(&limit.kind).ok_or_else(|| {
                let kind = &limit.kind;
                format!("config.json: process.rlimits: {kind:?} is no limit: write RLIMIT_NOFILE or such")
            })?;
            Ok(Limit { resource, soft: limit.soft, hard: limit.hard })
        });
        let sets = process.capabilities.as_ref().map_or([0; 5], |of| {
            [&of.bounding, &of.effective, &of.permitted, &of.inheritable, &of.ambient]
                .map(|names| names::capabilities(names))
        });
        Ok(Container {
            id: id.to_owned(),
            host_name: self.hostname.clone().unwrap_or_else(|| HOST_NAME.to_owned()),
            fixed_root: self.root.as_ref().is_some_and(|root| root.readonly),
            mounts: mounts.filter_map(Result::transpose).collect::<Result<_, String>>()?,
            masked: self.linux.masked_paths.clone(),
            fixed: self.linux.readonly_paths.clone(),
            sysctls: self.linux.sysctl.clone().into_iter().collect(),
            groups: process.user.additional_gids.clone(),
            umask: process.user.umask.unwrap_or(UMASK),
            limits: limits.collect::<Result<_, String>>()?,
            capabilities: sets,
            no_new_privileges: process.no_new_privileges,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As podman and containerd write them, shortened.
    const CONFIG: &str = r#"{
        "ociVersion": "1.0.2-dev",
        "process": {
            "terminal": false,
            "user": { "uid": 7, "gid": 8, "umask": 18, "additionalGids": [9, 10] },
            "args": ["sh", "-c", "exit 3"],
            "env": ["PATH=/bin", "A=b=c"],
            "cwd": "/work",
            "capabilities": { "bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 2048, "soft": 1024 }],
            "noNewPrivileges": true,
            "oomScoreAdj": 0
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "box",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"] },
            { "destination": "/usr/x", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] }
        ],
        "hooks": {},
        "linux": {
            "sysctl": { "net.ipv4.ping_group_range": "0 0" },
            "namespaces": [{ "type": "pid" }, { "type": "network", "path": "/run/netns/x" }],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/bus"],
            "seccomp": { "defaultAction": "SCMP_ACT_ERRNO" }
        }
    }"#;

    #[test]
    fn a_configuration_says_what_the_container_has() {
        let spec = Spec::parse(CONFIG.as_bytes()).unwrap();
        let process = spec.process.as_ref().unwrap();

        let container = spec.container("box1", process, Path::new("/bundle")).unwrap();
        let environment = Spec::environment(process).unwrap();

        assert_eq!((container.id.as_str(), container.host_name.as_str()), ("box1", "box"));
        assert!(container.fixed_root && container.no_new_privileges);
        assert_eq!(container.capabilities, [0b10_0001, 0b10_0000, 0, 0, 0]);
        assert_eq!((&container.groups[..], container.umask), (&[9, 10][..], 18));
        let limit = Limit { resource: libc::RLIMIT_NOFILE, soft: 1024, hard: 2048 };
        assert_eq!(container.limits, [limit]);
        assert_eq!(
            (container.masked.len(), container.fixed.len(), container.sysctls.len()),
            (1, 1, 1)
        );
        let places: Vec<&str> = container.mounts.iter().map(|mount| mount.place.as_str()).collect();
        assert_eq!(places, ["/proc", "/usr/x"]);
        assert_eq!(environment[1], ("A".into(), "b=c".into()));
        assert_eq!(spec.network_namespace(), Some(Path::new("/run/netns/x")));
    }

    #[test]
    fn what_cannot_be_is_one_line_that_names_its_place() {
        for (from, to, expected) in [
            (r#""1.0.2-dev""#, r#""2.0""#, r#"config.json: ociVersion: "2.0" is not known: write"#),
            (
                r#""hooks": {}"#,
                r#""hooks": {"prestart":[{}]}"#,
                "config.json: hooks: prestart: hooks",
            ),
            (r#""A=b=c""#, r#""=x""#, r#"config.json: process.env: "=x" names no variable: write"#),
            (
                "RLIMIT_NOFILE",
                "NOFILE",
                r#"config.json: process.rlimits: "NOFILE" is no limit: write"#,
            ),
            (r#""cwd": "/work","#, "", "config.json: missing field `cwd`"),
            ("{", "", "config.json: "),
        ] {
            let read = || -> Result<(), String> {
                let spec = Spec::parse(CONFIG.replacen(from, to, 1).as_bytes())?;
                let process = spec.process.as_ref().ok_or("none")?;
                Spec::environment(process)?;
                spec.container("x", process, Path::new("/")).map(drop)
            };

            let line = read().unwrap_err();

            assert!(line.starts_with(expected) && line.lines().count() == 1, "{line}");
        }
    }
}
