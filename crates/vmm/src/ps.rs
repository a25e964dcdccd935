//! `cloister ps`: the user's running machines.

use std::fmt::Write as _;

use clap::Args;

use crate::register::{Entry, Register, RegisterError, now};
use crate::size::format_size;

/// Options of `cloister ps`.
#[derive(Args, Debug)]
pub struct PsArgs {
    /// Write JSON, one line per machine
    #[arg(long)]
    json: bool,
}

/// The machines, in a table or in lines of JSON.
///
/// # Errors
///
/// [`RegisterError`].
pub fn ps(args: &PsArgs) -> Result<String, RegisterError> {
    let machines = Register::of_user().machines()?;
    Ok(if args.json { json(&machines) } else { table(&machines, now()) })
}

fn json(machines: &[Entry]) -> String {
    // Numbers and texts always have a form in JSON.
    let lines = machines.iter().filter_map(|machine| serde_json::to_string(machine).ok());
    lines.map(|line| line + "\n").collect()
}

fn table(machines: &[Entry], now: u64) -> String {
    const HEAD: [&str; 9] =
        ["PID", "NAME", "COMMAND", "UP", "ACCEL", "CPUS", "MEMORY", "EPC", "MONITOR"];
    let row = |machine: &Entry| {
        [
            machine.pid.to_string(),
            machine.name.escape_debug().to_string(),
            machine.command.escape_debug().to_string(),
            duration(now.saturating_sub(machine.started)),
            machine.accel.escape_debug().to_string(),
            machine.cpus.to_string(),
            format_size(machine.memory),
            if machine.epc == 0 { "-".to_owned() } else { format_size(machine.epc) },
            machine.qmp.first().map_or("-".to_owned(), |path| path.escape_debug().to_string()),
        ]
    };
    let rows: Vec<[String; 9]> =
        [HEAD.map(str::to_owned)].into_iter().chain(machines.iter().map(row)).collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &rows {
        let cells =
            row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// A time in its two largest units.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, name: &str) -> Entry {
        Entry {
            pid,
            name: name.into(),
            command: "run".into(),
            started: 1000,
            accel: "soft".into(),
            cpus: 2,
            memory: 512 << 20,
            epc: 0,
            qmp: vec![],
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_machine_whatever_its_name() {
        let monitored = Entry { epc: 64 << 20, qmp: vec!["/run/q".into()], ..entry(12345, "web") };
        let text = table(&[entry(7, "a\nb"), monitored], 1000 + 3723);

        assert_eq!(
            text,
            "PID    NAME  COMMAND  UP     ACCEL  CPUS  MEMORY  EPC  MONITOR\n\
             7      a\\nb  run      1h02m  soft   2     512M    -    -\n\
             12345  web   run      1h02m  soft   2     512M    64M  /run/q\n"
        );
        assert_eq!(table(&[], 0), "PID  NAME  COMMAND  UP  ACCEL  CPUS  MEMORY  EPC  MONITOR\n");
    }

    #[test]
    fn times_have_two_units() {
        let times = [0, 59, 60, 3599, 3600, 86399, 86400, 10 * 86400 + 3600].map(duration);

        assert_eq!(times, ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h", "10d01h"]);
    }
}
