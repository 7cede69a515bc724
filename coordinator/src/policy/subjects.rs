//! What a call is about, from its arguments: paths, packages and hosts.

use codegen_types::packages::HostPort;
use codegen_types::{ErrorCode, Failure, IndexUrl, Requirement, WorkspacePath};
use coordinator_core::policy::{Subject, Touch};
use serde_json::Value;

use super::gate::Hosts;
use crate::tools::Tool;

/// The tools that reach all that is below the path they name.
const TREE_TOOLS: [&str; 3] = ["fs_search", "lint_check", "artifact_list"];
/// Where the paths of the tools for artifacts begin.
const ARTIFACTS: &str = "artifacts";
/// The arguments by which calls name paths; a package may be a wheel in the workspace.
const PATHS: [&str; 5] = ["file", "from", "packages", "path", "to"];
/// The tool that packages and hosts are about.
const PACKAGE_TOOL: &str = "pkg_install";
/// The tool that says what a session may reach.
const NETWORK_TOOL: &str = "session_create";

/// What a call of a tool is about. An argument that is missing where there must be one, or of the wrong type, is nothing
/// here: the tool refuses it.
///
/// # Errors
/// `PATH_VIOLATION` and `INVALID_ARGUMENT` for a path, requirement or URL that the tool refuses in any case: what cannot be
/// read cannot be decided about.
pub fn of_call(tool: &str, args: &Value, hosts: &Hosts) -> Result<Vec<Subject>, Failure> {
    if tool == PACKAGE_TOOL {
        return packages(args, hosts);
    }
    if tool == NETWORK_TOOL {
        return reached(args);
    }
    let path =
        |name: &str| args.get(name).and_then(Value::as_str).map(|text| parse(name, file_of(tool, text))).transpose();
    if let (Some(from), Some(to)) = (path("from")?, path("to")?) {
        return Ok([Touch::Away { from, to: to.clone() }, Touch::One(to)].map(of_touch).into());
    }
    let named = match (path("path")?, path("file")?) {
        (Some(path), _) | (None, Some(path)) => Some(path),
        (None, None) => None,
    };
    let path = match (named, tool) {
        (Some(path), "artifact_get") => Some(artifact(path)),
        (None, "artifact_list") => Some(parse("path", ARTIFACTS)?),
        // Without a path these begin at the top.
        (None, "fs_list" | "fs_search" | "lint_check") => Some(WorkspacePath::root()),
        (path, _) => path,
    };
    let recursive = args.get("recursive").and_then(Value::as_bool).unwrap_or(false);
    let touch =
        path.map(|path| if recursive || TREE_TOOLS.contains(&tool) { Touch::Tree(path) } else { Touch::One(path) });
    Ok(touch.map(of_touch).into_iter().collect())
}

/// Whether calls of a tool are about paths: by an argument, or by what it always looks at.
pub fn names_paths(tool: &Tool) -> bool {
    let schema = tool.input_schema();
    PATHS.iter().any(|name| schema["properties"].get(name).is_some()) || TREE_TOOLS.contains(&tool.name)
}

/// One file that is read.
pub fn of_file(path: WorkspacePath) -> Subject {
    of_touch(Touch::One(path))
}

fn of_touch(touch: Touch) -> Subject {
    Subject { path: Some(touch), ..Subject::default() }
}

fn parse(name: &str, text: &str) -> Result<WorkspacePath, Failure> {
    WorkspacePath::parse(text).map_err(|error| Failure::new(ErrorCode::PathViolation, format!("`{name}`: {error}")))
}

/// `test_run` takes the name of a test behind its file.
fn file_of<'a>(tool: &str, text: &'a str) -> &'a str {
    if tool == "test_run" { text.split("::").next().unwrap_or_default() } else { text }
}

/// Artifacts may be named with or without the directory that they are in.
fn artifact(path: WorkspacePath) -> WorkspacePath {
    if path.components().next() == Some(ARTIFACTS) {
        return path;
    }
    WorkspacePath::parse(&format!("{ARTIFACTS}/{}", path.as_str())).unwrap_or(path)
}

/// Each host that a session is to reach.
fn reached(args: &Value) -> Result<Vec<Subject>, Failure> {
    let named = args.get("network").and_then(|network| network.get("allow")).and_then(Value::as_array);
    let subject = |text: &str| {
        let host = HostPort::parse(text, 443)
            .map_err(|error| Failure::new(ErrorCode::InvalidArgument, format!("`network`: {error}")))?;
        Ok(Subject { host: Some(host.name), ..Subject::default() })
    };
    named.into_iter().flatten().filter_map(Value::as_str).map(subject).collect()
}

