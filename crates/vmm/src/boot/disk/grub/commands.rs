//! GRUB's commands, as far as they choose what Linux boots.

use std::rc::Rc;

use super::super::bls;
use super::super::filesystem::{FileSystem, Kind};
use super::super::volumes::{Place, Volumes};
use super::environment_block;
use super::menu::{Action, MenuEntry};
use super::parse::Block;
use super::run::{FILE_COST, Run, Stop};
use super::test_command::{self, Files};

/// The largest environment block.
const MAX_ENVIRONMENT: u64 = 64 << 10;
/// Entries of one menu.
const MAX_ENTRIES: usize = 1024;

/// Executes one command. Its outcome is what `if` asks.
pub(super) fn execute(
    run: &mut Run<'_>,
    name: &str,
    arguments: &[String],
    block: Option<&Rc<Block>>,
) -> Result<bool, Stop> {
    match name {
        "set" | "export" => Ok(set(run, arguments)),
        "unset" => {
            for variable in arguments {
                run.variables.remove(variable);
            }
            Ok(true)
        }
        "true" => Ok(true),
        "false" => Ok(false),
        "test" => test(run, arguments),
        "[" => match arguments.split_last() {
            Some((last, expression)) if last == "]" => test(run, expression),
            _ => Ok(false),
        },
        "return" => Err(Stop::Return),
        "shift" => {
            run.arguments.drain(..1.min(run.arguments.len()));
            Ok(true)
        }
        "setparams" => {
            run.arguments = arguments.to_vec();
            Ok(true)
        }
        "menuentry" | "submenu" => Ok(menu_entry(run, name == "submenu", arguments, block)),
        "linux" | "linux16" | "linuxefi" => Ok(linux(run, arguments)),
        "initrd" | "initrd16" | "initrdefi" => Ok(initrd(run, arguments)),
        "boot" if run.loaded.kernel.is_some() => Err(Stop::Boot),
        "chainloader" | "multiboot" | "multiboot2" | "xen_hypervisor" | "ntldr" | "freedos"
        | "kfreebsd" | "knetbsd" | "kopenbsd" | "xnu_kernel64" | "appleloader" | "fwsetup"
        | "exit" | "halt" | "reboot" => {
            run.loaded.clear();
            run.loaded.failure = Some(format!("uses {name}, and only Linux is booted here"));
            Ok(true)
        }
        "load_env" => load_env(run, arguments),
        "search" => search(run, arguments),
        "search.fs_uuid" => search_for(run, Wanted::Uuid, arguments),
        "search.fs_label" => search_for(run, Wanted::Label, arguments),
        "search.file" => search_for(run, Wanted::File, arguments),
        "source" | "." => match arguments.first().and_then(|file| existing(run, file)) {
            Some(place) => run.config_file(&place),
            None => Ok(false),
        },
        "configfile" | "normal" => config_file(run, arguments),
        "blscfg" => blscfg(run),
        // What sets up a screen, a keyboard or GRUB itself has no part in the choice.
        "insmod" | "rmmod" | "echo" | "terminal_input" | "terminal_output" | "terminal"
        | "serial" | "play" | "sleep" | "save_env" | "clear" | "password" | "password_pbkdf2"
        | "videoinfo" | "background_image" | "background_color" => Ok(true),
        _ => match name.split_once('=') {
            Some(_) => Ok(set(run, &[name.to_owned()])),
            None => {
                tracing::debug!(name, "a command of GRUB that is not known here fails");
                Ok(false)
            }
        },
    }
}

fn set(run: &mut Run<'_>, arguments: &[String]) -> bool {
    for assignment in arguments {
        if let Some((name, value)) = assignment.split_once('=') {
            run.variables.insert(name.to_owned(), value.to_owned());
        }
    }
    true
}

