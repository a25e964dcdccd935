//! Running a GRUB script.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::volumes::{Choice, InitrdPart, Place, Volumes};
use super::GrubError;
use super::commands;
use super::environment::Environment;
use super::lex::Lines;
use super::parse::{Chunk, Command, List, chunk};
use super::status::Status;
use super::transcript::Transcript;

/// What all commands of a boot may cost together: one for each, and one for each byte that they
/// expand or read.
const FUEL: u64 = 8 << 20;
/// What asking for a file costs.
pub(super) const FILE_COST: u64 = 256;
/// Commands, functions and files within each other.
const MAX_DEPTH: u32 = 64;
/// Files, menus and evaluated texts within each other.
const MAX_TEXTS: u32 = 16;
/// The largest configuration file.
const MAX_SCRIPT: u64 = 1 << 20;

/// Why nothing more is run.
#[derive(Debug)]
pub(super) enum Stop {
    /// `boot`.
    Boot,
    /// The configuration cannot be used.
    Error(GrubError),
}

/// What `linux` and others have loaded.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) kernel: Option<(Place, String)>,
    pub(super) initrds: Vec<InitrdPart>,
    /// Something else than Linux, and what is wrong with that.
    pub(super) other: Option<String>,
    /// Why the last attempt failed.
    pub(super) failure: Option<String>,
}

impl Loaded {
    pub(super) const fn is_any(&self) -> bool {
        self.kernel.is_some() || self.other.is_some()
    }

    pub(super) fn take(&mut self) -> Option<Choice> {
        let Self { kernel, initrds, .. } = std::mem::take(self);
        let (kernel, cmdline) = kernel?;
        Some(Choice { title: String::new(), kernel, initrds, cmdline })
    }
}

/// Where `break`, `continue` and `return` lead.
#[derive(Default)]
pub(super) struct Flow {
    /// Loops that the running function is in.
    pub(super) loops: u32,
    /// Loops that are still to be left.
    pub(super) breaks: u32,
    /// The last of them goes on with its next round.
    pub(super) continues: bool,
    /// The running function ends.
    pub(super) returns: bool,
}

/// A script as it runs.
pub(super) struct Run<'a> {
    pub(super) volumes: &'a Volumes,
    pub(super) environment: Environment,
    pub(super) functions: BTreeMap<String, Rc<List>>,
    /// `$1` and so on; `None` outside functions and menu entries.
    pub(super) scope: Option<Vec<String>>,
    pub(super) loaded: Loaded,
    pub(super) flow: Flow,
    pub(super) transcript: Transcript,
    /// What was found by `search`: its kind, what it looked for, and the device.
    pub(super) found: Vec<(commands::search::Wanted, String, String)>,
    /// The title of the menu entry that is run.
    pub(super) title: Option<String>,
    /// Entries of the Boot Loader Specification do not tell the kernel its file.
    pub(super) tells_image: bool,
    pub(super) file: String,
    pub(super) line: u32,
    /// Menus that the running one is in.
    pub(super) menus: u32,
    fuel: u64,
    depth: u32,
    texts: u32,
}

impl<'a> Run<'a> {
    /// The state in which GRUB begins with the configuration at `place`.
    pub(super) fn new(volumes: &'a Volumes, place: &Place) -> Self {
        let device = volumes.name(place.volume);
        let folder = place.path.rfind('/').map_or("", |end| &place.path[..end]);
        let features = [
            "feature_menuentry_id",
            "feature_menuentry_options",
            "feature_timeout_style",
            "feature_platform_search_hint",
            "feature_default_font_path",
            "feature_all_video_module",
            "feature_chainloader_bpb",
            "feature_ntldr",
            "feature_nativedisk_cmd",
            "feature_200_final",
        ];
        let set = [
            ("root", device.to_owned()),
            ("prefix", format!("({device}){folder}")),
            ("cmdpath", format!("({device})")),
            // As installed for BIOS: the kernel has no EFI firmware either.
            ("grub_cpu", "i386".into()),
            ("grub_platform", "pc".into()),
        ];
        let features = features.map(|name| (name, "y".to_owned()));
        Self {
            volumes,
            environment: Environment::new(set.into_iter().chain(features)),
            functions: BTreeMap::new(),
            scope: None,
            loaded: Loaded::default(),
            flow: Flow::default(),
            transcript: Transcript::default(),
            found: Vec::new(),
            title: None,
            tells_image: true,
            file: volumes.describe(place),
            line: 0,
            menus: 0,
            fuel: FUEL,
            depth: 0,
            texts: 0,
        }
    }

