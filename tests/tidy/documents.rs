//! Rules on what is written beside the code.

use std::collections::BTreeSet;

use codegen_types::ErrorCode;

use crate::tree;

#[test]
fn every_error_code_has_a_page() {
    for code in ErrorCode::ALL {
        let page = tree::top().join(format!("docs/errors/{code}.md"));
        let text = std::fs::read_to_string(&page).unwrap_or_default();
        assert!(text.contains(code.as_str()), "docs/errors/{code}.md is missing or does not name its code");
    }
}

#[test]
fn every_page_has_an_error_code() {
    let pages = std::fs::read_dir(tree::top().join("docs/errors")).expect("docs/errors");
    for page in pages.flatten() {
        let name = page.file_name().to_string_lossy().into_owned();
        let Some(code) = name.strip_suffix(".md").filter(|stem| *stem != "README") else { continue };
        assert!(code.parse::<ErrorCode>().is_ok(), "docs/errors/{name} is about no error code");
    }
}

#[test]
fn nobody_s_home_directory_is_written_down() {
    // Put together here, so that this file does not find itself.
    let homes = ["root", "home"].map(|name| format!("/{name}/"));
    for file in tree::all() {
        for home in &homes {
            // `/proc/1/root/` and the like are no home.
            let begins = |at: usize| !file.text[..at].ends_with(|c: char| c.is_alphanumeric());
            let found = file.text.match_indices(home.as_str()).any(|(at, _)| begins(at));
            assert!(!found, "{}: holds a path below {home}", file.path);
        }
    }
}

#[test]
fn ci_runs_make_targets_and_nothing_else() {
    let script = std::fs::read_to_string(tree::top().join(".ci/run")).expect(".ci/run");
    assert!(script.lines().any(|line| line == "make check"));
    assert!(!script.lines().any(|line| line.trim_start().starts_with("cargo ")));
}

/// In every table that names tests, by the column that has them.
#[test]
fn every_test_that_security_md_names_is_there() {
    let text = std::fs::read_to_string(tree::top().join("SECURITY.md")).expect("SECURITY.md");
    let sources: Vec<_> = tree::all().into_iter().filter(|file| file.path.ends_with(".rs")).collect();
    let is_there = |name: &str| {
        let (modules, function) = name.rsplit_once("::").map_or((None, name), |(modules, name)| (Some(modules), name));
        let module = modules.map(|modules| modules.split("::").next().unwrap_or_default());
        let declared = [format!("fn {function}("), format!("fn {function}<")];
        let is_in =
            |file: &tree::Source| module.is_none_or(|module| file.path.split(['/', '.']).any(|part| part == module));
        sources.iter().any(|file| is_in(file) && declared.iter().any(|line| file.text.contains(line.as_str())))
    };
    let named = named_tests(&text);
    assert!(named.len() > 200, "the tables were not found: {}", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What stands between backticks in the columns `Test` of all tables, but for places.
fn named_tests(text: &str) -> Vec<String> {
    let (mut found, mut column) = (Vec::new(), None);
    for line in text.lines() {
        if !line.starts_with('|') {
            column = None;
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        column = column.or_else(|| cells.iter().position(|cell| *cell == "Test"));
        let cell = column.and_then(|at| cells.get(at)).copied().unwrap_or_default();
        let is_name = |word: &&str| word.contains('_') && word.chars().all(|c| c.is_alphanumeric() || "_:".contains(c));
        found.extend(cell.split('`').skip(1).step_by(2).filter(is_name).map(str::to_owned));
    }
    found
}

/// What is fuzzed by `make fuzz` is what `make test` runs through, and has seeds.
#[test]
fn every_fuzz_target_is_named_wherever_targets_are() {
    let top = tree::top();
    let read = |path: &str| std::fs::read_to_string(top.join(path)).expect("a file of the repository");
    let listed = |directory: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(top.join(directory)).expect("a directory").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned()).collect()
    };
    let targets = listed("fuzz/fuzz_targets");
    assert!(targets.len() >= 5, "{targets:?}");
    assert_eq!(listed("fuzz/corpus"), targets, "fuzz/corpus");
    let manifest: toml::Table = read("fuzz/Cargo.toml").parse().expect("TOML");
    let bins = manifest["bin"].as_array().expect("binaries").iter();
    let bins: BTreeSet<String> = bins.map(|bin| bin["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(bins, targets, "fuzz/Cargo.toml");
    let library = read("tests/fuzz/src/lib.rs");
    let table = library.split("pub const TARGETS").nth(1).and_then(|rest| rest.split("];").next()).expect("TARGETS");
    let bounded: BTreeSet<String> =
        table.split("(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect();
    assert_eq!(bounded, targets, "TARGETS of tests/fuzz");
    let makefile = read("Makefile");
    let line = makefile.lines().find_map(|line| line.strip_prefix("FUZZ_TARGETS ?= ")).expect("FUZZ_TARGETS");
    assert_eq!(
        line.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>(),
        targets,
        "FUZZ_TARGETS of the Makefile"
    );
    for target in &targets {
        let calls = format!("codegen_fuzz_targets::{target}(");
        let source = read(&format!("fuzz/fuzz_targets/{target}.rs"));
        assert!(source.contains(&calls), "fuzz/fuzz_targets/{target}.rs does not call {calls}");
    }
}
