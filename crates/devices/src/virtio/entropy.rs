//! virtio-rng: the host's random numbers (virtio 1.2, section 5.4).

use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::chain::Chain;
use super::device::{DeviceFault, VirtioDevice};
use super::virtqueue::Virtqueue;
use crate::dma::GuestRam;

/// The most that one request gets. It may be less than was asked for, but not nothing.
const LIMIT: usize = 4096;

/// The entropy device.
#[derive(Debug, Default)]
pub struct Entropy;

impl Entropy {
    /// Fills the front of the chain, and returns how far.
    fn fill(chain: &Chain, ram: &GuestRam) -> Result<u64, DeviceFault> {
        let mut bytes = [0; LIMIT];
        let wanted = usize::try_from(chain.writable_len()).map_or(LIMIT, |len| len.min(LIMIT));
        let mut filled = 0;
        while filled < wanted {
            match getrandom(&mut bytes[filled..wanted], GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the host gives no random numbers");
                    break;
                }
            }
        }
        Ok(chain.write(ram, 0, &bytes[..filled])? as u64)
    }
}

impl VirtioDevice for Entropy {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[64]
    }

    fn serve(
        &mut self,
        _index: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        while let Some(chain) = queue.pop(ram)? {
            let filled = Self::fill(&chain, ram)?;
            queue.complete(ram, &chain, filled)?;
        }
        Ok(())
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::driver::{Driver, Part};

    #[test]
    fn buffers_get_random_bytes_up_to_their_length() {
        let mut driver = Driver::new(Box::new(Entropy));
        driver.start(0);

        let first = driver.request(0, &[Part::Write(64)]);
        let second = driver.request(0, &[Part::Write(60), Part::Write(4)]);

        assert_eq!((first.len, second.len), (64, 64));
        assert_ne!(first.written, second.written);
        assert!(first.written.iter().any(|&byte| byte != 0));
    }

    #[test]
    fn huge_buffer_gets_a_part() {
        let mut driver = Driver::new(Box::new(Entropy));
        driver.start(0);

        let used = driver.request(0, &[Part::Write(1 << 20)]);

        assert_eq!(used.len, 4096);
        assert!(used.written[..4096].iter().any(|&byte| byte != 0));
        assert!(used.written[4096..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn buffer_to_read_comes_back_untouched() {
        let mut driver = Driver::new(Box::new(Entropy));
        driver.start(0);

        let used = driver.request(0, &[Part::Read(b"seed")]);

        assert_eq!(used.len, 0);
        assert!(!driver.needs_reset());
    }
}
