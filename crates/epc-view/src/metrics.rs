//! Reports as metrics in the text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use super::report::{EnclaveReport, EpcReport, PagesReport};

/// What a scrape found at one socket.
#[derive(Clone, Debug)]
pub struct Scraped {
    /// The socket's name.
    pub socket: String,
    /// The report, if there was one.
    pub report: Option<EpcReport>,
}

/// The metrics of these machines. A machine that gave no report is `cloister_qmp_up` 0 and has no
/// other metric.
#[must_use]
pub fn metrics(scraped: &[Scraped]) -> String {
    let mut text = Text(String::new());
    text.family("cloister_qmp_up", "gauge", "Whether the machine answered on its QMP socket.");
    for Scraped { socket, report } in scraped {
        text.sample("cloister_qmp_up", &[("socket", socket)], u8::from(report.is_some()));
    }
    let machines: Vec<(String, &EpcReport)> = scraped
        .iter()
        .filter_map(|machine| Some((machine, machine.report.as_ref()?)))
        .map(|(machine, report)| (label(machine, report, scraped), report))
        .collect();
    text.sections(&machines);
    text.accounts(&machines);
    text.enclaves(&machines);
    text.0
}

/// The label `vm`: the machine's name, with its socket if another machine has the same name, since
/// two metrics with the same labels spoil a whole scrape.
fn label(machine: &Scraped, report: &EpcReport, scraped: &[Scraped]) -> String {
    let names = scraped.iter().filter_map(|machine| machine.report.as_ref());
    match names.filter(|other| other.name == report.name).count() {
        1 => report.name.clone(),
        _ => format!("{}@{}", report.name, machine.socket),
    }
}

