//! QMP, the QEMU Machine Protocol: a monitor that programs control a machine with, over a Unix
//! socket. `docs/qmp.md` says what is as in QEMU and what is not.
//!
//! - [`listen`]: the value of `--qmp`, and the socket.
//! - [`server`]: the thread, its client and its system calls.
//! - [`session`]: one client's conversation, without any system call.
//! - [`input`]: JSON values in a stream of bytes that may hold anything.
//! - [`request`]: what a value asks for, and the form of answers.
//! - [`events`]: what happens to the machine, on its way to the client.
//! - [`commands`]: the table of commands, a file per family.

mod commands;
mod context;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod input;
mod listen;
mod request;
mod server;
mod session;

pub use context::Context;
pub(crate) use listen::MAX_PATH;
pub use listen::{Listen, ListenError, Socket};
pub use server::{ServeError, Server};
