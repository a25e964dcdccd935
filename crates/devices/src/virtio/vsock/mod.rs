//! virtio-vsock: streams between sockets of the guest and of the host (virtio 1.2, section 5.10).
//!
//! Each stream of the guest is a Unix stream socket of the host. What the guest sends waits here only as far
//! as the guest was given credit for it, and what the host sends waits in the host's socket until the guest
//! has room. Either half can end by itself.

mod clients;
mod connection;
mod packet;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::{fmt, io};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{SocketFlags, accept_with};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use self::clients::{Clients, Said, tell_accepted};
use self::connection::{BUFFER, Broken, Connection};
use self::packet::{HEADER, HOST_CID, Header, TYPE_STREAM, count, op};
use super::chain::Chain;
use super::device::{DeviceFault, VirtioDevice};
use super::virtqueue::Virtqueue;
use crate::dma::GuestRam;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Streams and waiting clients of a device at most: each is an open file of the process.
const MAX_STREAMS: usize = 1024;
/// Resets that wait for buffers of the guest; what may cause another waits as long.
const MAX_RESETS: usize = 256;
/// Bytes that are copied at a time.
const PIECE: usize = 64 << 10;
/// Events of sockets that are taken at a time.
const EVENTS: usize = 64;
/// The host's ports from here on are those of its clients.
const CLIENT_PORTS: u32 = 1 << 30;
/// The event of the socket on which clients arrive. No stream has it: no socket of the guest has
/// the port of all ones.
const ARRIVAL: u64 = u64::MAX;

/// The host's side of a vsock device.
pub trait VsockHost: Send + Sync {
    /// A connected stream socket to what listens at `port` of the host. Waits for nobody.
    ///
    /// # Errors
    /// Nobody listens there.
    fn connect(&self, port: u32) -> io::Result<OwnedFd>;

    /// The listening Unix socket on which the host's clients arrive, if there is one.
    fn listener(&self) -> Option<BorrowedFd<'_>>;
}

impl fmt::Debug for dyn VsockHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VsockHost")
    }
}

/// The two ports of a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Ports {
    guest: u32,
    host: u32,
}

impl Ports {
    /// Those of a client that has not named its guest's port yet.
    const fn of_client(host: u32) -> Self {
        Self { guest: u32::MAX, host }
    }

    fn event(self) -> EventData {
        EventData::new_u64(u64::from(self.host) << 32 | u64::from(self.guest))
    }

    const fn of_event(event: u64) -> Self {
        Self { guest: (event & 0xffff_ffff) as u32, host: (event >> 32) as u32 }
    }
}

/// A stream with what the device keeps of it.
#[derive(Debug)]
struct Stream {
    connection: Connection,
    /// What its socket is watched for, until it happens.
    watched: Option<EventFlags>,
    /// It is in the list of those that may have a packet for the guest.
    listed: bool,
    /// A client waits to hear that it is connected.
    client: bool,
}

/// The vsock device.
#[derive(Debug)]
pub struct Vsock {
    host: Arc<dyn VsockHost>,
    cid: u64,
    config: [u8; 8],
    /// Readable when a socket is ready for something.
    events: Arc<OwnedFd>,
    /// The listener is watched.
    hears: bool,
    streams: BTreeMap<Ports, Stream>,
    clients: Clients,
    next_port: u32,
    /// Streams that may have a packet for the guest, in the order of their turns.
    ready: VecDeque<Ports>,
    resets: VecDeque<Ports>,
    /// Packets of the guest wait until there is room for another reset.
    held: bool,
    piece: Box<[u8]>,
    follow_up: Option<usize>,
}