const fn states(pages: &PagesReport) -> [(&'static str, u64); 14] {
    [
        ("total", pages.total),
        ("backed", pages.backed),
        ("valid", pages.valid),
        ("secs", pages.secs),
        ("tcs", pages.tcs),
        ("reg", pages.reg),
        ("va", pages.va),
        ("trim", pages.trim),
        ("ss_first", pages.ss_first),
        ("ss_rest", pages.ss_rest),
        ("blocked", pages.blocked),
        ("pending", pages.pending),
        ("modified", pages.modified),
        ("restricted", pages.restricted),
    ]
}

/// The text so far.
struct Text(String);

type Machines<'a> = [(String, &'a EpcReport)];

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }

    fn sections(&mut self, machines: &Machines<'_>) {
        let name = "cloister_epc_pages";
        self.family(name, "gauge", "Pages of a section of virtual EPC by state.");
        for (vm, report) in machines {
            for section in &report.sections {
                for (state, count) in states(&section.pages) {
                    let labels = [("vm", vm.as_str()), ("section", &section.id), ("state", state)];
                    self.sample(name, &labels, count);
                }
            }
        }
        let name = "cloister_epc_faults_total";
        self.family(name, "counter", "Touches of pages of virtual EPC that had no backing.");
        for (vm, report) in machines {
            for section in &report.sections {
                self.sample(name, &[("vm", vm), ("section", &section.id)], section.faults);
            }
        }
    }

    fn accounts(&mut self, machines: &Machines<'_>) {
        let name = "cloister_epc_account_pages";
        self.family(name, "gauge", "Pages of the host's EPC that a machine has, by state.");
        for (vm, report) in machines {
            let account = &report.account;
            for (state, count) in [
                ("used", account.used),
                ("zombies", account.zombies),
                ("leaked", account.leaked),
                ("reservation", account.reservation),
            ] {
                self.sample(name, &[("vm", vm), ("state", state)], count);
            }
            if let Some(quota) = account.quota {
                self.sample(name, &[("vm", vm), ("state", "quota")], quota);
            }
        }
        let name = "cloister_epc_refused_total";
        self.family(name, "counter", "Pages of the host's EPC that a machine wanted in vain.");
        for (vm, report) in machines {
            self.sample(name, &[("vm", vm)], report.account.refused);
        }
        let name = "cloister_encls_exits_total";
        self.family(name, "counter", "ENCLS leaves that exited to the hypervisor, by leaf.");
        for (vm, report) in machines {
            let exits = &report.encls_exits;
            for (leaf, count) in
                [("ECREATE", exits.ecreate), ("EINIT", exits.einit), ("others", exits.others)]
            {
                self.sample(name, &[("vm", vm), ("leaf", leaf)], count);
            }
        }
        let name = "cloister_epc_host_pages";
        self.family(name, "gauge", "Pages of the host's EPC that a machine draws on, by state.");
        for (vm, report) in machines {
            let pool = &report.pool;
            for (state, count) in [
                ("total", pool.total),
                ("used", pool.used),
                ("reserved", pool.reserved),
                ("zombies", pool.zombies),
                ("leaked", pool.leaked),
            ] {
                self.sample(name, &[("vm", vm), ("state", state)], count);
            }
        }
    }

    fn enclaves(&mut self, machines: &Machines<'_>) {
        let name = "cloister_enclaves";
        self.family(name, "gauge", "Enclaves whose SECS is in the EPC.");
        for (vm, report) in machines {
            let count = report.enclaves_unlisted.saturating_add(report.enclaves.len() as u64);
            self.sample(name, &[("vm", vm)], count);
        }
        type Value = fn(&EnclaveReport) -> u64;
        let families: [(&str, &str, Value); 3] = [
            (
                "cloister_enclave_threads",
                "Logical processors that execute in an enclave.",
                |enclave| enclave.threads_inside,
            ),
            ("cloister_enclave_pages", "Pages of an enclave in the EPC.", |enclave| {
                enclave.pages.iter().fold(0, |sum, part| sum.saturating_add(part.count))
            }),
            ("cloister_enclave_size_bytes", "SIZE of an enclave.", |enclave| enclave.size),
        ];
        for (name, help, value) in families {
            self.family(name, "gauge", help);
            for (vm, report) in machines {
                for enclave in &report.enclaves {
                    let secs = format!("{:#x}", enclave.secs);
                    // Empty, which is the same as absent, before EINIT.
                    let mrenclave = enclave.mrenclave.as_deref().unwrap_or_default();
                    let labels = [
                        ("vm", vm.as_str()),
                        ("section", &enclave.section),
                        ("secs", &secs),
                        ("mrenclave", mrenclave),
                    ];
                    self.sample(name, &labels, value(enclave));
                }
            }
        }
    }
}

