//! Devices that are at work while the machine is stopped, reset and ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cloister_vmm::machine::Outcome;

use crate::machine::{PATIENCE, Running};
use crate::virtio::{AVAILABLE, Code, DISK, NEXT, WRITE};

/// A disk whose file goes with the test.
struct Image(PathBuf);

impl Image {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cloister-{}-{name}", std::process::id()));
        fs::write(&path, [0; 1024]).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn contents(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }

    /// Waits until there is something else in it than `before`.
    fn wait_for_other(&self, before: &[u8]) {
        let start = Instant::now();
        while self.contents() == before {
            assert!(start.elapsed() < PATIENCE, "the guest writes nothing more");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes its queue's ring, which counts the requests, to the disk's first sector without end.
fn writes_without_end() -> Vec<u8> {
    let mut code = Code::default();
    code.disk_request(1, 2);
    code.descriptor(1, AVAILABLE, 512, NEXT);
    code.start(DISK, 0, 4);
    code.offer_for_ever(DISK, 0, &[0; 4])
}

/// Reads the disk's sectors into RAM without end.
fn reads_without_end() -> Vec<u8> {
    let mut code = Code::default();
    code.disk_request(0, 2);
    code.descriptor(1, 0x30_0000, 1024, NEXT | WRITE);
    code.start(DISK, 0, 4);
    code.offer_for_ever(DISK, 0, &[0; 4])
}

#[test]
fn no_request_is_begun_between_stop_and_cont_and_none_is_lost() {
    let image = Image::new("stopped-disk");
    let disk = image.path().to_str().unwrap();
    let running = Running::start(&writes_without_end(), &["--cpus", "2", "--disk", disk]);
    let mut client = running.client();
    image.wait_for_other(&[0; 1024]);

    for _ in 0..30 {
        client.get("stop");
        let stopped = image.contents();
        thread::sleep(Duration::from_millis(10));
        assert_eq!(image.contents(), stopped);
        client.get("cont");
        image.wait_for_other(&stopped);
    }
}

#[test]
fn a_reset_finds_requests_in_flight_and_the_next_boot_begins_with_none() {
    for (name, code) in [("writes", writes_without_end()), ("reads", reads_without_end())] {
        // Each its own: a machine has the lock of its disk until it is gone.
        let image = Image::new(name);
        let disk = image.path().to_str().unwrap();
        let running = Running::start(&code, &["--cpus", "2", "--disk", disk]);
        let mut client = running.client();

        for _ in 0..30 {
            if name == "writes" {
                image.wait_for_other(&image.contents());
            }
            client.get("system_reset");
            assert_eq!(client.event().0, "RESET");
        }

        client.get("stop");
        client.get("quit");
        assert_eq!(running.outcome(), Outcome::Quit);
        assert_eq!(image.contents().len(), 1024);
    }
}