impl Vsock {
    /// A device of the guest with this CID, whose streams lead to `host`.
    ///
    /// # Errors
    /// The host has no further descriptor.
    pub fn new(cid: u32, host: Arc<dyn VsockHost>) -> io::Result<Self> {
        let events = epoll::create(CreateFlags::CLOEXEC)?;
        if let Some(listener) = host.listener() {
            epoll::add(&events, listener, EventData::new_u64(ARRIVAL), EventFlags::ONESHOT)?;
        }
        Ok(Self {
            host,
            cid: cid.into(),
            config: u64::from(cid).to_le_bytes(),
            events: Arc::new(events),
            hears: false,
            streams: BTreeMap::new(),
            clients: Clients::default(),
            next_port: CLIENT_PORTS,
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            held: false,
            piece: vec![0; PIECE].into(),
            follow_up: None,
        })
    }

    /// Does what the sockets are ready for.
    fn look_at_sockets(&mut self) {
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = Vec::with_capacity(EVENTS);
        // An error is an interruption: they are readable still, and looked at again.
        let _ = epoll::wait(&self.events, spare_capacity(&mut events), Some(&NOW));
        for event in events {
            let (data, flags) = ({ event.data }.u64(), event.flags);
            let ports = Ports::of_event(data);
            if data == ARRIVAL {
                self.hears = false;
                self.accept_clients();
            } else if self.clients.contains(ports.host) && ports.guest == u32::MAX {
                self.hear(ports.host);
            } else if let Some(stream) = self.streams.get_mut(&ports) {
                stream.watched = None;
                stream.connection.ready(flags);
                self.settle(ports);
            }
        }
        if !self.hears
            && self.has_room()
            && let Some(listener) = self.host.listener()
        {
            let (data, flags) = (EventData::new_u64(ARRIVAL), EventFlags::IN | EventFlags::ONESHOT);
            self.hears = epoll::modify(&self.events, listener, data, flags).is_ok();
        }
    }

    fn has_room(&self) -> bool {
        self.streams.len() + self.clients.len() < MAX_STREAMS
    }

    fn accept_clients(&mut self) {
        while self.has_room() {
            let Some(listener) = self.host.listener() else { return };
            // Err: there is none any more, or the process may open no more files.
            let Ok(client) = accept_with(listener, SocketFlags::CLOEXEC) else { return };
            let port = self.free_port();
            let (data, flags) =
                (Ports::of_client(port).event(), EventFlags::IN | EventFlags::ONESHOT);
            if epoll::add(&self.events, &client, data, flags).is_ok() {
                self.clients.add(port, client);
            }
        }
    }

    /// A port of the host that no client has.
    fn free_port(&mut self) -> u32 {
        loop {
            let port = self.next_port;
            self.next_port =
                port.checked_add(1).filter(|&port| port != u32::MAX).unwrap_or(CLIENT_PORTS);
            let taken = self.streams.keys().any(|ports| ports.host == port);
            if !taken && !self.clients.contains(port) {
                return port;
            }
        }
    }

    /// Reads what a client says, and asks the guest for the connection that it wants.
    fn hear(&mut self, port: u32) {
        match self.clients.hear(port) {
            Said::Unfinished => {
                let (data, flags) =
                    (Ports::of_client(port).event(), EventFlags::IN | EventFlags::ONESHOT);
                if let Some(socket) = self.clients.socket(port) {
                    // It was watched before, and is open.
                    let _ = epoll::modify(&self.events, socket, data, flags);
                }
            }
            Said::Connect(socket, guest) => {
                let ports = Ports { guest, host: port };
                if epoll::modify(&self.events, &socket, ports.event(), EventFlags::ONESHOT).is_ok()
                {
                    self.open(ports, Connection::requested(socket), true);
                }
            }
            Said::Nonsense => {}
        }
    }

    fn open(&mut self, ports: Ports, connection: Connection, client: bool) {
        let watched = Some(EventFlags::ONESHOT);
        self.streams.insert(ports, Stream { connection, watched, listed: false, client });
        self.settle(ports);
    }

