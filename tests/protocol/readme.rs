//! The README is held to the product: its tool table to `tools/list`, its flags and commands to `--help`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use e2e::Installation;
use serde_json::json;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(path).expect("a README")
}

/// The words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_tool_table_is_what_tools_list_says() {
    let readme = readme();
    let (_, table) = readme.split_once("<!-- tools").expect("a table");
    let (table, _) = table.split_once("<!-- /tools -->").expect("its end");
    let documented: BTreeMap<String, BTreeSet<String>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let mut cells = line.split('|').skip(1);
            let name = quoted(cells.next().expect("a name")).next().expect("a name").to_owned();
            let arguments = quoted(cells.next().expect("arguments")).map(str::to_owned).collect();
            (name, arguments)
        })
        .collect();
    let installation = Installation::new();
    let answer = installation.client().request("tools/list", json!({}));
    let everywhere = ["idempotency_key"];
    let listed: BTreeMap<String, BTreeSet<String>> = answer["result"]["tools"]
        .as_array()
        .expect("tools")
        .iter()
        .map(|tool| {
            let schema = &tool["inputSchema"];
            let required: BTreeSet<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(|r| r.as_str()).collect();
            let properties = schema["properties"].as_object().into_iter().flat_map(|p| p.keys());
            let arguments = properties
                .filter(|name| !everywhere.contains(&name.as_str()) && *name != "content")
                .map(|name| {
                    let always =
                        required.contains(name.as_str()) || ["code", "file", "contents"].contains(&name.as_str());
                    if always { name.clone() } else { format!("{name}?") }
                })
                .collect();
            (tool["name"].as_str().expect("a name").to_owned(), arguments)
        })
        .collect();
    assert_eq!(documented, listed);
}

#[test]
fn the_client_table_is_where_install_would_write() {
    let readme = readme();
    let (_, table) = readme.split_once("<!-- clients").expect("a table");
    let (table, _) = table.split_once("<!-- /clients -->").expect("its end");
    let installation = Installation::new();
    let mut clients = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = quoted(row).collect();
        let [client, file, key] = cells.as_slice() else { panic!("three cells: {row}") };
        let output = installation.run(["install", client]);
        assert!(output.status.success(), "{client}");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let file = file.replacen('~', installation.outside().to_str().expect("UTF-8"), 1);
        assert!(printed.contains(&file) && printed.contains(key), "{row}: {printed}");
        clients.push(*client);
    }
    let help = installation.run(["install", "-h"]);
    let values = format!("[possible values: {}]", clients.join(", "));
    assert!(String::from_utf8_lossy(&help.stdout).contains(&values), "{values}");
}

#[test]
fn its_flags_and_commands_are_in_help() {
    let readme = readme();
    let installation = Installation::new();
    let help = |arguments: &[&str]| {
        let output = installation.run(arguments);
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let all = [
        help(&["--help"]),
        help(&["audit", "--help"]),
        help(&["audit", "query", "--help"]),
        help(&["audit", "verify", "--help"]),
        help(&["audit", "tail", "--help"]),
        help(&["config", "--help"]),
        help(&["doctor", "--help"]),
        help(&["install", "--help"]),
        help(&["requests", "--help"]),
        help(&["usage", "--help"]),
        help(&["approvals", "--help"]),
        help(&["approvals", "approve", "--help"]),
        help(&["policy", "--help"]),
        help(&["policy", "explain", "--help"]),
        help(&["tokens", "--help"]),
        help(&["tokens", "create", "--help"]),
        help(&["workers", "--help"]),
        help(&["workers", "drain", "--help"]),
        help(&["secrets", "--help"]),
        help(&["secrets", "set", "--help"]),
        help(&["sessions", "--help"]),
        help(&["sessions", "ls", "--help"]),
        help(&["tasks", "--help"]),
        help(&["tasks", "ls", "--help"]),
        help(&["tasks", "logs", "--help"]),
        help(&["top", "--help"]),
    ]
    .concat();
    // The role must be the first argument, so no setting may stand before it.
    let worker =
        std::process::Command::new(installation.binary()).args(["worker", "--help"]).output().expect("it starts");
    let all = all + &String::from_utf8_lossy(&worker.stdout);
    for command in readme.lines().filter(|line| line.starts_with("coordinator ")) {
        let words = command.split('#').next().unwrap_or_default().split_whitespace().skip(1);
        for word in words
            .take_while(|w| !w.contains('>'))
            .filter(|w| w.starts_with('-') || w.chars().all(|c| c.is_ascii_lowercase()))
        {
            assert!(all.contains(word), "`{word}` of `{command}` is not in --help");
        }
    }
    for flag in quoted(&readme).filter(|q| q.starts_with("--")).filter_map(|q| q.split_whitespace().next()) {
        assert!(all.contains(flag), "`{flag}` is not in --help");
    }
}
