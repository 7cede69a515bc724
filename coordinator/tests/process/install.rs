//! Telling clients of this server, as an operator does it, and starting it as such a client does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::front::{Front, Place};

const CLIENTS: [(&str, &str); 5] = [
    ("claude-desktop", ".config/Claude/claude_desktop_config.json"),
    ("claude-code", ".claude.json"),
    ("cursor", ".cursor/mcp.json"),
    ("vscode", ".config/Code/User/mcp.json"),
    ("codex", ".codex/config.toml"),
];

fn run(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coordinator")).env_clear().env("HOME", home).args(args).output().unwrap()
}

fn install(home: &Path, client: &str, args: &[&str]) -> (i32, String) {
    let output = run(home, &[&["install", client], args].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

/// The command and arguments that a client finds in its file.
fn entry(path: &Path, name: &str) -> (String, Vec<String>) {
    let text = fs::read_to_string(path).unwrap();
    let file: Value = if path.extension().is_some_and(|extension| extension == "toml") {
        serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
    } else {
        serde_json::from_str(&text).unwrap()
    };
    let servers = ["mcpServers", "servers", "mcp_servers"].iter().find_map(|key| file.get(key)).unwrap();
    let command = servers[name]["command"].as_str().unwrap().to_owned();
    (command, serde_json::from_value(servers[name]["args"].clone()).unwrap())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn each_client_is_told_where_it_looks_and_only_when_asked() {
    for (client, file) in CLIENTS {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(file);
        let (code, said) = install(home.path(), client, &[]);
        assert!(code == 0 && said.contains(path.to_str().unwrap()) && said.contains("command"), "{client}: {said}");
        assert_eq!(install(home.path(), client, &["--print"]), (code, said));
        assert_eq!(files(home.path()), Vec::<PathBuf>::new(), "{client}");
        assert_eq!(install(home.path(), client, &["--check"]).0, 1, "{client}");
        let (code, said) = install(home.path(), client, &["--write"]);
        assert_eq!(code, 0, "{client}: {said}");
        let (code, said) = install(home.path(), client, &["--check"]);
        assert_eq!(code, 0, "{client}: {said}");
        let written = fs::read(&path).unwrap();
        let (code, said) = install(home.path(), client, &["--write"]);
        assert!(code == 0 && said.contains("nothing was changed"), "{client}: {said}");
        assert_eq!(fs::read(&path).unwrap(), written, "{client}");
        assert_eq!(files(path.parent().unwrap()).len(), 1, "{client}");
        assert_eq!(entry(&path, "codegen"), (env!("CARGO_BIN_EXE_coordinator").to_owned(), vec![]));
    }
}

#[test]
fn the_command_in_each_file_starts_a_server_that_answers() {
    for (client, file) in CLIENTS {
        let place = Place::new();
        let output = place.command(&["install", client, "--write", "--name", "mine"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let (command, args) = entry(&place.path().join(file), "mine");
        assert_eq!(args, ["--state-dir", place.path().to_str().unwrap()]);
        let mut as_client = Command::new(command);
        as_client.env_clear().env("HOME", place.path()).env("GRPC_PORT", "0").current_dir("/").args(args);
        let mut front = Front::launch(as_client);
        front.greet();
        front.echo(client);
        assert!(front.close().success());
        let checked = place.command(&["install", client, "--check", "--name", "mine"]).output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }
}

#[test]
fn other_servers_and_settings_stay_and_a_copy_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".claude.json");
    let before = json!({
        "numStartups": 7,
        "mcpServers": {"other": {"command": "other", "env": {"TOKEN": "t"}}},
        "projects": {"/p": {"mcpServers": {"codegen": {"command": "not this one"}}}},
    });
    fs::write(&path, before.to_string()).unwrap();
    let (code, said) = install(home.path(), "claude-code", &["--write"]);
    assert_eq!(code, 0, "{said}");
    let mut after: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(after["mcpServers"]["codegen"]["type"], "stdio");
    after["mcpServers"].as_object_mut().unwrap().remove("codegen");
    assert_eq!(after, before);
    let copy = files(home.path()).into_iter().find(|file| *file != path).unwrap();
    assert!(said.contains(copy.to_str().unwrap()), "{said}");
    assert_eq!(fs::read_to_string(copy).unwrap(), before.to_string());
}

#[test]
fn a_file_that_cannot_be_changed_safely_is_named_and_left_alone() {
    for (text, named) in [
        ("{\n  \"mcpServers\": {\n  broken\n}}\n", "line 3"),
        ("{\"mcpServers\": {\"codegen\": {\"command\": \"/usr/bin/npx\"}}}", "/usr/bin/npx"),
        ("{\"mcpServers\": []}", "`mcpServers` is not an object"),
    ] {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".cursor")).unwrap();
        let path = home.path().join(".cursor/mcp.json");
        fs::write(&path, text).unwrap();
        for action in ["--write", "--check"] {
            let (code, said) = install(home.path(), "cursor", &[action]);
            assert!(code == 1 && said.contains(path.to_str().unwrap()) && said.contains(named), "{action}: {said}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(files(path.parent().unwrap()).len(), 1);
    }
}

#[test]
fn wrong_usage_of_install_is_told_by_code_2() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["install"][..],
        &["install", "emacs"],
        &["install", "cursor", "--write", "--check"],
        &["install", "cursor", "--name", "two words"],
        &["install", "cursor", "--name", ""],
        &["--isolation-minimum", "none", "install", "cursor", "--write"],
    ] {
        assert_eq!(run(home.path(), args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(files(home.path()), Vec::<PathBuf>::new());
}

#[test]
fn completions_and_manual_pages_need_nothing_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let bare = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        let output = command.env_clear().env("SESSION_MAX_AGE", "nonsense").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = bare(&["completions", shell]);
        assert!(script.contains("coordinator") && script.contains("isolation-minimum"), "{shell}");
    }
    assert!(bare(&["man"]).contains(".TH coordinator 1"));
    let pages = dir.path().join("share/man/man1");
    assert_eq!(bare(&["man", "--dir", pages.to_str().unwrap()]), "");
    for page in ["coordinator.1", "coordinator-install.1", "coordinator-audit-verify.1"] {
        assert!(fs::read_to_string(pages.join(page)).unwrap().contains(".TH"), "{page}");
    }
}
