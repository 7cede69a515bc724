//! What a session has used, added up at the end of each task.

use std::collections::{BTreeMap, BTreeSet};

use codegen_audit::Outcome as Verdict;
use codegen_types::operation::ScriptSource;
use codegen_types::{Contact, ContactOutcome, LogSeq, Operation, Package, Program};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most packages that are named.
const PACKAGES_MAX: usize = 500;
/// The most hosts that are named.
const HOSTS_MAX: usize = 100;
/// The longest name of a package, version or host that is kept, in bytes.
const NAME_BYTES_MAX: usize = 300;

/// What a session has used since it was made.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Receipt {
    /// Tasks that ended.
    pub tasks: u64,
    /// Those of them that failed: refused, ended by a limit, or programs that did not exit with 0.
    pub failed: u64,
    /// Processor time of all programs, in milliseconds.
    pub cpu_ms: u64,
    /// Peak resident memory of the largest process, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes of code, input and file contents that came in.
    pub bytes_in: u64,
    /// Bytes of output and file contents that went out.
    pub bytes_out: u64,
    /// Packages that were installed, and their versions.
    pub packages: BTreeMap<String, String>,
    /// Hosts that were reached, as `name:port`.
    pub hosts: BTreeSet<String>,
    /// Hosts that were asked for and refused.
    pub hosts_refused: BTreeSet<String>,
    /// The record up to which a stored receipt counts; what came later is added from the log at the next start.
    pub through: LogSeq,
}

/// What one task adds to it, as the record of its outcome says it: the same while the server runs and at its next start.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) failed: bool,
    pub(crate) cpu_ms: u64,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) packages: Vec<Package>,
    pub(crate) hosts: Vec<String>,
    pub(crate) hosts_refused: Vec<String>,
}

impl Charge {
    /// What the record of an outcome says. `None`: it closes an attempt of a task that goes on.
    pub(crate) fn of(outcome: Option<Verdict>, detail: Option<&Value>) -> Option<Self> {
        let field = |name: &str| detail.and_then(|detail| detail.get(name));
        let number = |name: &str| field(name).and_then(Value::as_u64).unwrap_or_default();
        if field("not_started").is_some() {
            return None;
        }
        let packages = field("packages").and_then(Value::as_array).into_iter().flatten();
        let hosts = field("hosts").and_then(Value::as_array).into_iter().flatten();
        let mut hosts: Vec<String> = hosts.filter_map(|host| host.as_str().map(str::to_owned)).collect();
        let mut hosts_refused = Vec::new();
        for Contact { host, outcome, .. } in contacts(field("contacts")) {
            match outcome {
                ContactOutcome::Reached => hosts.push(host),
                ContactOutcome::Refused => hosts_refused.push(host),
                ContactOutcome::Failed => {}
            }
        }
        Some(Self {
            failed: outcome != Some(Verdict::Ok),
            cpu_ms: number("cpu_ms"),
            memory_peak_bytes: number("memory_peak_bytes"),
            bytes_in: number("bytes_in"),
            bytes_out: number("bytes_out"),
            packages: packages
                .filter_map(|package| package.as_str()?.rsplit_once(' '))
                .map(|(name, version)| Package { name: name.to_owned(), version: version.to_owned() })
                .collect(),
            hosts,
            hosts_refused,
        })
    }
}

/// The contacts that a record tells of; what is none is left out.
fn contacts(field: Option<&Value>) -> impl Iterator<Item = Contact> {
    let listed = field.and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(|contact| Contact::deserialize(contact).ok())
}