    /// What follows from a change of a stream: it is watched, has its turn, or is over.
    fn settle(&mut self, ports: Ports) {
        let Some(stream) = self.streams.get_mut(&ports) else { return };
        if stream.connection.is_over() {
            return self.forget(ports);
        }
        let interest = stream.connection.interest();
        if interest != stream.watched
            && let Some(flags) = interest
            && epoll::modify(&self.events, stream.connection.socket(), ports.event(), flags).is_ok()
        {
            stream.watched = interest;
        }
        if !stream.listed && stream.connection.has_packet() {
            stream.listed = true;
            self.ready.push_back(ports);
        }
    }

    fn forget(&mut self, ports: Ports) {
        if self.streams.remove(&ports).is_some_and(|stream| stream.listed) {
            self.ready.retain(|&listed| listed != ports);
        }
    }

    /// Ends a stream, if it is one, and tells the guest.
    fn reset_stream(&mut self, ports: Ports) {
        self.forget(ports);
        self.resets.push_back(ports);
    }

    /// Takes the guest's packets.
    fn transmit(&mut self, queue: &mut Virtqueue, ram: &GuestRam) -> Result<(), DeviceFault> {
        loop {
            self.held = self.resets.len() >= MAX_RESETS;
            if self.held {
                break;
            }
            let Some(chain) = queue.pop(ram)? else { break };
            let mut header = [0; HEADER];
            // One that is too short is not a packet, and says nothing.
            if chain.read(ram, 0, &mut header)? == HEADER {
                self.take(&Header::parse(&header), &chain, ram)?;
            }
            queue.complete(ram, &chain, 0)?;
        }
        if !self.ready.is_empty() || !self.resets.is_empty() {
            self.follow_up = Some(RECEIVE);
        }
        Ok(())
    }

    /// Takes one packet of the guest.
    fn take(&mut self, header: &Header, chain: &Chain, ram: &GuestRam) -> Result<(), DeviceFault> {
        // Of another guest, or for one (virtio 1.2, section 5.10.6.4.1).
        if header.src_cid != self.cid || header.dst_cid != HOST_CID {
            return Ok(());
        }
        let ports = Ports { guest: header.src_port, host: header.dst_port };
        if header.kind != TYPE_STREAM {
            self.resets.push_back(ports);
            return Ok(());
        }
        let outcome = match self.streams.get_mut(&ports) {
            None if header.op == op::REQUEST => self.connect(ports, header),
            // Nobody is left to tell.
            None if header.op == op::RST => Ok(()),
            None => Err(Broken),
            Some(stream) => {
                stream.connection.learn_credit(header);
                stream.take(header, chain, ram, &mut self.piece)?
            }
        };
        match outcome {
            Ok(()) => self.settle(ports),
            Err(Broken) => self.reset_stream(ports),
        }
        Ok(())
    }

    /// The guest wants to reach a port of the host.
    fn connect(&mut self, ports: Ports, header: &Header) -> Result<(), Broken> {
        if ports.guest == u32::MAX || !self.has_room() {
            return Err(Broken);
        }
        let socket = self.host.connect(ports.host).map_err(|error| {
            tracing::debug!(port = ports.host, %error, "nobody listens for the guest");
            Broken
        })?;
        epoll::add(&self.events, &socket, ports.event(), EventFlags::ONESHOT)
            .map_err(|_| Broken)?;
        self.open(ports, Connection::accepted(socket, header), false);
        Ok(())
    }

    /// Fills the guest's buffers with packets, as long as there are both.
    fn receive(&mut self, queue: &mut Virtqueue, ram: &GuestRam) -> Result<(), DeviceFault> {
        self.look_at_sockets();
        while !self.resets.is_empty() || !self.ready.is_empty() {
            let Some(chain) = queue.pop(ram)? else { break };
            match self.next_packet(&chain) {
                Some(header) => {
                    let data = &self.piece[..header.len as usize];
                    let written = chain.write(ram, 0, &header.to_bytes())?;
                    let written = written + chain.write(ram, HEADER as u64, data)?;
                    queue.complete(ram, &chain, written as u64)?;
                }
                None => queue.keep(chain),
            }
        }
        if self.held && self.resets.len() < MAX_RESETS {
            self.follow_up = Some(TRANSMIT);
        }
        Ok(())
    }

