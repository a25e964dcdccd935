//! Network devices: two machines at the ends of a socket, the host's network, an interface of the host.
//!
//! The host's network is one of the test's own: a namespace with an interface that leads nowhere, in which a
//! server runs. Where the host allows no namespaces these tests are left out, with the reason.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::Setup;
use super::exec::{self, bytes, run};
use super::setup::expect;
use crate::apt::Archive;
use crate::console::Transcript;
use crate::image::hex;
use crate::{guest, process};

/// The word of the file that the server has.
const FILE: &str = "data";
/// Bytes of that file: of several windows of TCP.
const LEN: usize = 4 << 20;
/// Seconds that a command in the machine may take.
const LIMIT: &str = "120";

/// Two guests ping each other, exchange data both ways, first one and then the other, and have a thousand connections at
/// once; then one goes, and another takes its place.
pub(super) fn stream(setup: &Setup) -> Result<()> {
    let socket = Setup::socket("net");
    let options = [format!("stream={socket},server=on,mtu=9000"), format!("stream={socket}")];
    let boot = |own: u8, peer: u8, option: &str| {
        let pair = format!("10.9.0.{own}:10.9.0.{peer}");
        let task = format!("modules,net:{pair}:8:{own},net-many:{pair}:1000");
        setup.boot_to_power_off(&setup.tasks(&task).option("--net", option))
    };
    for (server, client) in [(1, 2), (2, 1)] {
        let (first, second) = thread::scope(|scope| {
            let first = scope.spawn(|| boot(server, client, &options[0]));
            let second =
                process::await_socket(&socket).and_then(|()| boot(client, server, &options[1]));
            (first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), second)
        });
        let (first, second) = (first?, second?);

        ensure!(sums(&first, "sent")? == sums(&second, "had")?, "data came changed");
        ensure!(sums(&first, "had")? == sums(&second, "sent")?, "data came changed");
        expect(&first, "net: 1000 connections at once")?;
        expect(&second, "net: 1000 connections at once")?;
        let pings = if server < client { &first } else { &second };
        expect(pings, "3 packets transmitted, 3 packets received")?;
        ensure!(!fs::exists(&socket)?, "the socket is left there");
    }
    Ok(())
}

/// A command whose machine makes the socket ends with its own code, and the socket goes.
pub(super) fn exec_server(setup: &Setup) -> Result<()> {
    let socket = Setup::socket("net-exec");
    let option = format!("stream={socket},server=on");
    let output = run(setup, "net-exec", &["--net", &option], &["sh", "-c", "exit 7"])?;
    exec::check(&output, 7, "", "")?;
    ensure!(!fs::exists(&socket)?, "the socket is left there");
    Ok(())
}

/// What the guest says that it sent or had.
fn sums(transcript: &Transcript, what: &str) -> Result<String> {
    let start = format!("net: {what} ");
    let line = transcript.find(&start).with_context(|| format!("no line says {start:?}"))?;
    let sum = line.rsplit(' ').next().filter(|sum| sum.len() == 64);
    Ok(sum.with_context(|| format!("no checksum in {line:?}"))?.to_owned())
}