impl Files for Run<'_> {
    fn is_directory(&self, path: &str) -> bool {
        self.place(path)
            .is_some_and(|place| matches!(self.volumes.kind(&place), Ok(Kind::Directory)))
    }

    fn file_size(&self, path: &str) -> Option<u64> {
        match self.volumes.kind(&self.place(path)?) {
            Ok(Kind::File(size)) => Some(size),
            _ => None,
        }
    }
}

fn test(run: &mut Run<'_>, expression: &[String]) -> Result<bool, Stop> {
    let asks_files = expression.iter().any(|word| matches!(&**word, "-d" | "-e" | "-f" | "-s"));
    if asks_files {
        run.spend(FILE_COST * expression.len() as u64)?;
    }
    Ok(test_command::test(expression, run))
}

fn menu_entry(
    run: &mut Run<'_>,
    submenu: bool,
    arguments: &[String],
    block: Option<&Rc<Block>>,
) -> bool {
    let Some(block) = block.filter(|_| run.menu.len() < MAX_ENTRIES) else { return false };
    let (mut id, mut words) = (String::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            _ => (&**argument, None),
        };
        match option {
            "--unrestricted" => {}
            "--id" | "--class" | "--users" | "--hotkey" | "--source" => {
                let value = value.or_else(|| rest.next().cloned());
                if option == "--id" {
                    id = value.unwrap_or_default();
                }
            }
            _ => words.push(argument.clone()),
        }
    }
    let Some(title) = words.first().cloned() else { return false };
    let action = if submenu { Action::Submenu } else { Action::Script }(block.clone());
    run.menu.push(MenuEntry { title, id, action, arguments: words });
    true
}

/// The place of a file that is there.
fn existing(run: &Run<'_>, file: &str) -> Option<Place> {
    run.place(file).filter(|place| matches!(run.volumes.kind(place), Ok(Kind::File(_))))
}

fn linux(run: &mut Run<'_>, arguments: &[String]) -> bool {
    run.loaded.clear();
    let Some((file, rest)) = arguments.split_first() else { return false };
    let Some(place) = existing(run, file) else {
        run.loaded.failure = Some(format!("names a kernel that is not there, {file}"));
        return false;
    };
    // GRUB tells the kernel its file, without the device.
    let mut line = format!("BOOT_IMAGE={file}");
    for word in rest {
        line.push(' ');
        line.push_str(&quote(word));
    }
    run.loaded.kernel = Some((place, line));
    true
}

/// A word as GRUB writes it into the command line.
fn quote(word: &str) -> String {
    let mut quoted = String::new();
    for next in word.chars() {
        if matches!(next, '\\' | '\'' | '"') {
            quoted.push('\\');
        }
        quoted.push(next);
    }
    if word.contains(' ') { format!("\"{quoted}\"") } else { quoted }
}

fn initrd(run: &mut Run<'_>, arguments: &[String]) -> bool {
    let places: Option<Vec<Place>> = arguments.iter().map(|file| existing(run, file)).collect();
    match places {
        Some(places) => run.loaded.initrds = places,
        None => {
            run.loaded.clear();
            let files = arguments.join(" ");
            run.loaded.failure = Some(format!("names an initrd that is not there, {files}"));
            return false;
        }
    }
    true
}

fn load_env(run: &mut Run<'_>, arguments: &[String]) -> Result<bool, Stop> {
    let (mut file, mut names) = (format!("{}/grubenv", run.variable("prefix")), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match &**argument {
            "-f" | "--file" => file = rest.next().cloned().unwrap_or_default(),
            "-s" | "--skip-sig" => {}
            other => match other.strip_prefix("--file=") {
                Some(name) => file = name.to_owned(),
                None => names.push(argument),
            },
        }
    }
    let Some(place) = run.place(&file) else { return Ok(false) };
    let Ok(block) = run.volumes.read(&place, MAX_ENVIRONMENT) else { return Ok(false) };
    run.spend(block.len() as u64 + FILE_COST)?;
    for (name, value) in environment_block::variables(&block) {
        if names.is_empty() || names.contains(&&name) {
            run.variables.insert(name, value);
        }
    }
    Ok(true)
}

