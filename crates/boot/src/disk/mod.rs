//! Finding the kernel of a disk as its boot loader would (docs/boot.md).
//!
//! The image is the guest's: whatever it holds, reading it ends with a kernel or with an error, in
//! bounded time and memory.

mod bls;
mod error;
mod ext;
mod fat;
mod filesystem;
mod find;
mod grub;
mod initrd;
mod partitions;
mod pattern;
mod region;
mod search;
mod stars;
mod systemd_boot;
mod version;
mod volumes;

pub use error::DiskBootError;
pub use find::find;
pub use region::ReadAt;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests;