/// A command downloads from the host's network, is told what listens nowhere, and cannot reach the host's own
/// 127.0.0.1; a port of the host leads to a server of the machine.
pub(super) fn user(setup: &Setup) -> Result<()> {
    let archive = Archive::open()?;
    let passt = archive.unpacked("passt")?.join("usr/bin");
    let place = Place::new(setup, &archive, "net-user")?;
    // Others wait for it.
    drop(archive);
    let Some(place) = place else { return Ok(()) };
    let busybox = &place.busybox;
    let script = format!(
        "ip -4 addr show dev eth0 | grep -o 'inet [0-9./]*'; ip route | grep -o 'default via [0-9.]*'
         cat /etc/resolv.conf; {busybox} wget -q -O - http://192.0.2.1:8080/{FILE} | sha256sum
         timeout 20 {busybox} wget -q -O - http://192.0.2.1:8081/ 2> /dev/null || echo nobody
         timeout 20 {busybox} wget -q -O - http://10.0.2.2:8080/{FILE} 2> /dev/null | sha256sum | grep {sum}
         {busybox} nc -l -p 22 -e sh -c 'cat > /tmp/got'; sha256sum < /tmp/got",
        sum = place.sum,
    );
    // Sent again until somebody listens in the machine: passt itself accepts at once.
    let outside = format!(
        "ip link add out0 type veth peer name far0
         ip addr add 192.0.2.1/24 dev out0; ip link set out0 up; ip link set far0 up
         ip route add default via 192.0.2.254
         {busybox} httpd -f -p 0.0.0.0:8080 -h {folder} & server=$!
         (while sleep 1; do {busybox} nc -w 5 127.0.0.1 2222 < {folder}/{FILE} || true; done) & sender=$!
         code=0; PATH={passt}:$PATH \"$@\" || code=$?; kill $server $sender || true; exit $code",
        folder = place.folder,
        passt = passt.display(),
    );
    let options = ["--net", "user,hostfwd=tcp:127.0.0.1:2222-:22"];
    let Some(output) = place.run(setup, &outside, &options, &script)? else { return Ok(()) };

    let expected = format!(
        "inet 10.0.2.15/24\ndefault via 10.0.2.2\nnameserver 10.0.2.3\n{sum}  -\nnobody\n{sum}  -\n",
        sum = place.sum
    );
    check(&output, &expected)
}

/// A command downloads from and uploads to the host over an interface, with segments and checksums left to it.
pub(super) fn tap(setup: &Setup) -> Result<()> {
    let Some(place) = Place::with_taps(setup, "net-tap")? else { return Ok(()) };
    let busybox = &place.busybox;
    let script = format!(
        "ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up
         {busybox} ping -c 1 -W 10 10.9.0.1 | grep -o '1 packets received'
         {busybox} wget -q -O - http://10.9.0.1:8080/{FILE} | tee /tmp/got | sha256sum
         {busybox} nc 10.9.0.1 9000 < /tmp/got"
    );
    let outside = format!(
        "ip tuntap add dev tap0 mode tap; ip addr add 10.9.0.1/24 dev tap0; ip link set tap0 up
         {busybox} httpd -f -p 10.9.0.1:8080 -h {folder} & server=$!
         {busybox} nc -l -p 9000 -e sh -c 'cat > {folder}/back' & receiver=$!
         code=0; \"$@\" || code=$?; sleep 1; kill $server; kill $receiver 2>&- || true; exit $code",
        folder = place.folder,
    );
    let options = ["--net", "tap=tap0"];
    let Some(output) = place.run(setup, &outside, &options, &script)? else { return Ok(()) };

    check(&output, &format!("1 packets received\n{}  -\n", place.sum))?;
    let back = fs::read(Path::new(&place.folder).join("back"))?;
    ensure!(hex(&Sha256::digest(&back)) == place.sum, "{} bytes came back changed", back.len());
    Ok(())
}

