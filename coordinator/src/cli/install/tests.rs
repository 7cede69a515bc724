//! Odd and hostile files: what is changed, what is refused, and that nothing else is ever touched.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::entry::{Entry, Unfit};
use super::file::{ClientFile, FileError};
use super::{check, json, toml};

fn entry() -> Entry {
    Entry { name: "codegen".to_owned(), command: "/opt/coordinator".to_owned(), args: Vec::new() }
}

fn merged(text: &str) -> String {
    json::merge(text, "mcpServers", false, &entry()).unwrap()
}

fn refused(text: &str) -> Unfit {
    json::merge(text, "mcpServers", false, &entry()).unwrap_err()
}

#[test]
fn a_json_file_keeps_comments_commas_order_and_layout() {
    let before = r#"// mine
{
    "zebra": 1.50, // not 1.5
    "mcpServers": {
        /* the others */
        "b": { "command": "b", "args": ["x",], },
        "a": { "url": "https://a" },
    },
    "alpha": null,
}
"#;
    let expected = r#"// mine
{
    "zebra": 1.50, // not 1.5
    "mcpServers": {
        /* the others */
        "b": { "command": "b", "args": ["x",], },
        "a": { "url": "https://a" },
        "codegen": {
            "command": "/opt/coordinator",
            "args": [],
        },
    },
    "alpha": null,
}
"#;
    assert_eq!(merged(before), expected);
    assert_eq!(merged(expected), expected);
}

#[test]
fn an_empty_file_or_object_gets_the_entry_and_nothing_else() {
    let alone = merged("");
    assert_eq!(
        alone,
        "{\n  \"mcpServers\": {\n    \"codegen\": {\n      \"command\": \"/opt/coordinator\",\n      \"args\": []\n    }\n  }\n}\n"
    );
    for text in ["{}", "{\"mcpServers\":{}}", " \n", "// nothing yet\n", "{\"mcpServers\": {\n}}\n"] {
        let found = json::find(&merged(text), "mcpServers", "codegen").unwrap().unwrap();
        assert!(found.is(&entry()), "{text:?}: {}", merged(text));
    }
    assert!(merged("// nothing yet\n").starts_with("// nothing yet\n"));
}

#[test]
fn an_entry_of_ours_is_brought_up_to_date_and_keeps_what_else_it_says() {
    let old = r#"{"mcpServers": {"codegen": {
  "args": ["--debug"], // loud
  "command": "/old/bin/coordinator",
  "env": {"LOG_LEVEL": "debug"}, "timeout": 600
}}}"#;
    let new = merged(old);
    assert_eq!(new, old.replace("/old/bin", "/opt").replace("[\"--debug\"]", "[]"));
}

