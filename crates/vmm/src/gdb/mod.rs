//! A server of GDB's remote serial protocol, by which a debugger holds the machine: `docs/debugging.md`
//! says how it is used.
//!
//! - [`address`]: the value of `--gdb`, and the socket.
//! - [`server`]: the thread and its clients.
//! - [`target`]: what a client asks of the machine.
//! - [`registers`]: a processor's registers as GDB knows them.

mod address;
mod registers;
mod server;
mod target;

pub use address::{Address, AddressError, BindError, Socket};
pub use server::{Server, StartError};
