//! What was measured, side by side.

use std::time::Duration;

use anyhow::{Result, bail};

/// How far a guest's clock may be from the host's: a share of the time, and what a busy host takes to
/// see a line.
const CLOCK_SHARE: f64 = 0.1;
const CLOCK_SLACK: Duration = Duration::from_millis(500);

/// How a program ended.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Took(Took),
    Failed(String),
}

/// What a program that ended well says.
#[derive(Clone, Debug, PartialEq)]
struct Took {
    /// What is compared.
    figure: Duration,
    /// By the guest's clock, and by the host's.
    elapsed: [Duration; 2],
    checksum: String,
}

/// One run of all programs in one place.
#[derive(Default)]
pub(in crate::bench) struct Trial {
    programs: Vec<(String, Outcome)>,
    /// The program that runs, when the host saw it begin, and for how long it ran.
    running: Option<(String, Duration, Option<Duration>)>,
    /// What keeps all of them from running.
    obstacle: Option<String>,
}

impl Trial {
    /// Takes a line of the console, which came `since` the start: see `guest/programs`.
    pub(in crate::bench) fn line(&mut self, line: &str, since: Duration) {
        let mut words = line.split(' ');
        let (Some("program"), Some(name), Some(what)) = (words.next(), words.next(), words.next())
        else {
            return;
        };
        let rest: Vec<&str> = words.collect();
        let running = self.running.take().filter(|(running, ..)| running == name);
        let outcome = match (what, running) {
            ("begins", _) => {
                self.running = Some((name.to_owned(), since, None));
                return;
            }
            ("ends", Some((name, began, None))) => {
                self.running = Some((name, began, Some(since.saturating_sub(began))));
                return;
            }
            ("took", Some((.., Some(host)))) => took(&rest, host),
            ("failed", _) => Some(Outcome::Failed(rest.join(" "))),
            _ => None,
        };
        let outcome = outcome.unwrap_or_else(|| Outcome::Failed(format!("it printed {line:?}")));
        self.programs.push((name.to_owned(), outcome));
    }

    /// Takes the end of the console.
    pub(in crate::bench) fn end(&mut self, tail: &str) {
        if let Some((name, ..)) = self.running.take() {
            let outcome = Outcome::Failed(format!("it did not end; last lines:\n{tail}"));
            self.programs.push((name, outcome));
        } else if self.programs.is_empty() {
            self.obstacle = Some(format!("nothing ran; last lines:\n{tail}"));
        }
    }
}

/// `NANOSECONDS ELAPSED CHECKSUM`.
fn took(words: &[&str], host: Duration) -> Option<Outcome> {
    let [figure, elapsed, checksum] = words else { return None };
    let time = |text: &str| text.parse().ok().map(Duration::from_nanos);
    let (figure, elapsed) = (time(figure)?, [time(elapsed)?, host]);
    Some(Outcome::Took(Took { figure, elapsed, checksum: (*checksum).to_owned() }))
}

/// The best of several trials in one place.
#[derive(Default)]
pub(in crate::bench) struct Column {
    programs: Vec<(String, Outcome)>,
    obstacle: Option<String>,
    /// Whoever made something else than before.
    unsteady: Vec<String>,
    /// By which clock was what.
    clocks: Vec<String>,
}

impl Column {
    /// Takes a trial's programs: the best time counts, a failure always.
    pub(in crate::bench) fn add(&mut self, trial: &Trial) {
        self.obstacle = self.obstacle.take().or_else(|| trial.obstacle.clone());
        for (name, outcome) in &trial.programs {
            if let Outcome::Took(Took { elapsed: [guest, host], .. }) = outcome
                && guest.abs_diff(*host) > guest.mul_f64(CLOCK_SHARE) + CLOCK_SLACK
            {
                self.clocks.push(format!("{name} took {guest:.1?}, by the host {host:.1?}"));
            }
            let Some((_, known)) = self.programs.iter_mut().find(|(other, _)| other == name) else {
                self.programs.push((name.clone(), outcome.clone()));
                continue;
            };
            match (&*known, outcome) {
                (Outcome::Took(old), Outcome::Took(new)) => {
                    if old.checksum != new.checksum {
                        self.unsteady.push(name.clone());
                    }
                    if new.figure < old.figure {
                        *known = outcome.clone();
                    }
                }
                (Outcome::Took(_), Outcome::Failed(_)) => *known = outcome.clone(),
                (Outcome::Failed(_), _) => {}
            }
        }
    }

    /// The names of the programs with their best times.
    pub(in crate::bench) fn figures(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.programs.iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Took(took) => Some((&**name, took.figure)),
            Outcome::Failed(_) => None,
        })
    }

    fn took(&self, name: &str) -> Option<&Took> {
        self.programs.iter().find_map(|(other, outcome)| match outcome {
            Outcome::Took(took) if other == name => Some(took),
            _ => None,
        })
    }
}

/// Everything.
#[derive(Default)]
pub(super) struct Table {
    pub(super) cloister: Column,
    pub(super) qemu: Column,
    pub(super) native: Column,
}