#[test]
fn a_name_that_another_program_has_is_left_to_it() {
    for (other, shown) in [
        (r#"{"command": "npx", "args": ["coordinator"]}"#, "npx"),
        (r#"{"command": "/usr/bin/coordinator.sh"}"#, "/usr/bin/coordinator.sh"),
        (r#"{"url": "https://example.org/coordinator"}"#, "no program of this machine"),
        (r#"{"command": ["coordinator"]}"#, "no program of this machine"),
        ("{}", "no program of this machine"),
    ] {
        let unfit = refused(&format!("{{\"mcpServers\": {{\"codegen\": {other}}}}}"));
        assert_eq!(unfit, Unfit::Taken { name: "codegen".to_owned(), command: shown.to_owned() });
    }
    let text = "[mcp_servers.codegen]\nurl = \"https://example.org\"\n";
    assert!(matches!(toml::merge(text, &entry()), Err(Unfit::Taken { .. })));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_line() {
    let texts = [
        "{\n  \"a\": 1\n  \"b\": 2\n}",
        "{\n  'a': 1\n}",
        "{\n\n  a: 1\n}",
        "{\"a\": 1",
        "{\n}\n{}",
        "{\n  \"a\": \"\\ud800\"\n}",
    ];
    let line = |text| match refused(text) {
        Unfit::Syntax { line, .. } => line,
        other => panic!("{text:?}: {other}"),
    };
    assert_eq!(texts.map(line), [2, 2, 3, 1, 3, 2]);
    let broken = toml::merge("model = \"m\"\n\n[mcp_servers\n", &entry()).unwrap_err();
    assert!(broken.to_string().starts_with("line 3: "), "{broken}");
}

#[test]
fn what_is_not_as_the_client_wants_it_is_refused_and_named() {
    for (text, named) in [
        ("[]", "the file is not an object"),
        ("7", "the file is not an object"),
        ("{\"mcpServers\": []}", "`mcpServers` is not an object"),
        ("{\"mcpServers\": null}", "`mcpServers` is not an object"),
        ("{\"mcpServers\": {\"codegen\": \"coordinator\"}}", "`codegen` is not an object"),
        ("{\"mcpServers\": {}, \"mcpServers\": {}}", "`mcpServers` stands there twice; take one away"),
        ("{\"mcp\\u0053ervers\": {}, \"mcpServers\": {}}", "`mcpServers` stands there twice; take one away"),
        ("{\"mcpServers\": {\"codegen\": {}, \"codegen\": {}}}", "`codegen` stands there twice; take one away"),
        (
            "{\"mcpServers\": {\"codegen\": {\"command\": \"/a/coordinator\", \"command\": \"b\"}}}",
            "`command` stands there twice; take one away",
        ),
    ] {
        assert_eq!(refused(text).to_string(), named, "{text}");
    }
    for (text, named) in [
        ("mcp_servers = 1", "`mcp_servers` is not a table"),
        ("[[mcp_servers]]\n", "`mcp_servers` is not a table"),
        ("mcp_servers.codegen = 1", "`codegen` is not a table"),
    ] {
        assert_eq!(toml::merge(text, &entry()).unwrap_err().to_string(), named, "{text}");
    }
}

#[test]
fn nesting_without_end_is_an_error_and_no_crash() {
    let json = format!("{{\"mcpServers\": {}", "[".repeat(1 << 20));
    assert!(matches!(refused(&json), Unfit::Syntax { line: 1, .. }));
    let toml = format!("a = {}", "[".repeat(1 << 20));
    assert!(matches!(toml::merge(&toml, &entry()), Err(Unfit::Syntax { .. })));
}

#[test]
fn a_large_file_is_changed_like_a_small_one() {
    let history: Vec<_> = (0..4_000).map(|n| serde_json::json!({"said": "x".repeat(80), "n": n})).collect();
    let before = serde_json::json!({"projects": {"/p": {"history": history}}, "mcpServers": {"b": {"command": "b"}}});
    let text = serde_json::to_string_pretty(&before).unwrap();
    let new = merged(&text);
    let mut after: serde_json::Value = serde_json::from_str(&new).unwrap();
    assert!(after["mcpServers"].as_object_mut().unwrap().remove("codegen").is_some());
    assert_eq!(after, before);
    assert!(new.len() < text.len() + 200);
}

#[test]
fn a_toml_file_keeps_comments_order_and_layout() {
    let before =
        "# mine\nmodel   = 'gpt' # quick\n\n[mcp_servers.b]\ncommand = \"b\"   # the other\n\n[tui]\ntheme = 1\n";
    let after = toml::merge(before, &entry()).unwrap();
    let added = "\n[mcp_servers.codegen]\ncommand = \"/opt/coordinator\"\nargs = []\n";
    assert!(after.contains(added), "{after}");
    assert_eq!(after.replacen(added, "", 1), before);
    assert_eq!(toml::merge(&after, &entry()).unwrap(), after);
}

#[test]
fn a_toml_entry_of_ours_keeps_what_else_it_says_in_every_form() {
    for old in [
        "[mcp_servers.codegen]\ncommand = \"/old/coordinator\" # here\nargs = [\"--debug\"]\ntool_timeout_sec = 600\n",
        "mcp_servers.codegen = { command = \"/old/coordinator\", args = [\"--debug\"], tool_timeout_sec = 600 }\n",
        "mcp_servers = { codegen = { command = \"/old/coordinator\", args = [\"--debug\"], tool_timeout_sec = 600 } }\n",
        "[mcp_servers]\ncodegen.command = \"/old/coordinator\"\ncodegen.args = [\"--debug\"]\ncodegen.tool_timeout_sec = 600\n",
    ] {
        let new = toml::merge(old, &entry()).unwrap();
        assert!(new.contains("tool_timeout_sec = 600"), "{new}");
        assert!(toml::find(&new, "codegen").unwrap().unwrap().is(&entry()), "{new}");
    }
    for old in ["mcp_servers = { b = { command = \"b\" } }\n", "mcp_servers.b.command = \"b\"\n", "[mcp_servers]\n"] {
        let new = toml::merge(old, &entry()).unwrap();
        assert!(toml::find(&new, "codegen").unwrap().unwrap().is(&entry()), "{new}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_a_second_time_changes_nothing(text in r#"[{}\[\],:"a0/*\n \\u-]{0,40}"#) {
        for text in [text.clone(), format!("{{\"mcpServers\": {{{text}}}}}"), format!("{{{text}\"mcpServers\": {{}}}}")] {
            if let Ok(once) = json::merge(&text, "mcpServers", true, &entry()) {
                prop_assert_eq!(json::merge(&once, "mcpServers", true, &entry()), Ok(once));
            }
        }
        if let Ok(once) = toml::merge(&text, &entry()) {
            prop_assert_eq!(toml::merge(&once, &entry()), Ok(once));
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_in_one_step_with_its_mode_and_a_copy_of_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mcp.json");
    fs::write(&path, "\u{feff}{}\r\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&path).unwrap().ino();
    let file = ClientFile::open(&path).unwrap();
    assert_eq!(file.text(), "{}\r\n");
    let backup = file.replace("{ }\r\n").unwrap().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "\u{feff}{ }\r\n");
    assert_eq!(fs::read_to_string(&backup).unwrap(), "\u{feff}{}\r\n");
    let stamp = backup.to_str().unwrap().rsplit_once(".bak-").unwrap().1;
    assert!(stamp.len() == 16 && stamp.ends_with('Z') && stamp.as_bytes()[8] == b'T', "{stamp}");
    for file in [&path, &backup] {
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o640);
    }
    assert_ne!(fs::metadata(&path).unwrap().ino(), before);
    let again = ClientFile::open(&path).unwrap().replace("{}").unwrap().unwrap();
    assert_ne!(again, backup);
    assert_eq!(names(dir.path()).len(), 3);
}

#[test]
fn a_new_file_and_its_directories_are_their_owner_s_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/mcp.json");
    let file = ClientFile::open(&path).unwrap();
    assert_eq!(file.text(), "");
    assert_eq!(file.replace("{}").unwrap(), None);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(dir.path().join("a")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_link_stays_and_what_it_leads_to_changes() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("dotfiles")).unwrap();
    let real = dir.path().join("dotfiles/mcp.json");
    fs::write(&real, "{}").unwrap();
    let link = dir.path().join("mcp.json");
    std::os::unix::fs::symlink("dotfiles/mcp.json", &link).unwrap();
    ClientFile::open(&link).unwrap().replace("[]").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&real).unwrap(), "[]");
    assert_eq!(names(&dir.path().join("dotfiles")).len(), 2);
    assert_eq!(names(dir.path()), ["dotfiles", "mcp.json"]);
}

#[test]
fn what_is_no_ordinary_text_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let open = |path: PathBuf| ClientFile::open(&path).unwrap_err();
    std::os::unix::fs::symlink("nothing", at("dangling")).unwrap();
    assert!(matches!(open(at("dangling")), FileError::Dangling(_)));
    fs::create_dir(at("directory")).unwrap();
    assert!(matches!(open(at("directory")), FileError::NotAFile(_)));
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(open(at("pipe")), FileError::NotAFile(_)));
    fs::write(at("latin"), b"{\"\xe9\": 1}").unwrap();
    assert!(matches!(open(at("latin")), FileError::NotText(_)));
    fs::File::create(at("huge")).unwrap().set_len((32 << 20) + 1).unwrap();
    assert!(matches!(open(at("huge")), FileError::TooLarge(_)));
}

#[test]
fn a_file_that_somebody_else_writes_meanwhile_is_left_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mcp.json");
    fs::write(&path, "{}").unwrap();
    let file = ClientFile::open(&path).unwrap();
    fs::write(&path, "{\"theirs\": 1}").unwrap();
    assert!(matches!(file.replace("{\"ours\": 1}"), Err(FileError::Changed(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"theirs\": 1}");
    let new = dir.path().join("new.json");
    let file = ClientFile::open(&new).unwrap();
    fs::write(&new, "{}").unwrap();
    assert!(matches!(file.replace("[]"), Err(FileError::Changed(_))));
    assert!(!names(dir.path()).iter().any(|name| name.starts_with('.')), "{:?}", names(dir.path()));
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let under_a_file = ClientFile::open(&dir.path().join("file/mcp.json"));
    let error = under_a_file.and_then(|file| file.replace("{}")).unwrap_err();
    assert!(matches!(error, FileError::Read(..) | FileError::Write(..)) && error.to_string().contains("file"));
    let shut = dir.path().join("shut");
    fs::create_dir(&shut).unwrap();
    fs::write(shut.join("mcp.json"), "{}").unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(shut.join("mcp.json"), Some(1000), None).unwrap();
    } else {
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o555)).unwrap();
    }
    let error = ClientFile::open(&shut.join("mcp.json")).unwrap().replace("[]").unwrap_err();
    assert!(matches!(error, FileError::Write(..) | FileError::Foreign(_)), "{error}");
    assert_eq!(fs::read_to_string(shut.join("mcp.json")).unwrap(), "{}");
    assert_eq!(names(&shut), ["mcp.json"]);
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What `--check` says of an entry with this command and these arguments.
fn said(command: &str, args: &[&str], wanted: &Entry, asked: bool) -> String {
    let text = serde_json::json!({"mcpServers": {"codegen": {"command": command, "args": args}}}).to_string();
    let found = json::find(&text, "mcpServers", "codegen").unwrap().unwrap();
    check::differences(&found, wanted, asked).join("; ")
}

#[test]
fn an_entry_that_starts_something_else_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let program = |name: &str, says: &str, mode: u32| {
        fs::create_dir(dir.path().join(name)).unwrap();
        let path = dir.path().join(name).join("coordinator");
        fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let version = format!("coordinator {}", env!("CARGO_PKG_VERSION"));
    let this = program("this", "never asked", 0o755);
    let same = program("same", &version, 0o755);
    let other = program("other", "coordinator 0.0.1", 0o755);
    let shut = program("shut", &version, 0o644);
    let wanted = Entry { command: this.clone(), ..entry() };
    assert_eq!(said(&this, &[], &wanted, false), "");
    assert_eq!(said(&same, &["--debug", "--state-dir", "/s"], &wanted, false), "");
    assert!(said(&other, &[], &wanted, false).contains("coordinator 0.0.1"));
    assert!(said(&shut, &[], &wanted, false).contains("not an executable file"));
    assert!(said("/nowhere/coordinator", &[], &wanted, false).contains("cannot be used"));
    assert!(said("coordinator", &[], &wanted, false).contains("not an absolute path"));
    assert!(said("/bin/sh", &[], &wanted, false).contains("another server"));
    assert!(said(&this, &["doctor"], &wanted, false).contains("does not serve a client"));
    assert!(said(&this, &["--no-such-flag"], &wanted, false).contains("does not serve a client"));
    assert!(said(&this, &["--debug"], &wanted, true).contains("its arguments are"));
}