/// The value of a label: backslash, quotation mark and line feed are escaped.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::sample;

    type Labels = BTreeMap<String, String>;

    /// Reads the format as Prometheus does; panics where it would refuse.
    fn read(text: &str) -> Vec<(String, Labels, f64)> {
        assert!(text.ends_with('\n'));
        let (mut samples, mut family) = (Vec::new(), String::new());
        let mut series = HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split_once(' ').expect("a help text").0.to_owned();
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(name == family && ["gauge", "counter"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                continue;
            }
            assert!(series.insert(line.rsplit_once(' ').expect("a value").0), "twice: {line}");
            let (name, rest) = line.split_once('{').expect("labels");
            assert_eq!(name, family, "samples of a family are together");
            let (mut labels, mut rest) = (Labels::new(), rest);
            while !rest.starts_with('}') {
                let (label, quoted) = rest.split_once("=\"").expect("a label");
                let mut value = String::new();
                let mut letters = quoted.char_indices();
                let end = loop {
                    match letters.next().expect("an end").1 {
                        '"' => break letters.next().expect("more").0,
                        '\\' => match letters.next().expect("an escape").1 {
                            'n' => value.push('\n'),
                            letter @ ('\\' | '"') => value.push(letter),
                            other => panic!("escape {other}"),
                        },
                        letter => value.push(letter),
                    }
                };
                assert!(labels.insert(label.to_owned(), value).is_none());
                rest = quoted[end..].strip_prefix(',').unwrap_or(&quoted[end..]);
            }
            let value = rest[1..].trim().parse().expect("a number");
            samples.push((name.to_owned(), labels, value));
        }
        samples
    }

    fn value(samples: &[(String, Labels, f64)], name: &str, labels: &[(&str, &str)]) -> f64 {
        let matching = |sample: &&(String, Labels, f64)| {
            let has = |&(label, value): &(&str, &str)| {
                sample.1.get(label).is_some_and(|other| other == value)
            };
            sample.0 == name && labels.iter().all(has)
        };
        let found: Vec<_> = samples.iter().filter(matching).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0].2
    }

    fn scraped(socket: &str, report: Option<EpcReport>) -> Scraped {
        Scraped { socket: socket.to_owned(), report }
    }

    #[test]
    fn a_report_becomes_the_named_metrics() {
        let samples = read(&metrics(&[scraped("a.sock", Some(sample::report()))]));

        for (name, labels, expected) in [
            ("cloister_qmp_up", &[("socket", "a.sock")][..], 1),
            (
                "cloister_epc_pages",
                &[("vm", "guest"), ("section", "epc0"), ("state", "valid")],
                1100,
            ),
            (
                "cloister_epc_pages",
                &[("vm", "guest"), ("section", "epc1"), ("state", "backed")],
                34,
            ),
            ("cloister_epc_faults_total", &[("section", "epc0")], 1200),
            ("cloister_epc_account_pages", &[("vm", "guest"), ("state", "leaked")], 2),
            ("cloister_epc_account_pages", &[("vm", "guest"), ("state", "reservation")], 0),
            ("cloister_epc_refused_total", &[("vm", "guest")], 3),
            ("cloister_encls_exits_total", &[("vm", "guest"), ("leaf", "EINIT")], 6),
            ("cloister_epc_host_pages", &[("vm", "guest"), ("state", "total")], 32768),
            ("cloister_enclaves", &[("vm", "guest")], 2),
            (
                "cloister_enclave_threads",
                &[("vm", "guest"), ("mrenclave", "ab".repeat(32).as_str())],
                4,
            ),
            ("cloister_enclave_pages", &[("mrenclave", ""), ("secs", "0x100001000")], 1),
            ("cloister_enclave_size_bytes", &[("secs", "0x100000000")], 256 << 10),
        ] {
            assert_eq!(value(&samples, name, labels), f64::from(expected), "{name}");
        }
    }

    #[test]
    fn names_of_any_kind_are_labels() {
        let mut report = sample::report();
        report.name = "a\"b\\c\nd{}=,\u{e4}".to_owned();
        let name = report.name.clone();

        let samples = read(&metrics(&[scraped("x\\\"\n", Some(report))]));

        assert_eq!(value(&samples, "cloister_enclaves", &[("vm", &name)]), 2.0);
        assert_eq!(value(&samples, "cloister_qmp_up", &[("socket", "x\\\"\n")]), 1.0);
    }

    #[test]
    fn machines_of_one_name_are_told_apart_by_their_sockets() {
        let machines = ["a.sock", "b.sock"].map(|name| scraped(name, Some(sample::report())));

        let samples = read(&metrics(&machines));

        for name in ["guest@a.sock", "guest@b.sock"] {
            assert_eq!(value(&samples, "cloister_enclaves", &[("vm", name)]), 2.0);
        }
    }

    #[test]
    fn a_machine_without_an_answer_is_down_and_nothing_else() {
        let machines = [scraped("a.sock", None), scraped("b.sock", Some(sample::report()))];

        let samples = read(&metrics(&machines));

        assert_eq!(value(&samples, "cloister_qmp_up", &[("socket", "a.sock")]), 0.0);
        assert_eq!(value(&samples, "cloister_qmp_up", &[("socket", "b.sock")]), 1.0);
        assert_eq!(value(&samples, "cloister_enclaves", &[("vm", "guest")]), 2.0);
    }
}