impl Table {
    fn columns(&self) -> [(&'static str, &Column); 3] {
        [("cloister", &self.cloister), ("qemu tcg", &self.qemu), ("native", &self.native)]
    }

    /// Prints times, ratios and the means of these.
    pub(super) fn print(&self) {
        println!("    program          cloister ms  qemu tcg ms  native ms  to tcg  to native");
        let (mut to_qemu, mut to_native) = (Vec::new(), Vec::new());
        for name in names(&self.columns()) {
            let time = |column: &Column| Some(column.took(name)?.figure.as_secs_f64() * 1e3);
            let [ours, qemu, native] = self.columns().map(|(_, column)| time(column));
            let ratio = |other: Option<f64>| Some(ours? / other?);
            to_qemu.extend(ratio(qemu));
            to_native.extend(ratio(native));
            println!(
                "    {name:<15}  {}  {}  {}  {}  {}",
                cell(ours, 11, 1),
                cell(qemu, 11, 1),
                cell(native, 9, 1),
                cell(ratio(qemu), 6, 2),
                cell(ratio(native), 9, 2)
            );
        }
        let (qemu, native) = (mean(&to_qemu), mean(&to_native));
        println!("    geometric mean {:>38}  {}  {}", "", cell(qemu, 6, 2), cell(native, 9, 2));
    }

    /// As [`check`].
    ///
    /// # Errors
    /// The same.
    pub(super) fn check(&self) -> Result<()> {
        check(&self.columns())
    }
}

/// Names what was not as it has to be in any of these places.
///
/// # Errors
/// Anything of that kind, but for a machine that lets nobody have a root directory of his own: that is said.
pub(in crate::bench) fn check(columns: &[(&str, &Column)]) -> Result<()> {
    let mut faults = Vec::new();
    for (place, column) in columns {
        match &column.obstacle {
            Some(why) if *place == "native" => println!("    not run natively: {why}"),
            Some(why) => faults.push(format!("{place}: {why}")),
            None => {}
        }
        for (name, outcome) in &column.programs {
            if let Outcome::Failed(why) = outcome {
                faults.push(format!("{name} failed in {place}: {why}"));
            }
        }
        let differs = |name| format!("{name} did not always make the same in {place}");
        faults.extend(column.unsteady.iter().map(differs));
        let clock = |line| format!("{place}'s clock is not the host's: {line}");
        faults.extend(column.clocks.iter().map(clock));
    }
    for name in names(columns) {
        let took: Vec<(&str, &Took)> = columns
            .iter()
            .filter_map(|(place, column)| Some((*place, column.took(name)?)))
            .collect();
        if took.windows(2).any(|pair| pair[0].1.checksum != pair[1].1.checksum) {
            let made: Vec<String> =
                took.iter().map(|(place, took)| format!("{place} {}", took.checksum)).collect();
            faults.push(format!("{name} did not make the same: {}", made.join(", ")));
        }
    }
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
}

/// The names of all programs, in order.
fn names<'a>(columns: &[(&str, &'a Column)]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in columns.iter().flat_map(|(_, column)| &column.programs) {
        if !names.contains(&&**name) {
            names.push(name);
        }
    }
    names
}

/// A number, or a line where there is none.
pub(in crate::bench) fn cell(value: Option<f64>, width: usize, digits: usize) -> String {
    match value {
        Some(value) => format!("{value:width$.digits$}"),
        None => format!("{:>width$}", "-"),
    }
}

/// The geometric mean of some numbers.
pub(in crate::bench) fn mean(values: &[f64]) -> Option<f64> {
    let logarithms: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (logarithms / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Column, Outcome, Table, Trial, mean};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn trial(lines: &[(&str, u64)]) -> Trial {
        let mut trial = Trial::default();
        lines.iter().for_each(|(line, at)| trial.line(line, ms(*at)));
        trial.end("the tail");
        trial
    }

    /// Of a program that ends at `end` with `line`.
    fn trial_of(line: &str, end: u64) -> Trial {
        trial(&[("program a begins", 0), ("program a ends", end), (line, end + 9000)])
    }

    fn column(trials: &[Trial]) -> Column {
        let mut column = Column::default();
        trials.iter().for_each(|trial| column.add(trial));
        column
    }

    #[test]
    fn the_best_time_of_a_program_counts() {
        let run = |ns: &str| trial_of(&format!("program a took {ns} {ns} 0f"), 1);

        let column = column(&[run("3000"), run("1000"), run("2000")]);

        assert_eq!(column.took("a").unwrap().figure, Duration::from_nanos(1000));
        assert!(column.clocks.is_empty() && column.unsteady.is_empty());
    }

    #[test]
    fn a_failure_is_named_and_no_time() {
        let good = trial_of("program a took 5 5 0f", 1);
        let bad = trial_of("program a failed it ended with 1", 1);

        let table = Table { cloister: column(&[good, bad]), ..Table::default() };

        assert!(table.cloister.took("a").is_none());
        let error = table.check().unwrap_err().to_string();
        assert_eq!(error, "a failed in cloister: it ended with 1");
    }

    #[test]
    fn a_program_that_never_ends_is_named() {
        let trial = trial(&[("program a begins", 0)]);

        let [(name, Outcome::Failed(why))] = &trial.programs[..] else { panic!("not failed") };
        assert_eq!((&**name, &**why), ("a", "it did not end; last lines:\nthe tail"));
    }

    #[test]
    fn what_is_made_must_be_the_same_everywhere() {
        let run = |sum: &str| trial_of(&format!("program a took 5 5 {sum}"), 1);

        let [cloister, qemu, native] = ["0f", "0f", "0e"].map(|sum| column(&[run(sum)]));
        let table = Table { cloister, qemu, native };

        let error = table.check().unwrap_err().to_string();
        assert_eq!(error, "a did not make the same: cloister 0f, qemu tcg 0f, native 0e");
    }

    #[test]
    fn a_clock_that_is_not_the_hosts_is_named() {
        let trial = trial_of("program a took 5 1000000000 0f", 5000);

        let table = Table { qemu: column(&[trial]), ..Table::default() };

        let error = table.check().unwrap_err().to_string();
        assert_eq!(error, "qemu tcg's clock is not the host's: a took 1.0s, by the host 5.0s");
    }

    #[test]
    fn the_mean_of_ratios_is_geometric() {
        assert_eq!(mean(&[0.5, 2.0]), Some(1.0));
        assert_eq!(mean(&[]), None);
    }
}
