//! Finding the kernel of a disk as its boot loader would (docs/boot.md).
//!
//! The image is the guest's: whatever it holds, reading it ends with a kernel or with an error, in
//! bounded time and memory.

mod bls;
mod error;
mod ext4;
mod fat;
mod filesystem;
mod find;
mod grub;
mod partitions;
mod region;
mod search;
mod version;
mod volumes;

pub use error::DiskBootError;
pub use find::find;

#[cfg(test)]
mod tests;