    /// Uses up fuel.
    pub(super) fn spend(&mut self, cost: u64) -> Result<(), Stop> {
        self.fuel = self.fuel.checked_sub(cost).ok_or_else(|| self.endless())?;
        Ok(())
    }

    pub(super) fn endless(&self) -> Stop {
        Stop::Error(GrubError::Endless(self.file.clone()))
    }

    /// Tells the user of something that is passed over.
    pub(super) fn warn(&mut self, word: &str, what: &str) {
        self.transcript.warn(&self.file, self.line, word, what);
    }

    /// The value of a variable; empty if it has none.
    pub(super) fn variable(&self, name: &str) -> &str {
        self.environment.get(name).unwrap_or_default()
    }

    pub(super) fn parameters(&self) -> &[String] {
        self.scope.as_deref().unwrap_or_default()
    }

    pub(super) const fn has_parameters(&self) -> bool {
        self.scope.is_some()
    }

    /// Sets a variable as an assignment does: parameters cannot be set so.
    pub(super) fn assign(&mut self, name: &str, value: &str) {
        let special =
            name.starts_with(|c: char| c.is_ascii_digit()) || matches!(name, "#" | "*" | "@");
        if !special {
            self.environment.set(name, value);
        }
    }

    fn note(&mut self, status: Status) {
        self.environment.set("?", &status.to_string());
    }

    /// The place that a file name means: `(hd0,gpt2)/path`, or `/path` on the root device.
    pub(super) fn place(&self, name: &str) -> Option<Place> {
        let (device, path) = match name.strip_prefix('(') {
            Some(rest) => rest.split_once(')')?,
            None => (self.variable("root"), name),
        };
        let volume = self.volumes.device(device)?.volume?;
        path.starts_with('/').then(|| Place { volume, path: path.to_owned() })
    }

    /// Runs the file at `place`, which the script calls `name`.
    pub(super) fn config_file(&mut self, place: &Place) -> Result<Status, Stop> {
        let file = self.volumes.describe(place);
        let bytes = self.volumes.read(place, MAX_SCRIPT).map_err(|reason| {
            Stop::Error(GrubError::Read { file: file.clone(), reason: reason.to_string() })
        })?;
        self.spend(bytes.len() as u64 + FILE_COST)?;
        let script = String::from_utf8_lossy(&bytes);
        let path = format!("({}){}", self.volumes.name(place.volume), place.path);
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let names = [("config_file", &path), ("config_directory", &folder)];
        let before = names.map(|(name, _)| self.environment.get(name).map(str::to_owned));
        for (name, value) in names {
            self.environment.set(name, value);
            self.environment.export(name);
        }
        let outer = (std::mem::replace(&mut self.file, file), self.line);
        let outcome = self.text(&mut Lines::of_file(&script));
        (self.file, self.line) = outer;
        for ((name, _), value) in names.into_iter().zip(before) {
            match value {
                Some(value) => self.environment.set(name, &value),
                None => self.environment.unset(name),
            }
        }
        outcome
    }

    /// Runs the lines of a text. The outcome is that of the last command.
    pub(super) fn text(&mut self, lines: &mut Lines<'_>) -> Result<Status, Stop> {
        self.texts += 1;
        if self.texts > MAX_TEXTS {
            return Err(self.endless());
        }
        let mut status = Status::SUCCESS;
        while let Some(parsed) = chunk(lines) {
            self.spend(1)?;
            match parsed {
                Ok(Chunk { commands, functions }) => {
                    self.functions.extend(functions);
                    if !commands.is_empty() {
                        status = self.list(&commands)?;
                    }
                }
                Err(error) => {
                    self.line = error.line;
                    self.warn(&error.word, &format!("is not understood: {}", error.what));
                    // What can be read of a file is run all the same.
                    if !lines.is_of_file() {
                        status = Status::SUCCESS;
                        break;
                    }
                }
            }
        }
        self.texts -= 1;
        Ok(status)
    }