/// Bytes of code, input and contents that an operation carries in.
pub(super) fn bytes_in(operation: &Operation) -> u64 {
    let text = |args: &[String]| args.iter().map(String::len).sum::<usize>();
    let bytes = match operation {
        Operation::Exec(exec) => {
            let program = match &exec.program {
                Program::PythonCode { code, args } => code.len() + text(args),
                Program::PythonFile { args, .. } => text(args),
                Program::Shell { command } => command.len(),
                Program::Script { source: ScriptSource::Code(code), args, .. } => code.len() + text(args),
                Program::Script { source: ScriptSource::File(_), args, .. } => text(args),
                Program::Install { requirements, .. } => text(requirements),
            };
            program + exec.stdin.len()
        }
        Operation::Write(write) => write.contents.len(),
        Operation::Edit(edit) => edit.old.len() + edit.new.len(),
        Operation::Read(_)
        | Operation::List(_)
        | Operation::Stat(_)
        | Operation::Move(_)
        | Operation::Remove(_)
        | Operation::Search(_)
        | Operation::Kernels(_) => 0,
    };
    bytes as u64
}

impl Receipt {
    /// Adds one task. Names that a worker made too long, or too many of them, are left out.
    pub(super) fn add(&mut self, charge: &Charge) {
        self.tasks = self.tasks.saturating_add(1);
        self.failed = self.failed.saturating_add(u64::from(charge.failed));
        self.add_late(charge);
    }

    /// Adds what a task used that was counted when it was given up, and of which only then nothing was known.
    pub(super) fn add_late(&mut self, charge: &Charge) {
        self.cpu_ms = self.cpu_ms.saturating_add(charge.cpu_ms);
        self.memory_peak_bytes = self.memory_peak_bytes.max(charge.memory_peak_bytes);
        self.bytes_in = self.bytes_in.saturating_add(charge.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(charge.bytes_out);
        for Package { name, version } in &charge.packages {
            let fits = name.len() <= NAME_BYTES_MAX && version.len() <= NAME_BYTES_MAX;
            if fits && (self.packages.len() < PACKAGES_MAX || self.packages.contains_key(name)) {
                self.packages.insert(name.clone(), version.clone());
            }
        }
        for (kept, more) in [(&mut self.hosts, &charge.hosts), (&mut self.hosts_refused, &charge.hosts_refused)] {
            for host in more.iter().filter(|host| host.len() <= NAME_BYTES_MAX) {
                if kept.len() < HOSTS_MAX {
                    kept.insert(host.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_receipt_adds_up_and_is_bounded() {
        let detail = json!({
            "cpu_ms": 5, "memory_peak_bytes": 100, "bytes_in": 1, "bytes_out": 2,
            "packages": ["numpy 2.0", format!("{} 1", "x".repeat(1_000))], "hosts": ["a:443", "y".repeat(1_000)], "contacts": [
                {"host": "b:443", "outcome": "reached", "connections": 1, "sent_bytes": 1, "received_bytes": 1},
                {"host": "c:443", "outcome": "refused", "connections": 9, "sent_bytes": 0, "received_bytes": 0},
                {"host": "d:443"},
            ],
        });
        let mut receipt = Receipt::default();
        receipt.add(&Charge::of(Some(Verdict::Ok), Some(&detail)).expect("it ended"));
        receipt.add(&Charge::of(Some(Verdict::Failed), Some(&json!({"memory_peak_bytes": 50}))).expect("it ended"));
        assert_eq!(Charge::of(Some(Verdict::Failed), Some(&json!({"not_started": true}))), None);
        let expected = Receipt {
            tasks: 2,
            failed: 1,
            cpu_ms: 5,
            memory_peak_bytes: 100,
            bytes_in: 1,
            bytes_out: 2,
            packages: [("numpy".to_owned(), "2.0".to_owned())].into(),
            hosts: ["a:443".to_owned(), "b:443".to_owned()].into(),
            hosts_refused: ["c:443".to_owned()].into(),
            through: LogSeq(0),
        };
        assert_eq!(receipt, expected);
        for n in 0..2_000 {
            let detail = json!({"packages": [format!("p{n} 1")], "hosts": [format!("h{n}:1")]});
            receipt.add(&Charge::of(Some(Verdict::Ok), Some(&detail)).expect("it ended"));
        }
        assert_eq!((receipt.packages.len(), receipt.hosts.len()), (PACKAGES_MAX, HOSTS_MAX));
    }
}
