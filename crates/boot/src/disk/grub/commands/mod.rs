//! GRUB's commands, as far as they choose what Linux boots.

mod blscfg;
mod configuration;
mod entries;
mod load;
mod options;
mod probe;
mod regexp;
pub(super) mod search;
mod variables;

use super::GrubError;
use super::lex::Lines;
use super::number;
use super::parse::Block;
use super::run::{FILE_COST, Run, Stop};
use super::status::Status;
use super::test_command::{self, Files};
use crate::disk::filesystem::{Entry, Kind};
use options::{Dashes, NotRun, Spec, parse};
use search::Wanted;

/// Executes one command; `None` if it is not one.
pub(super) fn execute(
    run: &mut Run<'_>,
    name: &str,
    arguments: &[String],
    block: Option<&Block>,
) -> Result<Option<Status>, Stop> {
    let is_entry = matches!(name, "menuentry" | "submenu");
    // To other commands a block is a word.
    let with_block: Vec<String>;
    let arguments = match block {
        Some(block) if !is_entry => {
            with_block = [arguments, &[format!("{{{}}}", block.text)]].concat();
            &with_block
        }
        _ => arguments,
    };
    let status = match name {
        "true" => Status::SUCCESS,
        "false" => Status::FALSE,
        "set" => variables::set(run, arguments),
        "unset" => variables::unset(run, arguments),
        "export" => variables::export(run, arguments),
        "increment" => variables::count(run, arguments, 1),
        "decrement" => variables::count(run, arguments, -1),
        "load_env" => variables::load_env(run, arguments)?,
        "test" | "[" => test(run, arguments)?,
        "echo" => echo(run, arguments)?,
        "break" | "continue" => leave(run, name == "continue", arguments),
        "return" => come_back(run, arguments),
        "shift" => shift(run, arguments),
        "setparams" => match &mut run.scope {
            Some(parameters) => {
                *parameters = arguments.to_vec();
                Status::SUCCESS
            }
            None => Status::INVALID_COMMAND,
        },
        "eval" => eval(run, arguments)?,
        "menuentry" | "submenu" => entries::entry(run, name == "submenu", arguments, block)?,
        "linux" | "linux16" | "linuxefi" => load::linux(run, arguments)?,
        "initrd" | "initrd16" | "initrdefi" => load::initrd(run, arguments)?,
        "chainloader" | "multiboot" | "multiboot2" | "xen_hypervisor" | "ntldr" | "freedos"
        | "plan9" | "truecrypt" | "kfreebsd" | "knetbsd" | "kopenbsd" | "xnu_kernel"
        | "xnu_kernel64" | "appleloader" => load::other(run, name),
        "boot" => {
            if run.loaded.is_any() {
                return Err(Stop::Boot);
            }
            Status::NO_KERNEL
        }
        // grub-mkconfig asks for it wherever it is.
        "fwsetup" if arguments.iter().any(|word| word == "--is-supported") => Status::FALSE,
        "exit" | "halt" | "reboot" | "fwsetup" => {
            let what = format!("uses {name}, and only Linux is booted here (line {})", run.line);
            return Err(Stop::Error(GrubError::Commands { file: run.file.clone(), what }));
        }
        "search" => search::search(run, arguments)?,
        "search.fs_uuid" => search::search_for(run, Wanted::Uuid, arguments)?,
        "search.fs_label" => search::search_for(run, Wanted::Label, arguments)?,
        "search.file" => search::search_for(run, Wanted::File, arguments)?,
        "probe" => probe::probe(run, arguments)?,
        "regexp" => regexp::regexp(run, arguments)?,
        "cpuid" => cpuid(arguments),
        "source" | "." => configuration::source(run, arguments)?,
        "configfile" => configuration::configfile(run, arguments)?,
        "normal" => configuration::normal(run, arguments)?,
        "blscfg" | "bls_import" => blscfg::blscfg(run, arguments)?,
        // There is no keyboard.
        "keystatus" => Status::FALSE,
        // There is no screen for it.
        "loadfont" => Status::FILE_NOT_FOUND,
        // What sets up a screen, a keyboard or GRUB itself has no part in the choice.
        "insmod" | "rmmod" | "lsmod" | "terminal_input" | "terminal_output" | "terminal"
        | "serial" | "play" | "sleep" | "save_env" | "list_env" | "clear" | "cls" | "password"
        | "password_pbkdf2" | "authenticate" | "videoinfo" | "videotest" | "vbeinfo"
        | "background_image" | "background_color" | "ls" | "cat" | "help" | "badram" | "cutmem"
        | "gettext" | "nativedisk" | "acpi" | "dump" | "hexdump" | "lspci" | "lsacpi" | "lsefi"
        | "lsefimmap" => Status::SUCCESS,
        // What these would answer is not known here.
        "cmp"
        | "cmostest"
        | "cryptomount"
        | "date"
        | "file"
        | "getenv"
        | "hashsum"
        | "hwmatch"
        | "loopback"
        | "md5sum"
        | "parttool"
        | "read"
        | "setpci"
        | "sha256sum"
        | "sha512sum"
        | "smbios"
        | "tr"
        | "verify_detached"
        | "legacy_configfile"
        | "legacy_source"
        | "syslinux_configfile"
        | "syslinux_source"
        | "devicetree"
        | "module"
        | "module2"
        | "initrd_apfs"
        | "gptsync"
        | "hdparm"
        | "usb"
        | "uki" => {
            run.warn(name, "is a command that is not done here, and is taken to fail");
            Status::FALSE
        }
        _ => return Ok(None),
    };
    Ok(Some(status))
}

