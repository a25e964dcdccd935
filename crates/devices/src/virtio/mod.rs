//! virtio devices over the virtio-mmio transport.

mod block;
mod chain;
mod console;
mod device;
#[cfg(test)]
mod driver;
mod entropy;
mod fs;
mod mmio;
mod net;
mod service;
mod signals;
mod virtqueue;
mod vsock;

pub use block::{Block, BlockError, BlockStorage, RawFile};
pub use chain::Chain;
pub use console::{Console, ConsoleInput};
pub use device::{DeviceFault, VirtioDevice};
pub use entropy::Entropy;
pub use fs::FileSystem;
pub use mmio::MmioTransport;
pub use net::{GuestOffloads, MAX_QUEUE_PAIRS, Mac, NET_HEADER, Net, NetPeer, StreamPeer};
pub use virtqueue::Virtqueue;
pub use vsock::{Vsock, VsockHost};
