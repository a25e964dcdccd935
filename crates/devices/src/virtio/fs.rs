//! virtio-fs: a file system of the host, whose server is another process (virtio 1.2, section 5.11).
//!
//! The device passes requests on as messages of a socket, and writes the server's replies to the guest's
//! buffers. The server sees neither the guest's memory nor its rings. A message begins with a number; that of
//! a request has the room for the reply next. The server answers every request, in any order, with the
//! request's number and the reply, which may be empty.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;

use super::chain::Chain;
use super::device::{DeviceFault, VirtioDevice};
use super::virtqueue::Virtqueue;
use crate::dma::GuestRam;

/// Requests that have no reply come by the first queue.
const PRIORITY: usize = 0;
const REQUESTS: usize = 1;
const QUEUE_SIZE: u16 = 128;

/// Bytes of a tag (virtio 1.2, section 5.11.4).
const TAG: usize = 36;
/// Bytes of a message's number, and of the number and the room.
const NUMBER: usize = 8;
const PREFIX: usize = 16;
/// Bytes of a message at most: data of 128 KiB, and what goes with them.
const MESSAGE: usize = (128 << 10) + (8 << 10);

/// The file system device.
#[derive(Debug)]
pub struct FileSystem {
    /// A socket of messages, whose other end the server has.
    server: Arc<OwnedFd>,
    /// Tag and number of request queues.
    config: [u8; TAG + 4],
    /// Requests that the server has, each with the run of the queue that it came by.
    sent: BTreeMap<u64, (Chain, u64)>,
    next: u64,
    /// A queue waits until the server takes more.
    held: bool,
    message: Box<[u8]>,
    follow_up: Option<usize>,
}

impl FileSystem {
    /// Bytes of the longest tag.
    pub const MAX_TAG: usize = TAG;

    /// A device that a guest mounts by `tag`, of which the first [`FileSystem::MAX_TAG`] bytes count.
    #[must_use]
    pub fn new(tag: &str, server: Arc<OwnedFd>) -> Self {
        let mut config = [0; TAG + 4];
        let len = tag.len().min(TAG);
        config[..len].copy_from_slice(&tag.as_bytes()[..len]);
        config[TAG] = 1;
        Self {
            server,
            config,
            sent: BTreeMap::new(),
            next: 0,
            held: false,
            message: vec![0; MESSAGE].into(),
            follow_up: None,
        }
    }

    /// Passes requests on as long as the server takes them.
    fn pass_on(
        &mut self,
        queue: &mut Virtqueue,
        ram: &GuestRam,
        answered: bool,
    ) -> Result<(), DeviceFault> {
        while let Some(chain) = queue.pop(ram)? {
            let len = usize::try_from(chain.readable_len()).unwrap_or(usize::MAX);
            if len > MESSAGE - PREFIX {
                // No request of a guest that keeps to what the server told it.
                queue.complete(ram, &chain, 0)?;
                continue;
            }
            let room = if answered { chain.writable_len() } else { 0 };
            self.message[..NUMBER].copy_from_slice(&self.next.to_ne_bytes());
            self.message[NUMBER..PREFIX].copy_from_slice(&room.to_ne_bytes());
            let read = chain.read(ram, 0, &mut self.message[PREFIX..PREFIX + len])?;
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.server, &self.message[..PREFIX + read], flags) {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {
                    self.held = true;
                    queue.keep(chain);
                    return Ok(());
                }
                Err(_) => return Err(DeviceFault::NoServer),
            }
            if answered {
                self.sent.insert(self.next, (chain, queue.run()));
            } else {
                queue.complete(ram, &chain, 0)?;
            }
            self.next = self.next.wrapping_add(1);
        }
        Ok(())
    }

    /// Gives requests back that the server has answered.
    fn take_replies(&mut self, queue: &mut Virtqueue, ram: &GuestRam) -> Result<(), DeviceFault> {
        loop {
            let len = match recv(&self.server, &mut self.message[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) if len >= NUMBER => len,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                _ => return Err(DeviceFault::NoServer),
            };
            if std::mem::take(&mut self.held) {
                self.follow_up = Some(PRIORITY);
            }
            let (number, reply) = self.message[..len].split_at(NUMBER);
            let number = u64::from_ne_bytes(std::array::from_fn(|at| number[at]));
            // None: a request without a reply, or one from before a reset.
            let Some((chain, run)) = self.sent.remove(&number) else { continue };
            if run == queue.run() {
                let written = chain.write(ram, 0, reply)?;
                queue.complete(ram, &chain, written as u64)?;
            }
        }
    }
}

impl VirtioDevice for FileSystem {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn serve(
        &mut self,
        index: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        if index == PRIORITY {
            self.pass_on(queue, ram, false)?;
            // The other queue may have waited as well.
            self.follow_up = Some(REQUESTS);
            return Ok(());
        }
        self.take_replies(queue, ram)?;
        self.pass_on(queue, ram, true)
    }

    fn follow_up(&mut self) -> Option<usize> {
        self.follow_up.take()
    }

