//! Rules on Rust files.

use crate::tree::{self, Source};

/// The most production lines of a file.
const LINES_MAX: usize = 400;

/// Every place where production code of `files` has `word` as a word of its own.
fn uses<'a>(files: &'a [Source], word: &'a str) -> impl Iterator<Item = (&'a Source, usize, &'a str)> {
    files.iter().filter(|file| file.is_production()).flat_map(move |file| {
        file.code().filter(move |(_, line)| has_word(line, word)).map(move |(number, line)| (file, number, line))
    })
}

fn has_word(line: &str, word: &str) -> bool {
    let of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(of_name) && !line[at + word.len()..].starts_with(of_name))
}

#[test]
fn every_module_says_what_it_is_for() {
    for file in tree::rust() {
        let first = file.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 10, "{}: begins without `//!` docs", file.path);
    }
}

#[test]
fn every_crate_states_its_invariant() {
    for file in tree::rust().iter().filter(|file| file.is_production() && file.path.ends_with("src/lib.rs")) {
        assert!(file.text.contains("//! *Invariant*"), "{}", file.path);
    }
}

#[test]
fn files_stay_readable() {
    for file in tree::rust().iter().filter(|file| file.is_production()) {
        let lines = file.production_lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} production lines, at most {LINES_MAX}", file.path);
    }
}

#[test]
fn the_coordinator_s_library_never_names_the_worker_crate() {
    let files = tree::rust();
    let names_it = |line: &str| {
        line.match_indices("worker::").any(|(at, _)| at == 0 || line[..at].ends_with([' ', '(', '<', '&']))
    };
    for file in files.iter().filter(|f| f.path.starts_with("coordinator/src/") && f.path != "coordinator/src/main.rs") {
        let named = file.code().find(|(_, line)| names_it(line));
        assert!(named.is_none(), "{}: names the worker crate: {named:?}", file.path);
    }
}

#[test]
fn the_mcp_library_is_named_in_one_place() {
    for (file, number, _) in uses(&tree::rust(), "rmcp") {
        assert!(file.path.starts_with("coordinator/src/mcp/"), "{}:{number}: names rmcp", file.path);
    }
}

#[test]
fn unsafe_code_is_in_the_sandbox_crate_alone() {
    let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait"];
    for (file, number, line) in uses(&tree::rust(), "unsafe") {
        let harmless = !forms.iter().any(|form| line.contains(form));
        assert!(harmless || file.path.starts_with("worker/sandbox/"), "{}:{number}: unsafe", file.path);
    }
}

/// What a release leaves out must not be what makes something happen.
#[test]
fn what_is_asserted_in_debug_builds_alone_waits_for_nothing() {
    for (file, number, line) in uses(&tree::rust(), "debug_assert") {
        assert!(!line.contains(".await"), "{}:{number}: {line}", file.path);
    }
}

#[test]
fn nothing_is_left_for_later() {
    for word in ["TODO", "FIXME", "XXX", "HACK"] {
        for file in tree::rust().iter().filter(|file| !file.path.starts_with("tests/tidy/")) {
            assert!(!file.text.lines().any(|line| has_word(line, word)), "{}: {word}", file.path);
        }
    }
}

#[test]
fn names_say_what_a_thing_is() {
    let vague = ["common", "utils", "util", "helpers", "helper", "misc"];
    for file in tree::rust() {
        let stem = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
        assert!(!vague.iter().any(|word| stem.ends_with(&format!("/{word}"))), "{}", file.path);
    }
    for word in ["Manager", "Helper"] {
        for file in tree::rust().iter().filter(|file| file.is_production()) {
            for (number, line) in file.code() {
                let declares = ["struct ", "enum ", "trait "].iter().any(|kind| line.contains(kind));
                assert!(!(declares && line.contains(word)), "{}:{number}: {line}", file.path);
            }
        }
    }
}
