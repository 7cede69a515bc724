//! Rules on what is written beside the code.

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
