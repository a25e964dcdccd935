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

/// `net:ADDRESS:PEER:MIB:SEED`: gives the network device this address, and exchanges so many MiB with the peer,
/// first from this side if its address is the smaller one. Both sides tell the SHA-256 of what they sent and had.
pub(crate) fn exchange(arguments: &[&str]) -> std::result::Result<(), String> {
    let [own, peer, mib, seed] = arguments else {
        return Err("no address, peer, size or seed".to_owned());
    };
    let address = |text: &str| text.parse::<Ipv4Addr>().map_err(|error| format!("{text}: {error}"));
    let (own, peer) = (address(own)?, address(peer)?);
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let (bytes, seed) = (number(mib)? << 20, number(seed)?);
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
        let hash = if sends { send(&mut stream, bytes, seed) } else { receive(&mut stream, bytes) };
        let hash = hash.map_err(failed)?;
        let (what, time) = (if sends { "sent" } else { "had" }, start.elapsed().as_millis());
        println!("net: {what} {bytes} bytes in {time} ms sha256 {hash}");
    }
    // Nothing that the peer still has to read is lost by this guest's end.
    stream.shutdown(Shutdown::Write).map_err(failed)?;
    let _ = stream.read(&mut [0]);
    Ok(())
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

/// Sends bytes that the seed decides, and returns their SHA-256.
fn send(stream: &mut TcpStream, bytes: u64, seed: u64) -> Result<String> {
    let mut state = seed | 1;
    let mut piece = vec![0; PIECE];
    let mut hash = Sha256::default();
    let mut left = bytes;
    while left > 0 {
        for word in piece.chunks_exact_mut(8) {
            // xorshift64 (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let len = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        stream.write_all(&piece[..len])?;
        hash.update(&piece[..len]);
        left -= len as u64;
    }
    Ok(digest(hash))
}

fn receive(stream: &mut TcpStream, bytes: u64) -> Result<String> {
    let mut piece = vec![0; PIECE];
    let mut hash = Sha256::default();
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let count = stream.read(&mut piece[..len])?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&piece[..count]);
        left -= count as u64;
    }
    Ok(digest(hash))
}

fn digest(hash: Sha256) -> String {
    hash.finish().iter().map(|byte| format!("{byte:02x}")).collect()
}
