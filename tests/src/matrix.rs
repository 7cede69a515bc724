//! SECURITY.md's table of layers by level, and what is to be found of it where the product runs.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the cells of the table say of each layer at a level.
fn documented(level: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md")).expect("SECURITY.md");
    let cells =
        |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    let mut lines = text.lines().skip_while(|line| !line.starts_with("| Layer |"));
    let head = cells(lines.next().expect("a table of layers"));
    let column = head.iter().position(|name| name == level).unwrap_or_else(|| panic!("no column {level}: {head:?}"));
    let rows = lines.skip(1).take_while(|line| line.starts_with('|')).map(cells);
    rows.map(|row| (row[0].trim_matches('`').to_owned(), row[column].clone())).collect()
}

/// What the conditions of the table are about, as the user finds it as whom the product runs.
#[derive(Debug)]
pub struct Facts {
    root: bool,
    /// The version of Landlock, of which 6 came with Linux 6.12.
    landlock: i64,
    kernel: (u32, u32),
    /// The limits for which control groups can be written.
    groups: Vec<String>,
}

/// A program of Python that looks for itself, without a word of the product, and prints what [`Facts::of`] reads.
pub const LOOK: &str = r#"
import ctypes, json, os, re
libc = ctypes.CDLL(None, use_errno=True)
def directory(controller):
    for line in open("/proc/self/cgroup"):
        number, names, path = line.strip().split(":", 2)
        if (controller in names.split(",")) if controller else (number == "0" and not names): break
    else: return None
    for line in open("/proc/self/mountinfo"):
        front, back = line.split(" - ")
        root, place = front.split()[3:5]
        kind, _, options = back.split()[:3]
        if (kind == "cgroup" and controller in options.split(",")) if controller else kind == "cgroup2":
            below = path[len(root.rstrip("/")):] if path.startswith(root.rstrip("/")) else ""
            return os.path.join(place, below.lstrip("/"))
def writable(controller):
    place = directory(controller)
    if not place: return False
    own = f"{place}/look-{os.getpid()}"
    try: os.mkdir(own); os.rmdir(own); return True
    except OSError: return False
groups = [limit for limit, name in (("memory", "memory"), ("process", "pids"), ("cpu", "cpu")) if writable(name)]
unified = directory(None)
if not groups and unified and writable(None):
    offered = open(unified + "/cgroup.controllers").read().split()
    passed = open(unified + "/cgroup.subtree_control").read().split()
    if "memory" in passed and "pids" in passed: groups = ["memory", "process"] + ["cpu"] * ("cpu" in offered)
kernel = [int(n) for n in re.match(r"(\d+)\.(\d+)", os.uname().release).groups()]
print(json.dumps({"root": os.geteuid() == 0, "landlock": max(0, libc.syscall(444, None, 0, 1)), "kernel": kernel, "groups": groups}))
"#;

/// The one state that a cell allows here. A cell is a state, or one under a condition and another without it.
#[expect(clippy::print_stdout, reason = "whoever reads the test's output learns what this host cannot show")]
fn expected(layer: &str, cell: &str, facts: &Facts) -> String {
    let groups = facts.groups.iter().any(|limit| layer == format!("{limit}_limit"));
    let (state, holds, otherwise) = match cell.split_once(' ').map_or((cell, ""), |(state, rest)| (state, rest)) {
        (state, "") => return state.to_owned(),
        ("enforced", "where the worker is root, else absent") => ("enforced", facts.root, "absent"),
        ("enforced", "from Linux 6.12, else partial") => ("enforced", facts.landlock >= 6, "partial"),
        ("enforced", "with control groups, else partial") => ("enforced", groups, "partial"),
        ("enforced,", "partial before Linux 5.14") => {
            ("enforced", groups || facts.root || facts.kernel >= (5, 14), "partial")
        }
        _ => panic!("SECURITY.md says of {layer} what this test does not understand: {cell}"),
    };
    let (found, not_shown) = if holds { (state, otherwise) } else { (otherwise, state) };
    println!("{layer}: {found} here; that it is {not_shown} elsewhere, this host cannot show");
    found.to_owned()
}

impl Facts {
    /// What [`LOOK`] printed.
    ///
    /// # Panics
    /// When that is something else.
    pub fn of(printed: &[u8]) -> Self {
        let said: Value =
            serde_json::from_slice(printed).unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(printed)));
        let number = |value: &Value| u32::try_from(value.as_u64().expect("a number")).expect("a version");
        let groups = said["groups"].as_array().expect("limits");
        Self {
            root: said["root"].as_bool().expect("a truth"),
            landlock: said["landlock"].as_i64().expect("a version"),
            kernel: (number(&said["kernel"][0]), number(&said["kernel"][1])),
            groups: groups.iter().map(|limit| limit.as_str().expect("a name").to_owned()).collect(),
        }
    }

    /// Fails unless what a doctor found is of this level, and each layer of it in the state that SECURITY.md documents here.
    ///
    /// # Panics
    /// When it is not.
    pub fn expect_documented(&self, level: &str, isolation: &Value) {
        assert_eq!(isolation["level"], level, "{isolation}");
        let documented = documented(level);
        let layers = isolation["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), documented.len(), "the table names every layer once");
        for row in layers {
            let (layer, state) = (row["layer"].as_str().expect("a layer"), row["state"].as_str().expect("a state"));
            let cell = documented.get(layer).unwrap_or_else(|| panic!("SECURITY.md has no row for {layer}"));
            assert_eq!(state, expected(layer, cell, self), "{level}: {layer}: {cell}: {row}");
            assert!(state == "enforced" || row["remedy"].is_string(), "{level}: {layer} names no remedy");
        }
    }
}
