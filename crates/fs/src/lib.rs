//! A FUSE server that shows folders of the host to a guest (Linux, `include/uapi/linux/fuse.h`, protocol
//! 7.31), as virtio-fs carries it.
//!
//! The crate knows no machine: a [`Server`] takes one request and gives one reply, both in bytes. Who runs it
//! confines it, and sees to it that `umask` is zero: modes are the guest's.
//!
//! # No way out of a share
//!
//! Names are single components without `/`, `.` and `..`, and each is looked up by openat2(2) below its
//! folder's descriptor, without following a link of any kind. What a name leads to is kept as a descriptor
//! that can do nothing (O_PATH), so that renames on the host change nothing that is being used. Only regular
//! files and folders are ever opened, which never waits. Nothing is changed by its path but entries of
//! folders; modes and owners are set on open files, times by [`ITSELF`].
//!
//! # Example
//!
//! ```
//! use std::fs::File;
//!
//! use cloister_fs::{Server, Share};
//!
//! let share = Share::new("tmp", File::open(std::env::temp_dir())?.into(), true);
//! let mut server = Server::new(vec![share], false, File::open("/proc/self/fd")?.into());
//! let mut reply = Vec::new();
//! // What is not a request gets no answer.
//! server.answer(&[], 0, &mut reply);
//! assert!(reply.is_empty());
//! # Ok::<(), std::io::Error>(())
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies, clippy::cast_possible_truncation))]

mod abi;
mod change;
mod message;
mod open_files;
mod server;
mod tree;

pub use abi::MAX_IO;
pub use change::ITSELF;
pub use server::Server;
pub use tree::Share;
