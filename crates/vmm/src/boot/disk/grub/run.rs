//! Running a GRUB script.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::volumes::{Choice, Place, Volumes};
use super::GrubError;
use super::commands;
use super::lex::{Piece, Word};
use super::menu::MenuEntry;
use super::parse::{Block, Statement, parse};

/// What all commands of a boot may cost together: one for each, and one for each byte that they
/// expand or read.
const FUEL: u64 = 8 << 20;
/// What asking for a file costs.
pub(super) const FILE_COST: u64 = 256;
/// Functions and files within each other.
const MAX_DEPTH: u32 = 24;
/// The largest configuration file.
const MAX_SCRIPT: u64 = 1 << 20;

/// Why a block ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// `return`.
    Return,
    /// `boot`.
    Boot,
    /// Another configuration has made a menu.
    Menu,
    /// The configuration cannot be used.
    Error(GrubError),
}

/// What `linux` and `initrd` have loaded.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) kernel: Option<(Place, String)>,
    pub(super) initrds: Vec<Place>,
    /// Why there is none.
    pub(super) failure: Option<String>,
}

impl Loaded {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn take(&mut self) -> Option<Choice> {
        let Self { kernel, initrds, .. } = std::mem::take(self);
        let (kernel, cmdline) = kernel?;
        Some(Choice { title: String::new(), kernel, initrds, cmdline })
    }
}

/// A script as it runs.
pub(super) struct Run<'a> {
    pub(super) volumes: &'a Volumes,
    pub(super) variables: BTreeMap<String, String>,
    functions: BTreeMap<String, Rc<Block>>,
    pub(super) arguments: Vec<String>,
    pub(super) menu: Vec<MenuEntry>,
    pub(super) loaded: Loaded,
    file: String,
    fuel: u64,
    depth: u32,
}

impl<'a> Run<'a> {
    /// The state in which GRUB begins with the configuration at `place`.
    pub(super) fn new(volumes: &'a Volumes, place: &Place) -> Self {
        let device = volumes.name(place.volume);
        let folder = place.path.rfind('/').map_or("", |end| &place.path[..end]);
        let set = [
            ("root", device.to_owned()),
            ("prefix", format!("({device}){folder}")),
            ("cmdpath", format!("({device}){folder}")),
            // As installed for BIOS: there is no EFI firmware behind the kernel either.
            ("grub_cpu", "i386".into()),
            ("grub_platform", "pc".into()),
            ("feature_menuentry_id", "y".into()),
            ("feature_menuentry_options", "y".into()),
            ("feature_timeout_style", "y".into()),
            ("feature_platform_search_hint", "y".into()),
            ("feature_default_font_path", "y".into()),
            ("feature_all_video_module", "y".into()),
            ("feature_chainloader_bpb", "y".into()),
            ("feature_ntldr", "y".into()),
            ("feature_nativedisk_cmd", "y".into()),
            ("feature_200_final", "y".into()),
        ];
        Self {
            volumes,
            variables: set.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            functions: BTreeMap::new(),
            arguments: Vec::new(),
            menu: Vec::new(),
            loaded: Loaded::default(),
            file: volumes.describe(place),
            fuel: FUEL,
            depth: 0,
        }
    }

    /// Uses up fuel.
    pub(super) fn spend(&mut self, cost: u64) -> Result<(), Stop> {
        self.fuel = self.fuel.checked_sub(cost).ok_or_else(|| self.endless())?;
        Ok(())
    }

    fn endless(&self) -> Stop {
        Stop::Error(GrubError::Endless(self.file.clone()))
    }