/// A guest of two processors uses both queues of an interface: four downloads and two uploads at once, from both
/// processors, by one interrupt, and the interface gives packets to one queue until the driver is there.
pub(super) fn queues(setup: &Setup) -> Result<()> {
    let Some(place) = Place::with_taps(setup, "net-queues")? else { return Ok(()) };
    let (folder, busybox) = (&place.folder, &place.busybox);
    // Each processor has the transmit queue of its number.
    let script = format!(
        "ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up
         echo $(ls /sys/class/net/eth0/queues)
         for flow in 0 1 2 3; do
             taskset -c $((flow % 2)) {busybox} wget -q -O /tmp/got$flow http://10.9.0.1:8080/{FILE} &
         done; wait
         for flow in 0 1 2 3; do sha256sum < /tmp/got$flow; done
         for flow in 0 1; do taskset -c $flow {busybox} nc 10.9.0.1 900$flow < /tmp/got$flow & done; wait
         tc -s class show dev eth0 | awk '/Sent/ {{ print ($2 > 100000 ? \"sent\" : $2) }}'
         device=$(basename $(readlink /sys/class/net/eth0/device))
         awk -v device=$device '$NF == device {{ print ($2 + $3 > 0 ? \"interrupts\" : 0) }}' /proc/interrupts"
    );
    let outside = format!(
        "ip tuntap add dev tap0 mode tap multi_queue
         ip addr add 10.9.0.1/24 dev tap0; ip link set tap0 up
         {busybox} httpd -f -p 10.9.0.1:8080 -h {folder} & server=$!
         {busybox} nc -l -p 9000 -e sh -c 'cat > {folder}/back0' & first=$!
         {busybox} nc -l -p 9001 -e sh -c 'cat > {folder}/back1' & second=$!
         (while sleep 0.1; do ip -d link show dev tap0 | grep -o 'numqueues.*numdisabled [0-9]*'; done) \
             > {folder}/queues & watch=$!
         code=0; \"$@\" || code=$?; sleep 1; kill $server $watch; kill $first $second 2>&- || true; exit $code",
    );
    let options = ["--cpus", "2", "--net", "tap=tap0,queues=2"];
    let Some(output) = place.run(setup, &outside, &options, &script)? else { return Ok(()) };

    let sums = format!("{}  -\n", place.sum).repeat(4);
    check(&output, &format!("rx-0 rx-1 tx-0 tx-1\n{sums}sent\nsent\ninterrupts\n"))?;
    for name in ["back0", "back1"] {
        let back = fs::read(Path::new(folder).join(name))?;
        ensure!(hex(&Sha256::digest(&back)) == place.sum, "{name} came back changed");
    }
    let seen = fs::read_to_string(Path::new(folder).join("queues"))?;
    let mut attached: Vec<&str> = seen.lines().collect();
    attached.dedup();
    let expected = ["numqueues 1 numdisabled 1", "numqueues 2 numdisabled 0"];
    ensure!(
        attached.windows(2).any(|pair| pair == expected),
        "the interface had {attached:?} instead of {expected:?}"
    );
    Ok(())
}

/// A command has names, datagrams, pings and a thousand connections at once on the host's network, by IPv4 and IPv6.
pub(super) fn protocols(setup: &Setup) -> Result<()> {
    let archive = Archive::open()?;
    let passt = archive.unpacked("passt")?.join("usr/bin");
    let place = Place::new(setup, &archive, "net-protocols")?;
    // Others wait for it.
    drop(archive);
    let Some(place) = place else { return Ok(()) };
    let (folder, busybox) = (&place.folder, &place.busybox);
    let peer = Path::new(folder).join("peer");
    fs::copy(guest::Programs::build()?.peer, &peer)?;
    let peer = peer.display();
    // An address of IPv6 comes by router advertisement, a while after the start. The peer's is not that of the
    // interface: passt has answers from there come from the gateway.
    let script = format!(
        "ulimit -n 4096; getent ahostsv4 any.example | head -n 1 | cut -d ' ' -f 1
         {peer} udp 192.0.2.1 200; {peer} tcp 192.0.2.1 1000
         {busybox} ping -c 3 -W 10 192.0.2.1 | grep -o '3 packets received'
         for second in $(seq 20); do
             ip -6 addr show dev eth0 scope global | grep -q 'inet6.*dynamic' && break; sleep 1
         done
         {peer} udp fd00:3::1 200; {peer} tcp fd00:3::1 100
         {busybox} ping6 -c 3 -W 10 fd00:3::1 | grep -o '3 packets received'"
    );
    let outside = format!(
        "ip link add out0 type veth peer name far0
         ip addr add 192.0.2.1/24 dev out0; ip -6 addr add fd00:2::1/64 dev out0 nodad
         ip -6 addr add fd00:3::1/128 dev lo nodad
         ip link set out0 up; ip link set far0 up
         ip route add default via 192.0.2.254; ip -6 route add default via fd00:2::fe
         echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range
         echo nameserver 192.0.2.1 > {folder}/resolv.conf; mount --bind {folder}/resolv.conf /etc/resolv.conf
         ulimit -n 4096; touch {folder}/served; {peer} serve > {folder}/served & server=$!
         while ! grep -q ready {folder}/served; do sleep 0.1; done
         code=0; PATH={passt}:$PATH \"$@\" || code=$?; kill $server; exit $code",
        passt = passt.display(),
    );
    let options = ["--net", "user"];
    let Some(output) = place.run(setup, &outside, &options, &script)? else { return Ok(()) };

    let family = |connections: u32| {
        format!(
            "udp: 200 datagrams came back\ntcp: {connections} connections at once\n3 packets received\n"
        )
    };
    // passt of Debian 12 loses some of a thousand connections by IPv6.
    check(&output, &format!("192.0.2.77\n{}{}", family(1000), family(100)))
}

