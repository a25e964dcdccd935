//! `cloister pccs` as its clients meet it, and the confinement of commands that read what others wrote.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cloister_attest::quoting_enclave as qe;
use cloister_sgx::layout::Report;
use cloister_sgx::{AttributeFlags, Attributes};
use cloister_vmm::platform_dir;
use zerocopy::{FromZeros as _, IntoBytes as _};

const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of its own for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cloister-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// `cloister` with the words of a line, in which `@` is the directory.
    fn cloister(&self, line: &str) -> Command {
        let line = line.replace('@', &self.0.display().to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloister"));
        command.args(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.cloister(line).output().unwrap()
    }

    /// The one line of a command that fails.
    fn refusal(&self, line: &str) -> String {
        let output = self.run(line);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{line}: {said}");
        said.replace(&self.0.display().to_string(), "@")
    }

    /// A quote of an enclave's REPORT on the platform in `@/NAME`, in the file `@/quote`.
    fn quote(&self, name: &str, options: &str) {
        let platform = platform_dir::open(&self.0.join(name)).expect("a platform");
        let mut report = Report {
            cpusvn: platform.cpusvn,
            attributes: Attributes::new(AttributeFlags::INIT | AttributeFlags::MODE64BIT, 3),
            ..Report::new_zeroed()
        };
        report.mac = platform.report_mac(&report, &qe::target_info());
        fs::write(self.0.join("report"), report.as_bytes()).unwrap();
        let line = format!("quote --platform @/{name} --report @/report --out @/quote {options}");
        assert!(self.run(&line).status.success());
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running `cloister pccs`, ended with the value.
struct Serving {
    child: Child,
    /// Address and port.
    host: String,
}

impl Serving {
    fn start(scratch: &Scratch, options: &str) -> Self {
        let line = format!("pccs --listen 127.0.0.1:0 {options}");
        let mut child = scratch.cloister(&line).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let host = line.trim().strip_prefix("PCCS at http://").expect("an address").to_owned();
        Self { child, host }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Head and body of the response to GET.
    fn get(&self, rest: &str) -> (String, Vec<u8>) {
        let mut stream = self.connect();
        let request = format!("GET /sgx/certification/v4/{rest} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        let end = response.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
        (String::from_utf8(response[..end].to_vec()).unwrap(), response[end + 4..].to_vec())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A chain of certificates from a header.
fn chain(head: &str, name: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let mut text = line.unwrap_or_else(|| panic!("{name} in {head}")).to_owned();
    for (code, character) in [("%20", " "), ("%0A", "\n"), ("%2B", "+"), ("%2F", "/"), ("%3D", "=")]
    {
        text = text.replace(code, character);
    }
    assert!(!text.contains('%'), "{text}");
    text
}

#[test]
fn what_the_caching_service_answers_is_what_a_verifier_needs() {
    let scratch = Scratch::new("pccs");
    let pki = "pki --authority @/authority --platform @/first --platform @/second";
    assert!(scratch.run(pki).status.success());
    scratch.quote("second", "--authority @/authority");
    let serving = Serving::start(&scratch, "--platform @/first --platform @/second");
    // Who sends nothing holds up nobody else.
    let _idle = serving.connect();

    let (crl_head, crl) = serving.get("pckcrl?ca=platform&encoding=der");
    let (tcb_head, tcb_info) = serving.get("tcb?fmspc=434C4F495354");
    let (identity_head, identity) = serving.get("qe/identity");
    let (_, root_crl) = serving.get("rootcacrl");
    let root_crl = std::str::from_utf8(&root_crl).unwrap();
    let digits = root_crl.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let root_crl: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let signer = chain(&identity_head, "SGX-Enclave-Identity-Issuer-Chain");
    assert_eq!(signer, chain(&tcb_head, "TCB-Info-Issuer-Chain"));
    let folder = scratch.0.join("fetched");
    fs::create_dir(&folder).unwrap();
    for (name, bytes) in [
        ("root-ca.crl", &root_crl[..]),
        ("pck-ca.crl", &crl),
        ("pck-ca-chain.pem", chain(&crl_head, "SGX-PCK-CRL-Issuer-Chain").as_bytes()),
        ("tcb-info.json", &tcb_info),
        ("qe-identity.json", &identity),
        ("tcb-signing-chain.pem", signer.as_bytes()),
    ] {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let verify = "verify @/quote --root @/first/pki/root-ca.pem --collateral @/fetched";
    let verdict = scratch.run(verify);

    assert!(verdict.status.success(), "{verdict:?}");
    let id = fs::read_to_string(scratch.0.join("second/pki/qe-id")).unwrap();
    let svn = "02020200000000000000000000000000";
    let (head, certificate) =
        serving.get(&format!("pckcert?qeid={}&cpusvn={svn}&pcesvn=1000&pceid=0000", id.trim()));
    let issuers = chain(&head, "SGX-PCK-Certificate-Issuer-Chain");
    let whole = fs::read_to_string(scratch.0.join("second/pki/pck-chain-16.pem")).unwrap();
    assert_eq!(String::from_utf8(certificate).unwrap() + &issuers, whole);
    for (rest, status) in [
        ("pckcert", "400"),
        (&format!("pckcert?qeid=zz&cpusvn={svn}&pcesvn=1000&pceid=0000"), "400"),
        ("tcb?fmspc=00906ea10000", "404"),
        ("tcb?fmspc=434C4F495354&fmspc=434C4F495354", "400"),
        ("x", "404"),
    ] {
        let (head, _) = serving.get(rest);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{rest}: {head}");
    }
}

#[test]
fn the_caching_service_is_confined_and_ends_with_a_signal() {
    let scratch = Scratch::new("pccs-confined");
    assert!(scratch.run("pki --platform @/platform").status.success());
    let mut serving = Serving::start(&scratch, "--platform @/platform");

    // By then its thread of clients is confined.
    serving.get("rootcacrl");
    let status = fs::read_to_string(format!("/proc/{}/status", serving.child.id())).unwrap();
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!(value("Seccomp:"), Some("2"));
    assert_eq!(value("CapEff:"), Some("0000000000000000"));
    let kill = Command::new("kill").arg(serving.child.id().to_string()).status().unwrap();
    assert!(kill.success());
    let start = Instant::now();
    let ended = loop {
        if let Some(ended) = serving.child.try_wait().unwrap() {
            break ended;
        }
        assert!(start.elapsed() < PATIENCE, "it goes on");
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(ended.code(), Some(128 + 15));
}

#[test]
fn the_aesm_service_of_a_machine_answers_each_client_and_takes_its_socket_along() {
    // GetSupportedAttKeyIDNum, and its response: no error, and one key.
    const REQUEST: &[u8] = b"\x03\0\0\0\xaa\x01\0";
    const RESPONSE: &[u8] = b"\x07\0\0\0\xaa\x01\x04\x08\0\x10\x01";
    let scratch = Scratch::new("aesm");
    assert!(scratch.run("pki --platform @/platform").status.success());
    let socket = scratch.0.join("m_1028");
    let start = || {
        let mut service =
            scratch.cloister("aesm --vsock @/m --platform @/platform").spawn().unwrap();
        let mut line = String::new();
        BufReader::new(service.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), format!("AESM at {}", socket.display()));
        service
    };
    // A socket that was left behind is replaced.
    let mut killed = start();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut service = start();

    let mut clients: Vec<_> = (0..2).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    UnixStream::connect(&socket).unwrap().write_all(b"\xff\xff\xff\xff").unwrap();
    for client in clients.iter_mut().rev() {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut response = [0; RESPONSE.len()];
        client.write_all(REQUEST).unwrap();
        client.read_exact(&mut response).unwrap();
        assert_eq!(response, RESPONSE);
    }
    let said = scratch.refusal("aesm --vsock @/m --platform @/platform");
    assert_eq!(
        said.trim(),
        "cloister: --vsock: @/m_1028 is the socket of a running process: end it, or name another path"
    );
    assert!(Command::new("kill").arg(service.id().to_string()).status().unwrap().success());
    assert_eq!(service.wait().unwrap().code(), Some(128 + 15));
    assert!(!socket.exists());
}

#[test]
fn what_cannot_be_served_is_one_line_that_names_the_option_and_the_fix() {
    let scratch = Scratch::new("pccs-refused");
    for name in ["first", "second"] {
        assert!(scratch.run(&format!("pki --platform @/{name}")).status.success());
    }
    fs::create_dir_all(scratch.0.join("bad/pki")).unwrap();
    for file in fs::read_dir(scratch.0.join("first/pki")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), scratch.0.join("bad/pki").join(file.file_name())).unwrap();
    }
    fs::write(scratch.0.join("bad/pki/pck-chain-7.pem"), "nothing").unwrap();

    for (line, expected) in [
        (
            "pccs --listen 0.0.0.0:1 --platform @/first",
            "cloister: --listen: 0.0.0.0:1 is open to other hosts: write 127.0.0.1:PORT,",
        ),
        (
            "pccs --listen 127.0.0.1:0 --platform @/none",
            "cloister: --platform: cannot read @/none/pki/root-ca.crl: No such file",
        ),
        (
            "pccs --listen 127.0.0.1:0 --platform @/bad",
            "cloister: --platform: @/bad/pki: a chain of certificates does not begin with a PCK \
             certificate: write it anew with cloister pki",
        ),
        (
            "pccs --listen 127.0.0.1:0 --platform @/first --platform @/second",
            "cloister: --platform: the platforms were not certified together",
        ),
        (
            "pccs --listen 127.0.0.1:0 --platform @/first --sandbox x",
            "cloister: --sandbox: it is on or off, not \"x\"",
        ),
        (
            "aesm --vsock @/m --platform @/none",
            "cloister: --platform: there is no platform in @/none",
        ),
        (
            "aesm --vsock cid=3,path=@/m --platform @/first",
            "cloister: --vsock: cid=3,path=@/m is the value of the machine's option: name its SOCK alone",
        ),
        (
            "aesm --vsock @/m --platform @/first --authority @/none",
            "cloister: --authority: there is no platform in @/none",
        ),
        (
            "pki --authority @/first --platform @/second --platform @/./second",
            "cloister: --platform: @/./second is given twice: leave one out",
        ),
        (
            "verify @/x --root @/x --collateral @ --sandbox x",
            "cloister: --sandbox: it is on or off, not \"x\"",
        ),
    ] {
        let said = scratch.refusal(line);
        assert!(said.starts_with(expected), "{said}");
    }
}
