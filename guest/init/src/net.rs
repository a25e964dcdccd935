//! Data over a network device.

use std::io::{Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use guest_sha256::Sha256;

/// Where one guest listens and the other connects.
const PORT: u16 = 5000;
const PIECE: usize = 128 << 10;
/// How long the other guest may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is exchanged.
#[derive(Clone, Copy)]
enum Content {
    /// Bytes that a seed decides; both sides tell their SHA-256.
    Seeded(u64),
    /// One piece again and again, which the other side knows: the guests have as little to do as can be.
    Plain,
}

/// `net:ADDRESS:PEER:MIB:SEED|plain`: gives the network device this address, and exchanges so many MiB with the peer,
/// first from this side if its address is the smaller one. Both sides tell the SHA-256 of what they sent and had, or
/// that it was what both know.
pub(crate) fn exchange(arguments: &[&str]) -> std::result::Result<(), String> {
    let [own, peer, mib, content] = arguments else {
        return Err("no address, peer, size or content".to_owned());
    };
    let (own, peer) = (address(own)?, address(peer)?);
    let bytes = number(mib)? << 20;
    let content =
        if *content == "plain" { Content::Plain } else { Content::Seeded(number(content)?) };
    busybox(&["ip", "link", "set", "eth0", "up"])?;
    busybox(&["ip", "addr", "add", &format!("{own}/24"), "dev", "eth0"])?;
    let failed = |error| format!("the exchange: {error}");
    let first = own < peer;
    let mut stream = if first { connect(peer) } else { listen(own) }.map_err(failed)?;
    if first {
        // Both are there: it is answered.
        busybox(&["ping", "-c", "3", "-W", "5", &peer.to_string()])?;
    }
    for sends in [first, !first] {
        let start = Instant::now();
        let way = if sends { send } else { receive };
        let said = way(&mut stream, bytes, content).map_err(failed)?;
        let (what, time) = (if sends { "sent" } else { "had" }, start.elapsed().as_millis());
        println!("net: {what} {bytes} bytes in {time} ms {said}");
    }
    end(&[stream]).map_err(failed)
}

/// `net-many:ADDRESS:PEER:COUNT`: has as many connections with the peer, which was the other side of a `net` task, at the
/// same time, and a number goes each way on each of them. The side with the smaller address connects.
pub(crate) fn many(arguments: &[&str]) -> std::result::Result<(), String> {
    let [own, peer, count] = arguments else {
        return Err("no address, peer or count".to_owned());
    };
    let (own, peer) = (address(own)?, address(peer)?);
    let count = u32::try_from(number(count)?).map_err(|error| error.to_string())?;
    if own < peer { ask_all(peer, count) } else { answer_all(own, count) }
        .map_err(|error| format!("connections: {error}"))?;
    println!("net: {count} connections at once");
    Ok(())
}

fn ask_all(peer: Ipv4Addr, count: u32) -> Result<()> {
    let mut streams = (0..count).map(|_| connect(peer)).collect::<Result<Vec<TcpStream>>>()?;
    for (stream, n) in streams.iter_mut().zip(0_u32..) {
        stream.write_all(&n.to_le_bytes())?;
    }
    for (stream, n) in streams.iter_mut().zip(0_u32..) {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        if u32::from_le_bytes(answer) != !n {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
    end(&streams)
}

fn answer_all(own: Ipv4Addr, count: u32) -> Result<()> {
    let listener = TcpListener::bind((own, PORT))?;
    let streams =
        (0..count).map(|_| Ok(listener.accept()?.0)).collect::<Result<Vec<TcpStream>>>()?;
    for mut stream in &streams {
        let mut asked = [0; 4];
        stream.read_exact(&mut asked)?;
        stream.write_all(&asked.map(|byte| !byte))?;
    }
    end(&streams)
}

/// How long the last packets may take. Linux, 6.1.192 for one, resets devices before it powers off: what they have not sent
/// is lost, the ends of connections with it, and its network driver may even turn for ever then.
const LAST_PACKETS: Duration = Duration::from_millis(500);

/// Ends connections so that nothing which the peer still has to read is lost by this guest's end.
fn end(streams: &[TcpStream]) -> Result<()> {
    streams.iter().try_for_each(|stream| stream.shutdown(Shutdown::Write))?;
    for mut stream in streams {
        let _ = stream.read(&mut [0]);
    }
    thread::sleep(LAST_PACKETS);
    Ok(())
}

fn address(text: &str) -> std::result::Result<Ipv4Addr, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn number(text: &str) -> std::result::Result<u64, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn busybox(words: &[&str]) -> std::result::Result<(), String> {
    let status = Command::new("/bin/busybox").args(words).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{words:?}: {status}")),
        Err(error) => Err(format!("{words:?}: {error}")),
    }
}

fn connect(peer: Ipv4Addr) -> Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect((peer, PORT)) {
            Err(_) if start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
}

fn listen(own: Ipv4Addr) -> Result<TcpStream> {
    Ok(TcpListener::bind((own, PORT))?.accept()?.0)
}

/// Bytes that a seed decides.
struct Bytes(u64);

impl Bytes {
    fn fill(&mut self, piece: &mut [u8]) {
        for word in piece.chunks_exact_mut(8) {
            // xorshift64 (Marsaglia 2003).
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}

/// The piece of [`Content::Plain`].
fn plain() -> Vec<u8> {
    let mut piece = vec![0; PIECE];
    Bytes(1).fill(&mut piece);
    piece
}

/// Sends, and says what.
fn send(stream: &mut TcpStream, bytes: u64, content: Content) -> Result<String> {
    let mut piece = plain();
    let mut hash = Sha256::default();
    let mut source = match content {
        Content::Seeded(seed) => Some(Bytes(seed | 1)),
        Content::Plain => None,
    };
    for len in pieces(bytes) {
        if let Some(source) = &mut source {
            source.fill(&mut piece);
            hash.update(&piece[..len]);
        }
        stream.write_all(&piece[..len])?;
    }
    Ok(said(content, hash))
}

/// Receives, and says what.
fn receive(stream: &mut TcpStream, bytes: u64, content: Content) -> Result<String> {
    let expected = plain();
    let mut piece = vec![0; PIECE];
    let mut hash = Sha256::default();
    for len in pieces(bytes) {
        let piece = &mut piece[..len];
        stream.read_exact(piece)?;
        match content {
            Content::Seeded(_) => hash.update(piece),
            Content::Plain if *piece == expected[..len] => {}
            Content::Plain => return Err(std::io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(said(content, hash))
}

/// Lengths of the pieces that so many bytes come in.
fn pieces(bytes: u64) -> impl Iterator<Item = usize> {
    let piece = PIECE as u64;
    (0..bytes.div_ceil(piece)).map(move |n| (bytes - n * piece).min(piece) as usize)
}

fn said(content: Content, hash: Sha256) -> String {
    match content {
        Content::Seeded(_) => {
            let digits: String = hash.finish().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256 {digits}")
        }
        Content::Plain => "plain".to_owned(),
    }
}
