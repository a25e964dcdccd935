//! virtio devices, with a driver that writes anything in its rings and registers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cloister_devices::virtio::{
    Block, Console, ConsoleInput, Entropy, FileSystem, MmioTransport, Net, NetPeer, StreamPeer,
    Vsock, VsockHost,
};
use cloister_devices::{Device, GuestRam, IoLoop, Unconnected};
use cloister_fs::{Server, Share};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::{Bytes, file};

/// As little as rings need: the chain of a hostile driver has all of it in each descriptor.
const RAM: u64 = 64 << 10;
/// Bytes of a disk.
const DISK: u64 = 64 << 10;
/// What a read-only disk holds.
const CONTENTS: u8 = 0xd1;
/// Queues that are driven: those of a network device with two pairs.
const QUEUES: u8 = 5;
/// Where the buffers of requests are: after the areas of the queues.
const BUFFERS: u64 = 0xa000;
/// The guest's CID.
const CID: u32 = 3;
/// VIRTIO_F_VERSION_1.
const VERSION_1: u64 = 1 << 32;

/// Where queue `index` has its descriptors, driver area and device area.
fn areas(index: u8) -> [u64; 3] {
    let base = 0x2000 * u64::from(index);
    [base, base + 0x1000, base + 0x1400]
}

/// What the host may give to a device.
enum Input {
    None,
    Console(ConsoleInput),
    /// Bytes of a network's stream.
    Stream(UnixStream),
    /// Bytes of the host's ends of vsock streams.
    Ports(Arc<Ports>),
    /// Requests for files, what answers them, and where the files are.
    Files(OwnedFd, Box<Server>, Folder),
}

impl Input {
    fn push(&mut self, bytes: &mut Bytes<'_>) {
        let data: Vec<u8> = (0..bytes.u8()).map(|_| bytes.u8()).collect();
        match self {
            Self::None => {}
            Self::Console(console) => {
                console.push(&data);
            }
            Self::Stream(stream) => {
                // Err: the device has hung up, or there is nothing to read.
                let _ = stream.write_all(&data);
                let _ = stream.read(&mut [0; 4096]);
            }
            Self::Ports(ports) => {
                let mut streams = ports.0.lock().expect("no panic");
                for stream in streams.iter_mut() {
                    let _ = stream.write_all(&data);
                    let _ = stream.read(&mut [0; 4096]);
                }
                if bytes.u8() & 7 == 0 {
                    streams.pop();
                }
            }
            Self::Files(socket, server, _) => answer(socket, server, &data),
        }
    }
}

