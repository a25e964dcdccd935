//! Both ends of what a network test sends.
//!
//! Usage: `guest-peer serve`, which answers datagrams and connections with what they bring and names with one address;
//! or `guest-peer udp ADDRESS COUNT` and `guest-peer tcp ADDRESS COUNT`, which ask it.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const PORT: u16 = 9001;
const DNS: u16 = 53;
/// What all names stand for (RFC 5737).
const ADDRESS: [u8; 4] = [192, 0, 2, 77];
/// Bytes of the longest datagram, which fits the packets of any network.
const LONGEST: usize = 1200;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a datagram is sent that has no answer: a network may lose some.
const ATTEMPTS: u32 = 4;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-peer: {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> io::Result<()> {
    match *words {
        ["serve"] => serve(),
        ["udp", address, count] => datagrams(to(address)?, parse(count)?),
        ["tcp", address, count] => connections(to(address)?, parse(count)?),
        _ => Err(Error::new(ErrorKind::InvalidInput, "serve, or udp or tcp ADDRESS COUNT")),
    }
}

fn parse<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse().map_err(|_| Error::new(ErrorKind::InvalidInput, format!("{word} makes no sense")))
}

fn to(address: &str) -> io::Result<SocketAddr> {
    Ok(SocketAddr::new(parse::<IpAddr>(address)?, PORT))
}

fn serve() -> io::Result<()> {
    let names = UdpSocket::bind(("0.0.0.0", DNS))?;
    // Of both families.
    let datagrams = UdpSocket::bind(("::", PORT))?;
    let connections = TcpListener::bind(("::", PORT))?;
    thread::spawn(move || answer(&names, name));
    thread::spawn(move || answer(&datagrams, |data| Some(data.to_vec())));
    println!("ready");
    for stream in connections.incoming() {
        let mut stream = stream?;
        // As many as are there: they are all open at once.
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let mut piece = [0; 8];
            while stream.read_exact(&mut piece).is_ok() && stream.write_all(&piece).is_ok() {}
        })?;
    }
    Ok(())
}

fn answer(socket: &UdpSocket, reply: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let mut data = [0; 2048];
    while let Ok((len, from)) = socket.recv_from(&mut data) {
        if let Some(reply) = reply(&data[..len]) {
            // Who asked asks again.
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// The answer to a question for an address (RFC 1035, section 4.1). Of the family that it has none for it says none.
fn name(question: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = question.split_at_checked(12)?;
    let end = rest.iter().position(|&byte| byte == 0)? + 5;
    let asked = rest.get(..end)?;
    let is_ipv4 = asked[end - 4..end - 2] == [0, 1];
    // A response that is authoritative, to one question.
    let mut reply = [&header[..2], &[0x84, 0, 0, 1, 0, is_ipv4.into(), 0, 0, 0, 0]].concat();
    reply.extend(asked);
    if is_ipv4 {
        // The name that was asked for, an address of the Internet, a minute, 4 bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(ADDRESS);
    }
    Some(reply)
}

fn datagrams(to: SocketAddr, count: usize) -> io::Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE / ATTEMPTS))?;
    for number in 0..count {
        let sent: Vec<u8> =
            (0..number * LONGEST / count + 1).map(|at| (at * 7 + number) as u8).collect();
        let came_back = (0..ATTEMPTS).any(|_| {
            let mut data = [0; 2048];
            socket.send(&sent).is_ok()
                && (0..ATTEMPTS)
                    .any(|_| socket.recv(&mut data).is_ok_and(|len| data[..len] == sent))
        });
        if !came_back {
            let why = format!("a datagram of {} bytes did not come back", sent.len());
            return Err(Error::new(ErrorKind::TimedOut, why));
        }
    }
    println!("udp: {count} datagrams came back");
    Ok(())
}

fn connections(to: SocketAddr, count: u64) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        streams.push(stream);
    }
    // All of them are open now.
    for (number, stream) in (0..).zip(&mut streams) {
        let number: u64 = number;
        stream.write_all(&number.to_le_bytes())?;
    }
    for (number, stream) in (0..).zip(&mut streams) {
        let number: u64 = number;
        let mut back = [0; 8];
        stream.read_exact(&mut back)?;
        if u64::from_le_bytes(back) != number {
            return Err(Error::new(ErrorKind::InvalidData, "another number came back"));
        }
    }
    println!("tcp: {count} connections at once");
    Ok(())
}