fn packages(args: &Value, hosts: &Hosts) -> Result<Vec<Subject>, Failure> {
    let invalid = |message: String| Failure::new(ErrorCode::InvalidArgument, message);
    let texts = args.get("packages").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let requirements: Vec<Requirement> = texts
        .map(|text| Requirement::parse(text).map_err(|error| invalid(format!("`packages`: {error}"))))
        .collect::<Result<_, _>>()?;
    let index = args.get("index_url").and_then(Value::as_str).map(IndexUrl::parse).transpose();
    let index = index.map_err(|error| invalid(format!("`index_url`: {error}")))?;
    let wheels_alone = requirements.iter().all(|one| matches!(one, Requirement::Wheel(_)));
    let reached: Vec<Option<String>> = match (&index, wheels_alone) {
        (None, true) => vec![None],
        (index, _) => {
            let reached: Vec<_> = hosts.of(index.as_ref()).map(Some).collect();
            if reached.is_empty() { vec![None] } else { reached }
        }
    };
    let subject = |requirement: &Requirement, host: &Option<String>| Subject {
        path: match requirement {
            Requirement::Wheel(path) => Some(Touch::One(path.clone())),
            Requirement::Named { .. } => None,
        },
        package: Some(requirement.canonical_name()),
        host: host.clone(),
    };
    Ok(requirements.iter().flat_map(|one| reached.iter().map(move |host| subject(one, host))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::TOOLS;
    use serde_json::json;

    /// The arguments that are looked at here.
    const LOOKED_AT: [&str; 8] = ["file", "from", "index_url", "network", "packages", "path", "recursive", "to"];
    /// Those that name nothing that a rule could be about.
    const OTHERS: [&str; 46] = [
        "args",
        "background",
        "code",
        "command",
        "contents",
        "context",
        "cursor",
        "encoding",
        "env",
        "glob",
        "grep",
        "idempotency_key",
        "if_match",
        "ignore_case",
        "include_closed",
        "kernel",
        "labels",
        "limit",
        "literal",
        "max_chars",
        "max_entries",
        "max_matches",
        "max_output_chars",
        "message",
        "metadata",
        "mode",
        "name",
        "new",
        "offset",
        "old",
        "overwrite",
        "pattern",
        "principal",
        "replace_all",
        "replace_metadata",
        "role",
        "runtime",
        "session_id",
        "state",
        "stdin",
        "task_id",
        "timeout_seconds",
        "ttl_seconds",
        "upgrade",
        "wait_seconds",
        "yield_after_seconds",
    ];

    fn of(tool: &str, args: Value) -> Vec<Subject> {
        let index = IndexUrl::parse("https://index.example/simple").unwrap();
        of_call(tool, &args, &Hosts::new(&[index], &["files.example".to_owned()])).expect("well formed")
    }

    fn touches(tool: &str, args: Value) -> Vec<Touch> {
        of(tool, args).into_iter().filter_map(|subject| subject.path).collect()
    }

    #[test]
    fn every_argument_of_every_tool_is_known_to_name_something_or_nothing() {
        for tool in TOOLS {
            let schema = tool.input_schema();
            for name in schema["properties"].as_object().into_iter().flat_map(|properties| properties.keys()) {
                let known = LOOKED_AT.contains(&name.as_str()) || OTHERS.contains(&name.as_str());
                assert!(known, "say whether `{name}` of {} is something that rules are about", tool.name);
            }
        }
    }

    #[test]
    fn each_path_of_a_call_is_a_subject() {
        let path = |text: &str| WorkspacePath::parse(text).unwrap();
        let (a, b) = (path("a"), path("b"));
        for (tool, args, expected) in [
            ("fs_read", json!({"path": "./a//"}), vec![Touch::One(a.clone())]),
            (
                "fs_move",
                json!({"from": "a", "to": "b"}),
                vec![Touch::Away { from: a.clone(), to: b.clone() }, Touch::One(b)],
            ),
            ("fs_delete", json!({"path": "a", "recursive": true}), vec![Touch::Tree(a.clone())]),
            ("fs_list", json!({}), vec![Touch::One(WorkspacePath::root())]),
            ("fs_search", json!({"pattern": "x"}), vec![Touch::Tree(WorkspacePath::root())]),
            ("run_python", json!({"file": "a"}), vec![Touch::One(a.clone())]),
            ("run_python", json!({"code": "1"}), vec![]),
            ("test_run", json!({"path": "a::T::t"}), vec![Touch::One(a)]),
            ("artifact_get", json!({"path": "x.png"}), vec![Touch::One(path("artifacts/x.png"))]),
            ("artifact_get", json!({"path": "artifacts/x.png"}), vec![Touch::One(path("artifacts/x.png"))]),
            ("artifact_list", json!({}), vec![Touch::Tree(path("artifacts"))]),
            (
                "pkg_install",
                json!({"packages": ["a-1-py3-none-any.whl"]}),
                vec![Touch::One(path("a-1-py3-none-any.whl"))],
            ),
        ] {
            assert_eq!(touches(tool, args.clone()), expected, "{tool} {args}");
        }
        assert!(of_call("fs_read", &json!({"path": "a/../b"}), &Hosts::default()).is_err());
    }

    #[test]
    fn each_host_that_a_session_is_to_reach_is_a_subject() {
        let hosts: Vec<_> = of("session_create", json!({"network": {"allow": ["A.example:8443", "b.example"]}}))
            .into_iter()
            .filter_map(|subject| subject.host)
            .collect();
        assert_eq!(hosts, ["a.example", "b.example"]);
        assert!(of("session_create", json!({})).is_empty());
        assert!(of_call("session_create", &json!({"network": {"allow": ["a b"]}}), &Hosts::default()).is_err());
    }

    #[test]
    fn each_package_is_a_subject_with_each_host_that_may_be_reached() {
        let named = |args: Value| -> Vec<_> {
            let subjects = of("pkg_install", args);
            subjects.into_iter().map(|one| (one.package.unwrap(), one.host.unwrap_or_default())).collect()
        };
        let pair = |package: &str, host: &str| (package.to_owned(), host.to_owned());
        assert_eq!(
            named(json!({"packages": ["My_Pkg[x]>=1"]})),
            [pair("my-pkg", "index.example"), pair("my-pkg", "files.example"),]
        );
        let other = named(json!({"packages": ["six"], "index_url": "https://OTHER.example:8443/simple"}));
        assert_eq!(other, [pair("six", "other.example"), pair("six", "files.example")]);
        assert_eq!(named(json!({"packages": ["d/Six-1-py3-none-any.whl"]})), [pair("six", "")]);
    }
}