/// A folder with a file, until it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("cloister-fuzz-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        fs::write(path.join("file"), "contents").expect("a file");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // One that stays does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Answers one request for files, or sends what is no answer.
fn answer(socket: &OwnedFd, server: &mut Server, other: &[u8]) {
    let mut message = vec![0; 256 << 10];
    let Ok((len, _)) = recv(socket, &mut message[..], RecvFlags::DONTWAIT) else {
        // Err: nobody takes it.
        let _ = send(socket, other, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        return;
    };
    let Some((prefix, request)) = message[..len].split_first_chunk::<16>() else { return };
    let room = u64::from_ne_bytes(std::array::from_fn(|at| prefix[8 + at])) as usize;
    let mut reply = Vec::new();
    server.answer(request, room, &mut reply);
    let whole = [&prefix[..8], &reply].concat();
    let _ = send(socket, &whole, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// A host that listens at every other port.
#[derive(Default)]
struct Ports(Mutex<Vec<UnixStream>>);

impl VsockHost for Ports {
    fn connect(&self, port: u32) -> io::Result<OwnedFd> {
        let mut streams = self.0.lock().expect("no panic");
        if port & 1 != 0 || streams.len() == 16 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (own, other) = UnixStream::pair()?;
        other.set_nonblocking(true)?;
        streams.push(other);
        Ok(own.into())
    }

    fn listener(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A network that sends back what it is sent, headers with it.
#[derive(Default)]
struct Mirror {
    packets: VecDeque<Vec<u8>>,
    /// Nothing is to be received from it.
    disabled: bool,
}

impl NetPeer for Mirror {
    fn reads_headers(&self) -> bool {
        true
    }

    fn enable(&mut self, on: bool) -> bool {
        self.disabled = !on;
        true
    }

    fn is_up(&self) -> bool {
        true
    }

    fn send(&mut self, packet: &mut [u8]) -> bool {
        let has_room = self.packets.len() < 4;
        if has_room {
            self.packets.push_back(packet.to_vec());
        }
        has_room
    }

    fn receive(&mut self, packet: &mut [u8]) -> Option<usize> {
        assert!(!self.disabled, "a pair of queues receives that is not used");
        let next = self.packets.pop_front()?;
        packet[..next.len()].copy_from_slice(&next);
        Some(next.len())
    }

    fn watched(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

struct Driver {
    transport: Arc<Mutex<MmioTransport>>,
    ram: GuestRam,
    io: IoLoop,
}

impl Driver {
    fn put(&self, register: u64, value: u32) {
        self.transport.lock().expect("no panic").write(register, &value.to_le_bytes());
        self.io.work_once();
    }

    fn get(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.lock().expect("no panic").read(register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, gpa: u64, data: &[u8]) {
        // Err: not RAM.
        let _ = self.ram.memory().write_slice(data, GuestAddress(gpa));
    }

    /// Brings the device up with these of its features and queues of at most `size` descriptors.
    fn start(&self, features: u64, size: u32) {
        self.put(0x070, 0);
        self.put(0x070, 3);
        for page in [0, 1] {
            self.put(0x014, page);
            let wanted = ((features | VERSION_1) >> (32 * page)) as u32;
            self.put(0x024, page);
            self.put(0x020, wanted & self.get(0x010));
        }
        self.put(0x070, 11);
        for index in 0..QUEUES {
            self.put(0x030, index.into());
            self.put(0x038, self.get(0x034).min(size.next_power_of_two()));
            for (register, address) in [0x080, 0x090, 0x0a0].into_iter().zip(areas(index)) {
                self.put(register, address as u32);
                self.put(register + 4, 0);
            }
            self.put(0x044, 1);
        }
        self.put(0x070, 15);
    }

    /// One thing that a driver may do.
    fn step(&self, bytes: &mut Bytes<'_>, input: &mut Input) {
        let action = bytes.u8();
        let (action, queue) = (action / QUEUES, action % QUEUES);
        let [table, driver_area, device_area] = areas(queue);
        match action % 14 {
            0 => self.put(u64::from(bytes.u8()) << 2, bytes.u32()),
            1 => {
                let len = bytes.u8() % 9;
                let data: Vec<u8> = (0..len).map(|_| bytes.u8()).collect();
                self.transport.lock().expect("no panic").write(u64::from(bytes.u16()), &data);
                self.io.work_once();
            }
            2 => {
                let mut data = vec![0; usize::from(bytes.u8() % 9)];
                self.transport.lock().expect("no panic").read(u64::from(bytes.u16()), &mut data);
            }
            3 => {
                // A descriptor, here or in an indirect table.
                let table = if bytes.u8() & 1 == 0 { table } else { BUFFERS };
                let at = table + 16 * u64::from(bytes.u8());
                let gpa = match bytes.u8() % 4 {
                    0 => bytes.u64(),
                    1 => RAM - u64::from(bytes.u8()),
                    _ => BUFFERS + (u64::from(bytes.u8()) << 4),
                };
                let len = if bytes.u8() & 1 == 0 { bytes.u16().into() } else { bytes.u32() };
                self.write(at, &gpa.to_le_bytes());
                self.write(at + 8, &len.to_le_bytes());
                self.write(at + 12, &u16::from(bytes.u8() & 7).to_le_bytes());
                self.write(at + 14, &u16::from(bytes.u8()).to_le_bytes());
            }
            4 => {
                let slot = 2 * u64::from(bytes.u8());
                self.write(driver_area + 4 + slot, &u16::from(bytes.u8()).to_le_bytes());
            }
            5 => self.write(driver_area + 2, &bytes.u16().to_le_bytes()),
            6 => {
                self.put(0x050, queue.into());
                self.put(0x064, self.get(0x060));
            }
            7 => {
                // The header of a disk's request, and a range to discard after it.
                let at = BUFFERS + (u64::from(bytes.u8()) << 4);
                self.write(at, &u32::from(bytes.u8() & 15).to_le_bytes());
                self.write(at + 8, &u64::from(bytes.u8()).to_le_bytes());
                self.write(at + 16, &bytes.u64().to_le_bytes());
                self.write(at + 24, &bytes.u64().to_le_bytes());
            }
            8 => self.write(device_area + u64::from(bytes.u16() % 0xc00), &[bytes.u8()]),
            9 => {
                // The header of a packet: flags, segments, and where a checksum is.
                let at = BUFFERS + (u64::from(bytes.u8()) << 4);
                self.write(at, &[bytes.u8() & 7, bytes.u8() & 0x87, bytes.u8(), 0, bytes.u8(), 0]);
                self.write(at + 6, &(bytes.u16() & 0x83ff).to_le_bytes());
                self.write(at + 8, &(bytes.u16() & 0x80ff).to_le_bytes());
            }
            10 => {
                // A command for a network device: class, command, and a number of pairs.
                let at = BUFFERS + (u64::from(bytes.u8()) << 4);
                self.write(at, &[bytes.u8() & 5, bytes.u8() & 1, bytes.u8() & 3, 0]);
            }
            11 => {
                // The header of a vsock packet: from and to whom, ports, length, type, operation, flags, credit.
                let at = BUFFERS + (u64::from(bytes.u8()) << 4);
                let host = if bytes.u8() & 15 == 0 { bytes.u64() } else { 2 };
                let ports = [bytes.u8() & 3, bytes.u8() & 3].map(u32::from);
                self.write(at, &u64::from(CID).to_le_bytes());
                self.write(at + 8, &host.to_le_bytes());
                self.write(at + 16, &ports[0].to_le_bytes());
                self.write(at + 20, &ports[1].to_le_bytes());
                self.write(at + 24, &u32::from(bytes.u16()).to_le_bytes());
                self.write(at + 28, &[1, 0, bytes.u8() & 7, 0, bytes.u8() & 3, 0, 0, 0]);
                self.write(at + 36, &bytes.u32().to_le_bytes());
                self.write(at + 40, &bytes.u32().to_le_bytes());
            }
            12 => {
                // The header of a request for files, and a name after its body.
                let at = BUFFERS + (u64::from(bytes.u8()) << 4);
                let len = 40 + u32::from(bytes.u8());
                let body = u64::from(bytes.u8() & 0x3f);
                self.write(at, &len.to_le_bytes());
                self.write(at + 4, &u32::from(bytes.u8() & 63).to_le_bytes());
                self.write(at + 16, &u64::from(bytes.u8() & 7).to_le_bytes());
                self.write(at + 40, &bytes.u64().to_le_bytes());
                self.write(at + 40 + body, b"file\0");
            }
            _ => {
                input.push(bytes);
                self.io.work_once();
            }
        }
    }
}

struct Bench {
    memory: GuestMemoryMmap,
    disk: File,
    read_only: File,
}

impl Bench {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]);
        let (disk, read_only) = (file("disk"), file("read-only"));
        disk.set_len(DISK).expect("a file in memory");
        read_only.write_all_at(&[CONTENTS; DISK as usize], 0).expect("a file in memory");
        Self { memory: memory.expect("RAM"), disk, read_only }
    }

    fn run(&self, data: &[u8]) {
        self.memory.write_slice(&[0; RAM as usize], GuestAddress(0)).expect("RAM");
        let ram = GuestRam::new(self.memory.clone(), None);
        let line = Arc::new(Unconnected);
        let mut io = IoLoop::new().expect("a descriptor");
        let mut bytes = Bytes(data);
        let kind = bytes.u8() % 9;
        let disk = |file: &File, read_only| {
            let file = file.try_clone().expect("a file");
            Box::new(Block::from_file(file, read_only, "disk").expect("a disk"))
        };
        let net = |peers: &[Arc<Mutex<dyn NetPeer>>]| {
            let peers = peers.iter().cloned();
            Box::new(Net::new([2; 6], Some(1500), peers).expect("a descriptor"))
        };
        let mirror = || Arc::new(Mutex::new(Mirror::default())) as Arc<Mutex<dyn NetPeer>>;
        let (transport, mut input) = match kind {
            0 => {
                let size = (bytes.u8() & 1 == 0).then_some((80, 25));
                let output = Box::new(io::sink());
                let (transport, input) = Console::attach(&ram, line, output, size, &mut io);
                (transport, Input::Console(input))
            }
            1 => (shared(MmioTransport::new(Box::new(Entropy), &ram, line, &mut io)), Input::None),
            2 => {
                let disk = disk(&self.disk, false);
                (shared(MmioTransport::new(disk, &ram, line, &mut io)), Input::None)
            }
            3 => {
                let disk = disk(&self.read_only, true);
                (shared(MmioTransport::new(disk, &ram, line, &mut io)), Input::None)
            }
            4 => {
                let (own, other) = UnixStream::pair().expect("sockets");
                other.set_nonblocking(true).expect("a socket");
                let device = net(&[Arc::new(Mutex::new(StreamPeer::connected("net", own.into())))]);
                let transport = MmioTransport::new(device, &ram, line, &mut io);
                (shared(transport), Input::Stream(other))
            }
            5 => {
                let device = net(&[mirror()]);
                (shared(MmioTransport::new(device, &ram, line, &mut io)), Input::None)
            }
            6 => {
                let device = net(&[mirror(), mirror()]);
                (shared(MmioTransport::new(device, &ram, line, &mut io)), Input::None)
            }
            7 => {
                let ports = Arc::new(Ports::default());
                let device = Vsock::new(CID, ports.clone()).expect("a descriptor");
                let transport = MmioTransport::new(Box::new(device), &ram, line, &mut io);
                (shared(transport), Input::Ports(ports))
            }
            _ => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let kind = SocketType::SEQPACKET;
                let (own, other) =
                    socketpair(AddressFamily::UNIX, kind, flags, None).expect("sockets");
                let open = |path: &Path| OwnedFd::from(File::open(path).expect("a folder"));
                let folder = Folder::new();
                let share = Share::new("share", open(&folder.0), false);
                let server = Server::new(vec![share], false, open(Path::new("/proc/self/fd")));
                let device = Box::new(FileSystem::new("share", Arc::new(own)));
                let transport = MmioTransport::new(device, &ram, line, &mut io);
                (shared(transport), Input::Files(other, Box::new(server), folder))
            }
        };
        let driver = Driver { transport, ram, io };
        let features = bytes.u64();
        driver.start(features, bytes.u8().into());
        while !bytes.is_empty() {
            driver.step(&mut bytes, &mut input);
        }

        assert_eq!(self.disk.metadata().expect("a file").len(), DISK);
        if let Input::Files(_, _, folder) = &input {
            assert_eq!(fs::read(folder.0.join("file")).expect("a file"), b"contents");
        }
        if kind == 3 {
            let mut contents = vec![0; DISK as usize];
            self.read_only.read_exact_at(&mut contents, 0).expect("a file in memory");
            assert!(contents.iter().all(|&byte| byte == CONTENTS), "a read-only disk changed");
        }
    }
}

fn shared(transport: MmioTransport) -> Arc<Mutex<MmioTransport>> {
    Arc::new(Mutex::new(transport))
}

/// A device, its driver's features and queue sizes, and what the driver does.
pub(crate) fn virtio(data: &[u8]) {
    thread_local! {
        static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
    }
    BENCH.with_borrow(|bench| bench.run(data));
}