/// What `search` looks for.
#[derive(Clone, Copy)]
enum Wanted {
    File,
    Label,
    Uuid,
}

fn search(run: &mut Run<'_>, arguments: &[String]) -> Result<bool, Stop> {
    let (mut wanted, mut variable, mut name) = (Wanted::File, None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match &**argument {
            "-f" | "--file" => wanted = Wanted::File,
            "-l" | "--label" | "--fs-label" => wanted = Wanted::Label,
            "-u" | "--fs-uuid" => wanted = Wanted::Uuid,
            "-s" => variable = rest.next().cloned(),
            "--set" => variable = Some("root".into()),
            "-h" | "--hint" => drop(rest.next()),
            other => match other.strip_prefix("--set=") {
                Some(value) => variable = Some(value.to_owned()),
                None if other.starts_with('-') => {}
                None => name = Some(argument.clone()),
            },
        }
    }
    let Some(name) = name else { return Ok(false) };
    search_for(run, wanted, &[name, variable.unwrap_or_default()])
}

/// Looks for the first volume that fits and puts its name into a variable. `arguments` are what
/// is wanted and the variable.
fn search_for(run: &mut Run<'_>, wanted: Wanted, arguments: &[String]) -> Result<bool, Stop> {
    let Some((name, rest)) = arguments.split_first() else { return Ok(false) };
    run.spend(FILE_COST)?;
    let fits = |system: &dyn FileSystem| match wanted {
        Wanted::File => system.kind(name).is_ok(),
        Wanted::Label => system.label() == *name,
        Wanted::Uuid => system.uuid().eq_ignore_ascii_case(name),
    };
    let volumes: &Volumes = run.volumes;
    let Some((_, volume, _)) = volumes.systems().find(|(_, _, system)| fits(*system)) else {
        return Ok(false);
    };
    if let Some(variable) = rest.first().filter(|variable| !variable.is_empty()) {
        run.variables.insert(variable.clone(), volume.partition.device.clone());
    }
    Ok(true)
}

/// Another configuration, whose menu takes the place of this one.
fn config_file(run: &mut Run<'_>, arguments: &[String]) -> Result<bool, Stop> {
    let default = format!("{}/grub.cfg", run.variable("prefix"));
    let file = arguments.first().unwrap_or(&default);
    let Some(place) = existing(run, file) else { return Ok(false) };
    let before = std::mem::take(&mut run.menu);
    match run.config_file(&place) {
        Ok(_) if run.menu.is_empty() && run.loaded.kernel.is_none() => {
            run.menu = before;
            Ok(true)
        }
        Ok(_) => Err(Stop::Menu),
        Err(stop) => Err(stop),
    }
}

/// Fedora's command: the entries of the Boot Loader Specification become menu entries.
fn blscfg(run: &mut Run<'_>) -> Result<bool, Stop> {
    let device = match run.variable("boot") {
        "" => run.variable("root"),
        device => device,
    };
    let Some(volume) = run.volumes.device(device) else { return Ok(false) };
    let own = run.variable("blsdir").to_owned();
    let folders = [&*own, "/loader/entries", "/boot/loader/entries"];
    for path in folders.into_iter().filter(|path| path.starts_with('/')) {
        run.spend(FILE_COST * MAX_ENTRIES as u64)?;
        let entries = bls::entries(run.volumes, &Place { volume, path: path.to_owned() });
        if entries.is_empty() {
            continue;
        }
        for entry in bls::by_file_name(entries).into_iter().take(MAX_ENTRIES) {
            run.menu.push(MenuEntry {
                title: entry.title.clone(),
                id: entry.id.clone(),
                action: Action::Entry(entry, volume),
                arguments: Vec::new(),
            });
        }
        return Ok(true);
    }
    Ok(false)
}