    fn host_events(&self) -> Vec<(usize, Arc<OwnedFd>)> {
        vec![(REQUESTS, self.server.clone())]
    }

    fn reset(&mut self) {
        self.sent.clear();
        self.held = false;
        self.follow_up = None;
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::virtio::driver::{Driver, Part};

    fn device() -> (Driver, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        let (own, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut driver = Driver::new(Box::new(FileSystem::new("share", Arc::new(own))));
        driver.start(0);
        (driver, other)
    }

    /// The next request: its number, the room for a reply, and what it says.
    fn request(server: &OwnedFd) -> Option<(u64, u64, Vec<u8>)> {
        let mut message = vec![0; MESSAGE];
        let (len, _) = recv(server, &mut message[..], RecvFlags::DONTWAIT).ok()?;
        let word = |at: usize| u64::from_ne_bytes(message[at..at + 8].try_into().unwrap());
        Some((word(0), word(8), message[PREFIX..len].to_vec()))
    }

    fn reply(server: &OwnedFd, number: u64, text: &[u8]) {
        let message = [&number.to_ne_bytes(), text].concat();
        send(server, &message, SendFlags::empty()).unwrap();
    }

    #[test]
    fn requests_and_replies_pass_in_the_servers_order() {
        let (mut driver, server) = device();
        driver.offer(REQUESTS, &[Part::Read(b"one "), Part::Read(b"more"), Part::Write(16)]);
        driver.offer(REQUESTS, &[Part::Read(b"two"), Part::Write(4), Part::Write(4)]);
        driver.notify(REQUESTS);

        let (one, two) = (request(&server).unwrap(), request(&server).unwrap());
        assert_eq!((one.1, &one.2[..]), (16, &b"one more"[..]));
        assert_eq!((two.1, &two.2[..]), (8, &b"two"[..]));
        reply(&server, two.0, b"answer");
        reply(&server, one.0, b"longer than the room for it");
        driver.work();

        let used = driver.take_used(REQUESTS);
        assert_eq!((used[0].len, &used[0].written[..6]), (6, &b"answer"[..]));
        assert_eq!((used[1].len, &used[1].written[..]), (16, &b"longer than the "[..]));
    }

    #[test]
    fn a_request_of_the_first_queue_is_done_when_it_is_passed_on() {
        let (mut driver, server) = device();

        let used = driver.request(PRIORITY, &[Part::Read(b"forget")]);

        assert_eq!(used.len, 0);
        let (number, room, text) = request(&server).unwrap();
        assert_eq!((room, &text[..]), (0, &b"forget"[..]));
        reply(&server, number, b"");
        driver.work();
        assert!(!driver.needs_reset());
    }

    #[test]
    fn replies_from_before_a_reset_or_a_stop_of_the_queue_are_dropped() {
        for reset in [true, false] {
            let (mut driver, server) = device();
            driver.offer(REQUESTS, &[Part::Read(b"old"), Part::Write(16)]);
            driver.notify(REQUESTS);
            let (old, ..) = request(&server).unwrap();

            if reset {
                driver.start(0);
            } else {
                driver.put(0x030, REQUESTS as u32);
                driver.put(0x044, 0);
                assert_eq!(driver.set_up_queue(REQUESTS, 128), 1);
            }
            driver.offer(REQUESTS, &[Part::Read(b"new"), Part::Write(16)]);
            driver.notify(REQUESTS);
            let (new, ..) = request(&server).unwrap();
            reply(&server, old, b"old");
            reply(&server, new, b"new");
            driver.work();

            let used = driver.take_used(REQUESTS);
            assert_eq!((used.len(), &used[0].written[..3]), (1, &b"new"[..]), "reset: {reset}");
        }
    }

    #[test]
    fn what_the_server_does_not_take_yet_waits() {
        let (mut driver, server) = device();
        let data = vec![1; 100 << 10];
        for _ in 0..8 {
            driver.offer(REQUESTS, &[Part::Read(&data), Part::Write(16)]);
        }
        driver.notify(REQUESTS);
        assert!(driver.take_used(REQUESTS).is_empty());

        let mut back = 0;
        while back < 8 {
            let (number, _, text) = request(&server).expect("a request");
            assert_eq!(text.len(), data.len());
            reply(&server, number, b"");
            driver.work();
            back += driver.take_used(REQUESTS).len();
        }
    }

    #[test]
    fn a_server_that_is_gone_leaves_a_device_that_needs_a_reset() {
        let (mut driver, server) = device();
        drop(server);

        driver.offer(REQUESTS, &[Part::Read(b"x"), Part::Write(16)]);
        driver.notify(REQUESTS);

        assert!(driver.needs_reset());
    }

    #[test]
    fn a_request_of_terabytes_is_given_back() {
        let (mut driver, server) = device();

        let used = driver.request(REQUESTS, &[Part::Read(&vec![0; MESSAGE]), Part::Write(16)]);

        assert_eq!((used.len, request(&server)), (0, None));
    }
}