    /// Goes one level down, and up again after `body`.
    fn deeper<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T, Stop>) -> Result<T, Stop> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.endless());
        }
        let outcome = body(self);
        self.depth -= 1;
        outcome
    }

    /// The value of a variable; empty if it has none.
    pub(super) fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", |value| value)
    }

    /// The place that a file name means: `(hd0,gpt2)/path`, or `/path` on the root device.
    pub(super) fn place(&self, name: &str) -> Option<Place> {
        let (device, path) = match name.strip_prefix('(') {
            Some(rest) => rest.split_once(')')?,
            None => (self.variable("root"), name),
        };
        let volume = self.volumes.device(device)?;
        path.starts_with('/').then(|| Place { volume, path: path.to_owned() })
    }

    /// Runs the file at `place`.
    pub(super) fn config_file(&mut self, place: &Place) -> Result<bool, Stop> {
        let file = self.volumes.describe(place);
        let error = |reason: String| Stop::Error(GrubError::Read { file: file.clone(), reason });
        let bytes = match self.volumes.read(place, MAX_SCRIPT) {
            Ok(bytes) => bytes,
            Err(reason) => return Err(error(reason.to_string())),
        };
        self.spend(bytes.len() as u64 + FILE_COST)?;
        let script = String::from_utf8_lossy(&bytes);
        let block = parse(&script).map_err(|error| {
            Stop::Error(GrubError::Syntax {
                file: file.clone(),
                line: error.line,
                what: error.what,
            })
        })?;
        let before = std::mem::replace(&mut self.file, file);
        let outcome = self.deeper(|run| run.block(&block));
        self.file = before;
        match outcome {
            Err(Stop::Return) => Ok(true),
            other => other,
        }
    }

    /// Runs commands; the last one's outcome is the block's.
    pub(super) fn block(&mut self, block: &Block) -> Result<bool, Stop> {
        let mut outcome = true;
        for statement in block {
            outcome = self.statement(statement)?;
            self.variables.insert("?".into(), if outcome { "0" } else { "1" }.into());
        }
        Ok(outcome)
    }

    fn statement(&mut self, statement: &Statement) -> Result<bool, Stop> {
        self.spend(1)?;
        match statement {
            Statement::Command { words, block } => {
                let words = self.expand(words)?;
                self.command(words, block.as_ref())
            }
            Statement::If { arms, otherwise } => {
                for (condition, body) in arms {
                    if self.block(condition)? {
                        return self.block(body);
                    }
                }
                self.block(otherwise)
            }
            Statement::For { variable, values, body } => {
                let mut outcome = true;
                for value in self.expand(values)? {
                    self.spend(1)?;
                    self.variables.insert(variable.clone(), value);
                    outcome = self.block(body)?;
                }
                Ok(outcome)
            }
            Statement::While { until, condition, body } => {
                let mut outcome = true;
                while self.block(condition)? != *until {
                    self.spend(1)?;
                    outcome = self.block(body)?;
                }
                Ok(outcome)
            }
            Statement::Function { name, body } => {
                self.functions.insert(name.clone(), body.clone());
                Ok(true)
            }
        }
    }

    fn command(&mut self, words: Vec<String>, block: Option<&Rc<Block>>) -> Result<bool, Stop> {
        let Some((name, arguments)) = words.split_first() else { return Ok(true) };
        if let Some(body) = self.functions.get(name).cloned() {
            let before = std::mem::replace(&mut self.arguments, arguments.to_vec());
            let outcome = self.deeper(|run| run.block(&body));
            self.arguments = before;
            return match outcome {
                Err(Stop::Return) => Ok(true),
                other => other,
            };
        }
        commands::execute(self, name, arguments, block)
    }

    /// The words with their variables' values.
    fn expand(&mut self, words: &[Word]) -> Result<Vec<String>, Stop> {
        let mut expanded = Vec::new();
        for word in words {
            // The word that grows; none between two.
            let mut current: Option<String> = None;
            for piece in word {
                match piece {
                    Piece::Text { text, .. } => {
                        self.spend(text.len() as u64)?;
                        current.get_or_insert_default().push_str(text);
                    }
                    Piece::Variable { name, quoted: true } if name == "@" => {
                        // Each argument is a word of its own.
                        for (index, argument) in self.arguments.clone().into_iter().enumerate() {
                            self.spend(argument.len() as u64 + 1)?;
                            if index > 0 {
                                expanded.extend(current.take());
                            }
                            current.get_or_insert_default().push_str(&argument);
                        }
                    }
                    Piece::Variable { name, quoted } => {
                        let value = self.value(name);
                        self.spend(value.len() as u64 + 1)?;
                        if *quoted {
                            current.get_or_insert_default().push_str(&value);
                            continue;
                        }
                        let is_blank = |c: char| matches!(c, ' ' | '\t' | '\n');
                        for (index, part) in value.split(is_blank).enumerate() {
                            if index > 0 {
                                expanded.extend(current.take());
                            }
                            if !part.is_empty() {
                                current.get_or_insert_default().push_str(part);
                            }
                        }
                    }
                }
            }
            expanded.extend(current);
        }
        Ok(expanded)
    }

    fn value(&self, name: &str) -> String {
        match name {
            "@" | "*" => self.arguments.join(" "),
            "#" => self.arguments.len().to_string(),
            _ => match name.parse::<usize>() {
                Ok(number) => {
                    let argument =
                        number.checked_sub(1).and_then(|index| self.arguments.get(index));
                    argument.cloned().unwrap_or_default()
                }
                Err(_) => self.variable(name).to_owned(),
            },
        }
    }

    /// A text with the values of the variables in it, as entries of the Boot Loader Specification
    /// may have them under GRUB.
    pub(super) fn substitute(&self, text: &str) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            result.push_str(before);
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let (name, tail) = braced.unwrap_or_else(|| {
                after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len()))
            });
            if name.is_empty() {
                result.push('$');
            } else {
                result.push_str(self.variable(name));
            }
            rest = tail;
        }
        result + rest
    }
}