fn check(output: &Output, expected: &str) -> Result<()> {
    let (written, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.success() && written == expected,
        "{}: {written:?} instead of {expected:?}: {errors}",
        output.status
    );
    Ok(())
}

/// What a network of the test's own has: a file, and a program that serves it.
struct Place {
    folder: String,
    /// SHA-256 of the file.
    sum: String,
    busybox: String,
}

impl Place {
    /// Makes the file. `None`, with the reason, where the host lacks what namespaces take.
    fn new(setup: &Setup, archive: &Archive, name: &str) -> Result<Option<Self>> {
        for tool in ["unshare", "ip"] {
            if Command::new(tool).arg("--version").output().is_err() {
                println!("left out: the host has no program {tool}");
                return Ok(None);
            }
        }
        let folder = setup.path(name);
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let bytes = bytes(LEN);
        fs::write(folder.join(FILE), &bytes)?;
        // Beside the file, where the machine sees it too.
        let busybox = folder.join("busybox");
        fs::copy(archive.unpacked("busybox-static")?.join("bin/busybox"), &busybox)?;
        Ok(Some(Self {
            folder: folder.display().to_string(),
            sum: hex(&Sha256::digest(&bytes)),
            busybox: busybox.display().to_string(),
        }))
    }

    /// [`Place::new`]. `None`, with the reason, where there are no interfaces by tap either.
    fn with_taps(setup: &Setup, name: &str) -> Result<Option<Self>> {
        if !Path::new("/dev/net/tun").exists() {
            println!("left out: the host has no /dev/net/tun");
            return Ok(None);
        }
        Self::new(setup, &Archive::open()?, name)
    }

    /// Runs a script with `cloister exec` for its arguments in a network namespace of its own, and `inside` in
    /// the machine, as root, with these options. `None`, with the reason, where there are no namespaces.
    fn run(
        &self,
        setup: &Setup,
        outside: &str,
        options: &[&str],
        inside: &str,
    ) -> Result<Option<Output>> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount"]);
        if !is_root()? {
            unshare.args(["--user", "--map-root-user"]);
        }
        let allowed = process::finish(clone_of(&unshare).arg("true"))?;
        if !allowed.status.success() {
            let reason = String::from_utf8_lossy(&allowed.stderr);
            println!("left out: the host lets nobody make namespaces: {}", reason.trim());
            return Ok(None);
        }
        let script = format!("ip link set lo up\n{outside}");
        unshare.args(["sh", "-ec", &script, "sh"]).arg(setup.program()?);
        unshare.args(["exec", "--kernel", &setup.kernel(), "--user", "root"]).args(options);
        unshare
            .args(["--timeout", LIMIT, "--", "sh", "-c", inside])
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        process::finish(&mut unshare).map(Some)
    }
}

/// The same command, to be given further arguments.
fn clone_of(command: &Command) -> Command {
    let mut clone = Command::new(command.get_program());
    clone.args(command.get_args());
    clone
}

fn is_root() -> Result<bool> {
    let output = process::finish(Command::new("id").arg("-u"))?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "0" => Ok(true),
        "" => bail!("id -u says nothing"),
        _ => Ok(false),
    }
}