impl Files for Run<'_> {
    fn entry(&self, path: &str) -> Option<Entry> {
        let (device, path) = match path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((device, path)) => (device, path),
            None => (self.variable("root"), path),
        };
        let volume = self.volumes.device(device)?.volume?;
        let system = self.volumes.system(volume).ok()?;
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Some(Entry { directory: true, modified: None });
        }
        let slash = if path.contains('/') { "" } else { "/" };
        system.entry(&format!("{slash}{path}")).ok()
    }

    fn file_size(&self, path: &str) -> Option<u64> {
        match self.volumes.kind(&self.place(path)?) {
            Ok(Kind::File(size)) => Some(size),
            _ => None,
        }
    }
}

fn test(run: &mut Run<'_>, expression: &[String]) -> Result<Status, Stop> {
    let asks = |word: &String| {
        matches!(&**word, "-d" | "-e" | "-f" | "-s")
            || word.starts_with("-nt")
            || word.starts_with("-ot")
    };
    let files = expression.iter().filter(|word| asks(word)).count() as u64;
    run.spend(files * 2 * FILE_COST)?;
    Ok(Status::holds(test_command::test(expression, run)))
}

fn echo(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    const OPTIONS: [Spec; 2] = [Spec::flag("n", 'n'), Spec::flag("e", 'e')];
    let given = match parse(&OPTIONS, Dashes::AtStart, arguments) {
        Ok(given) => given,
        Err(NotRun(status)) => return Ok(status),
    };
    let mut text = given.words.join(" ");
    if given.has("e") {
        text = text.replace("\\n", "\n").replace("\\t", "\t");
    }
    if !given.has("n") {
        text.push('\n');
    }
    run.spend(text.len() as u64)?;
    run.transcript.say(&text);
    Ok(Status::SUCCESS)
}

fn leave(run: &mut Run<'_>, continues: bool, arguments: &[String]) -> Status {
    let count = match arguments {
        [] => Ok(1),
        [count] => number::whole(count),
        _ => Err(Status::BAD_ARGUMENT),
    };
    match count {
        Ok(0) => Status::BAD_ARGUMENT,
        Ok(count) => {
            run.flow.continues = continues;
            run.flow.breaks = count.min(run.flow.loops);
            Status::SUCCESS
        }
        Err(status) => status,
    }
}

fn come_back(run: &mut Run<'_>, arguments: &[String]) -> Status {
    let status = match arguments {
        _ if run.scope.is_none() => Err(Status::BAD_ARGUMENT),
        // That of the last command.
        [] => Ok(number::unsigned(run.variable("?"))),
        [status] => number::whole(status),
        _ => Err(Status::BAD_ARGUMENT),
    };
    match status {
        Ok(status) => {
            run.flow.returns = true;
            Status(status)
        }
        Err(status) => status,
    }
}

fn shift(run: &mut Run<'_>, arguments: &[String]) -> Status {
    let Some(parameters) = &mut run.scope else { return Status::SUCCESS };
    let count = match arguments {
        [] => Ok(1),
        [count] => number::whole(count),
        _ => Err(Status::BAD_ARGUMENT),
    };
    match count.map(|count| count as usize) {
        Ok(count) if count <= parameters.len() => {
            parameters.drain(..count);
            Status::SUCCESS
        }
        _ => Status::BAD_ARGUMENT,
    }
}

fn eval(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    if arguments.is_empty() {
        return Ok(Status::SUCCESS);
    }
    let text = arguments.join(" ");
    run.spend(text.len() as u64)?;
    let line = run.line;
    run.text(&mut Lines::of_text(&text, line))
}

/// The processor has long mode and physical-address extensions.
fn cpuid(arguments: &[String]) -> Status {
    const OPTIONS: [Spec; 2] = [Spec::flag("long-mode", 'l'), Spec::flag("pae", 'p')];
    match parse(&OPTIONS, Dashes::Strict, arguments) {
        Ok(_) => Status::SUCCESS,
        Err(NotRun(status)) => status,
    }
}
