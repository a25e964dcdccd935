//! What a container has that a command of the host has not.

use std::path::PathBuf;

/// A container, but for its root, command and environment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Container {
    /// What it is called on the host.
    pub id: String,
    /// What it calls itself.
    pub host_name: String,
    /// The root cannot be changed.
    pub fixed_root: bool,
    /// Its mounts, in their order.
    pub mounts: Vec<Mount>,
    /// Paths that are hidden.
    pub masked: Vec<String>,
    /// Paths that cannot be changed.
    pub fixed: Vec<String>,
    /// Settings of the kernel: names, as sysctl(8) has them, and values.
    pub sysctls: Vec<(String, String)>,
    /// Groups of the user besides its own.
    pub groups: Vec<u32>,
    /// The mask of new files' modes.
    pub umask: u32,
    /// Limits of the process.
    pub limits: Vec<Limit>,
    /// Bounding, effective, permitted, inheritable and ambient capabilities: number N is bit N.
    pub capabilities: [u64; 5],
    /// No program gives the process more rights.
    pub no_new_privileges: bool,
}

/// A mount of a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Where it is in the container.
    pub place: String,
    /// What is there.
    pub source: Source,
    /// Flags of mount(2).
    pub flags: u32,
    /// What the file system takes besides.
    pub options: String,
}

/// What is mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A folder or a file of the host.
    Host {
        /// Its place on the host.
        path: PathBuf,
        /// It can be changed.
        writable: bool,
    },
    /// A file system that the machine's kernel makes, of this kind.
    Kind(String),
}

/// A limit of a process (getrlimit(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Of what.
    pub resource: u32,
    /// What holds.
    pub soft: u64,
    /// What the process can raise that to.
    pub hard: u64,
}
