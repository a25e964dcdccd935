//! A debugger of a machine, in GDB's remote serial protocol.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a machine may take to listen, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// RIP's place among the registers of a `g` packet, of 16 hexadecimal digits each.
const RIP: usize = 16;

/// A stopped machine of one processor, or one that is about to stop.
pub(crate) struct Debugger(UnixStream);

impl Debugger {
    /// Connects to a machine that is starting, which stops it.
    ///
    /// # Errors
    /// It does not listen.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let start = Instant::now();
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    return Ok(Self(stream));
                }
                Err(_) if start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
                Err(error) => bail!("no machine listens at {}: {error}", socket.display()),
            }
        }
    }

    /// Sets a breakpoint at a linear address.
    ///
    /// # Errors
    /// The machine refuses it or has ended.
    pub(crate) fn set_breakpoint(&mut self, address: u64) -> Result<()> {
        self.command(&format!("Z0,{address:x},1"))
    }

    /// Removes a breakpoint.
    ///
    /// # Errors
    /// As [`Debugger::set_breakpoint`].
    pub(crate) fn remove_breakpoint(&mut self, address: u64) -> Result<()> {
        self.command(&format!("z0,{address:x},1"))
    }

    /// Runs to the next breakpoint.
    ///
    /// # Errors
    /// The machine ends before, or runs for too long.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        self.resume("vCont;c")
    }

    /// Runs one instruction.
    ///
    /// # Errors
    /// As [`Debugger::go_on`].
    pub(crate) fn step(&mut self) -> Result<()> {
        self.resume("vCont;s:1")
    }

    /// The processor's RIP.
    ///
    /// # Errors
    /// The machine has ended.
    pub(crate) fn rip(&mut self) -> Result<u64> {
        let registers = self.ask("g")?;
        let digits = registers.get(RIP * 16..RIP * 16 + 16).context("an answer without RIP")?;
        Ok(u64::from_str_radix(digits, 16)?.swap_bytes())
    }

    fn command(&mut self, packet: &str) -> Result<()> {
        let answer = self.ask(packet)?;
        ensure!(answer == "OK", "the debugged machine answered {answer:?} to {packet}");
        Ok(())
    }

    fn resume(&mut self, packet: &str) -> Result<()> {
        let stop = self.ask(packet)?;
        ensure!(stop.starts_with("T05"), "the debugged machine ended with {stop:?}");
        Ok(())
    }

    fn ask(&mut self, packet: &str) -> Result<String> {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        self.0.write_all(format!("${packet}#{sum:02x}").as_bytes())?;
        // Acknowledgements come before.
        while self.byte()? != b'$' {}
        let mut answer = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                // A run: the character before comes as often again as this one says.
                b'*' => {
                    let times = usize::from(self.byte()?.saturating_sub(29));
                    let last = *answer.last().context("a run of nothing")?;
                    answer.extend(std::iter::repeat_n(last, times));
                }
                byte => answer.push(byte),
            }
        }
        let _sum = [self.byte()?, self.byte()?];
        self.0.write_all(b"+")?;
        Ok(String::from_utf8(answer)?)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).context("the debugged machine does not answer")?;
        Ok(byte[0])
    }
}