    /// The next packet for the guest, whose data are at the front of `piece`.
    fn next_packet(&mut self, chain: &Chain) -> Option<Header> {
        if let Some(ports) = self.resets.pop_front() {
            return Some(self.header(ports, op::RST));
        }
        // A buffer that has no room for data gets none (the driver breaks the rules with it).
        let room = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX);
        let room = room.saturating_sub(HEADER).min(PIECE);
        while let Some(ports) = self.ready.pop_front() {
            let Some(stream) = self.streams.get_mut(&ports) else { continue };
            stream.listed = false;
            let packet = stream.connection.next_packet(&mut self.piece[..room]);
            match packet {
                Ok(None) => self.settle(ports),
                Ok(Some(packet)) => {
                    self.settle(ports);
                    return Some(Header {
                        len: count(packet.len),
                        flags: packet.flags,
                        buf_alloc: BUFFER,
                        fwd_cnt: packet.fwd_cnt,
                        ..self.header(ports, packet.op)
                    });
                }
                Err(Broken) => {
                    self.streams.remove(&ports);
                    return Some(self.header(ports, op::RST));
                }
            }
        }
        None
    }

    fn header(&self, ports: Ports, op: u16) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.cid,
            src_port: ports.host,
            dst_port: ports.guest,
            kind: TYPE_STREAM,
            op,
            ..Header::default()
        }
    }
}

impl Stream {
    /// Takes a packet of this stream: in what is returned, whether the guest keeps to the rules.
    fn take(
        &mut self,
        header: &Header,
        chain: &Chain,
        ram: &GuestRam,
        piece: &mut [u8],
    ) -> Result<Result<(), Broken>, DeviceFault> {
        let connection = &mut self.connection;
        match header.op {
            op::RESPONSE => {
                if !connection.confirm() {
                    return Ok(Err(Broken));
                }
                if std::mem::take(&mut self.client) {
                    tell_accepted(connection.socket(), header.dst_port);
                }
            }
            op::RW => {
                let holds = chain.readable_len().saturating_sub(HEADER as u64);
                if u64::from(header.len) > holds || connection.expect(header.len).is_err() {
                    return Ok(Err(Broken));
                }
                let (mut at, end) = (HEADER as u64, HEADER as u64 + u64::from(header.len));
                while at < end {
                    let wanted = usize::try_from(end - at).unwrap_or(PIECE).min(piece.len());
                    let count = chain.read(ram, at, &mut piece[..wanted])?;
                    connection.receive(&piece[..count]);
                    at += count as u64;
                }
            }
            op::SHUTDOWN => connection.shut_down(header.flags),
            op::CREDIT_UPDATE => {}
            op::CREDIT_REQUEST => connection.ask_credit(),
            op::RST => {
                connection.abandon();
            }
            _ => return Ok(Err(Broken)),
        }
        Ok(Ok(()))
    }
}

impl VirtioDevice for Vsock {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    /// None: a device without features has streams (virtio 1.2, section 5.10.3).
    fn features(&self) -> u64 {
        0
    }

    /// The third is for events, of which there are none here.
    fn queue_sizes(&self) -> &'static [u16] {
        &[256, 256, 16]
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
        match index {
            RECEIVE => self.receive(queue, ram),
            TRANSMIT => self.transmit(queue, ram),
            _ => Ok(()),
        }
    }

    fn follow_up(&mut self) -> Option<usize> {
        self.follow_up.take()
    }

    fn host_events(&self) -> Vec<(usize, Arc<OwnedFd>)> {
        vec![(RECEIVE, self.events.clone())]
    }

    fn reset(&mut self) {
        self.streams.clear();
        self.clients.clear();
        self.ready.clear();
        self.resets.clear();
        self.held = false;
        self.follow_up = None;
    }
}

#[cfg(test)]
mod tests;