    /// Runs commands; the last one's outcome is the list's.
    fn list(&mut self, list: &List) -> Result<Status, Stop> {
        if list.is_empty() {
            return Ok(Status::SUCCESS);
        }
        self.deeper(|run| {
            let mut status = Status::SUCCESS;
            for command in list {
                if run.flow.breaks > 0 {
                    break;
                }
                status = run.deeper(|run| run.command(command))?;
                if run.flow.returns {
                    break;
                }
            }
            Ok(status)
        })
    }

    /// Goes one level down, and up again after `body`, whose outcome `$?` becomes.
    fn deeper(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<Status, Stop>,
    ) -> Result<Status, Stop> {
        self.spend(1)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.endless());
        }
        let status = body(self)?;
        self.depth -= 1;
        self.note(status);
        Ok(status)
    }

    fn command(&mut self, command: &Command) -> Result<Status, Stop> {
        match command {
            Command::Simple { words, block, line } => {
                self.line = *line;
                let words = self.expand(words)?;
                self.simple(words, block.as_ref())
            }
            Command::If { condition, body, otherwise } => {
                let status = self.list(condition)?;
                if self.flow.returns {
                    return Ok(status);
                }
                let holds = self.variable("?") == "0";
                self.list(if holds { body } else { otherwise })
            }
            Command::For { variable, values, body, line } => {
                self.line = *line;
                let values = self.expand(values)?;
                self.flow.loops += 1;
                let mut status = Status::SUCCESS;
                for value in values {
                    self.spend(value.len() as u64 + 1)?;
                    if self.flow.continues && self.flow.breaks == 1 {
                        self.flow.breaks = 0;
                    }
                    if self.flow.breaks == 0 {
                        self.assign(variable, &value);
                        status = self.list(body)?;
                        if self.flow.returns {
                            break;
                        }
                    }
                }
                self.leave_loop();
                Ok(status)
            }
            Command::While { until, condition, body } => self.repeat(*until, condition, body),
        }
    }

    fn repeat(&mut self, until: bool, condition: &List, body: &List) -> Result<Status, Stop> {
        self.flow.loops += 1;
        let status = loop {
            let status = self.list(condition)?;
            if self.flow.returns || status.is_success() == until {
                break status;
            }
            let status = self.list(body)?;
            if self.flow.returns {
                break status;
            }
            if self.flow.breaks == 1 && self.flow.continues {
                self.flow.breaks = 0;
            }
            if self.flow.breaks > 0 {
                break status;
            }
        };
        self.leave_loop();
        Ok(status)
    }

    fn leave_loop(&mut self) {
        self.flow.breaks = self.flow.breaks.saturating_sub(1);
        self.flow.loops = self.flow.loops.saturating_sub(1);
    }

    fn simple(
        &mut self,
        words: Vec<String>,
        block: Option<&super::parse::Block>,
    ) -> Result<Status, Stop> {
        let negated = words.first().is_some_and(|word| word == "!");
        let words = if negated { &words[1..] } else { &words[..] };
        let Some((name, arguments)) = words.split_first() else {
            return Ok(if negated { Status::BAD_ARGUMENT } else { Status::SUCCESS });
        };
        let outcome = match commands::execute(self, name, arguments, block)? {
            Some(status) => Some(status),
            None => match self.functions.get(name).cloned() {
                Some(body) => Some(self.call(&body, arguments)?),
                None => None,
            },
        };
        let Some(status) = outcome else {
            match name.split_once('=') {
                Some((name, value)) => self.assign(name, value),
                None => self.warn(name, "is a command that is not known here and is passed over"),
            }
            // To GRUB, too, that is a success.
            return Ok(Status::SUCCESS);
        };
        Ok(match (negated, status) {
            (false, status) => status,
            (true, Status::SUCCESS) => Status::FALSE,
            (true, _) => Status::SUCCESS,
        })
    }

    fn call(&mut self, body: &List, arguments: &[String]) -> Result<Status, Stop> {
        let scope = self.scope.replace(arguments.to_vec());
        let loops = std::mem::take(&mut self.flow.loops);
        let status = self.list(body)?;
        self.flow.returns = false;
        self.flow.loops = loops;
        self.scope = scope;
        Ok(status)
    }
}
