//! A machine that runs while a test looks at it.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cloister_virt::EpcPool;
use cloister_vmm::cli::{self, Command};
use cloister_vmm::machine::{Control, Machine, MachineError, MachineEvent, Outcome, RunError};
use cloister_vmm::qmp::{Context, Listen, ServeError, Server, Socket};
use cloister_vmm::sandbox::Sandbox;

use crate::client::Client;
use crate::kernel::bzimage_that_runs;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the guest prints. It can be held up, as by a terminal that takes nothing.
#[derive(Clone, Default)]
pub(crate) struct Screen(Arc<(Mutex<Printed>, Condvar)>);

#[derive(Default)]
struct Printed {
    bytes: Vec<u8>,
    held: bool,
}

impl Screen {
    /// Holds up whoever prints, or lets them go on.
    pub(crate) fn hold(&self, held: bool) {
        self.0.0.lock().unwrap().held = held;
        self.0.1.notify_all();
    }

    /// What was printed.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().bytes.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.0.lock().unwrap().bytes.len()
    }

    /// Waits until something was printed.
    pub(crate) fn wait(&self) {
        let start = Instant::now();
        while self.len() == 0 {
            assert!(start.elapsed() < PATIENCE, "the guest prints nothing");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The numbers of 8 bytes that were printed.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        self.bytes().chunks_exact(8).map(number).collect()
    }

    /// Waits for more to be printed than there is.
    pub(crate) fn wait_for_more(&self) {
        let (before, start) = (self.len(), Instant::now());
        while self.len() <= before {
            assert!(start.elapsed() < PATIENCE, "the guest prints nothing more");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut printed = self.0.0.lock().unwrap();
        while printed.held {
            printed = self.0.1.wait(printed).unwrap();
        }
        printed.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A machine and its monitor.
pub(crate) struct Running {
    pub(crate) control: Control,
    pub(crate) screen: Screen,
    pub(crate) socket: PathBuf,
    pub(crate) events: Arc<Mutex<Vec<MachineEvent>>>,
    context: Context,
    server: Option<Server>,
    ended: Receiver<Result<Outcome, RunError>>,
}

/// Files of different tests do not meet.
fn fresh_name() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("cloister-qmp-{}-{next}", std::process::id()))
}

/// A machine that is to boot the kernel `image`, on `pool` or on a platform of its own.
fn machine(
    image: &[u8],
    options: &[&str],
    pool: Option<&Arc<EpcPool>>,
) -> Result<Machine, MachineError> {
    let kernel = fresh_name().with_extension("kernel");
    fs::write(&kernel, image).unwrap();
    let words = ["cloister", "run", "--memory", "4M", "--kernel", kernel.to_str().unwrap()];
    let words = words.iter().chain(options).map(OsString::from);
    let Ok(Command::Run(args)) = cli::parse(words) else { panic!("{options:?}") };
    let config = args.into_config().unwrap();
    let machine = match pool {
        Some(pool) => Machine::on(pool, config),
        None => Machine::new(config),
    };
    fs::remove_file(&kernel).unwrap();
    machine
}

impl Running {
    /// Starts a machine that runs `code`, with more options of `cloister run`.
    pub(crate) fn start(code: &[u8], options: &[&str]) -> Self {
        Self::boot(&bzimage_that_runs(code), options)
    }

    /// Starts a machine that boots the kernel `image`, with more options of `cloister run`.
    pub(crate) fn boot(image: &[u8], options: &[&str]) -> Self {
        Self::run(machine(image, options, None).unwrap())
    }

    /// As [`Running::start`], on a platform that machines share.
    pub(crate) fn start_on(
        pool: &Arc<EpcPool>,
        code: &[u8],
        options: &[&str],
    ) -> Result<Self, MachineError> {
        Ok(Self::run(machine(&bzimage_that_runs(code), options, Some(pool))?))
    }

    fn run(machine: Machine) -> Self {
        let (screen, socket) = (Screen::default(), fresh_name().with_extension("sock"));
        let control = Control::new(screen.clone());
        let events = Arc::<Mutex<Vec<_>>>::default();
        let seen = events.clone();
        control.watch(move |event| seen.lock().unwrap().push(event));
        let listen = Listen::new(&socket, false).unwrap();
        let context = Context::new(&machine, &control);
        let server = Some(
            Server::start(Socket::bind(&listen).unwrap(), context.clone(), Sandbox::off()).unwrap(),
        );
        let (end, ended) = mpsc::channel();
        let handle = control.clone();
        thread::spawn(move || end.send(machine.run(&handle, &Sandbox::off())));
        Self { control, screen, socket, events, context, server, ended }
    }

    /// A client after the negotiation.
    pub(crate) fn client(&self) -> Client {
        let mut client = Client::connect(&self.socket);
        client.read();
        client.execute("qmp_capabilities").unwrap();
        client
    }

    /// A second monitor.
    pub(crate) fn serve(&self, listen: &Listen) -> Result<Server, ServeError> {
        Server::start(Socket::bind(listen)?, self.context.clone(), Sandbox::off())
    }

    /// How the machine ended.
    pub(crate) fn outcome(&self) -> Outcome {
        self.result().unwrap()
    }

    /// How the machine ended, or why it could not go on.
    pub(crate) fn result(&self) -> Result<Outcome, RunError> {
        self.ended.recv_timeout(PATIENCE).expect("the machine ends")
    }

    /// Ends the monitor, as the process does after the machine.
    pub(crate) fn end_monitor(&mut self) {
        self.server = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.screen.hold(false);
        self.control.quit();
    }
}
