//! `pkg_list`: what is installed, by the names of its descriptions; nothing of the session is run for it.

use std::collections::BTreeMap;

use codegen_types::event::{FileKind, FileStat};
use codegen_types::operation::List;
use codegen_types::packages::{USER_BASE, canonical_name};
use codegen_types::{ErrorCode, Failure, Operation, OperationResult, WorkspacePath};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::tools::call::{Answer, Call, Reply};
use crate::tools::result::ToolResult;

/// The most packages that are listed.
const PACKAGES_MAX: u32 = 1_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct PkgListInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::tools) struct PkgListOutput {
    /// What is installed in the session, sorted by name.
    packages: Vec<PackageView>,
    /// Whether there is more than one listing gives.
    truncated: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct PackageView {
    /// Its name: lower case, with hyphens.
    name: String,
    /// Its version.
    version: String,
}

pub(in crate::tools) fn list<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: PkgListInput = call.input()?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let path = WorkspacePath::parse(&format!("{USER_BASE}/lib")).expect("a constant that is a path");
        let pattern = Some("*/site-packages/*.dist-info".to_owned());
        let list = List { path, recursive: true, pattern, entries_max: PACKAGES_MAX };
        let outcome = call.act(session, Operation::List(list).into()).await?;
        let result = match &outcome.result {
            Ok(completed) => match &completed.result {
                Some(OperationResult::List { entries, truncated }) => listing(entries, *truncated),
                _ => {
                    let message = "the worker answered with the result of another operation";
                    ToolResult::failure(&Failure::new(ErrorCode::Internal, message))
                }
            },
            Err(failure) if failure.code == ErrorCode::NotFound => listing(&[], false),
            Err(failure) => ToolResult::failure(failure),
        };
        Ok(Reply::Recorded(result.of_task(outcome.task).recorded_at(outcome.audit_seq)))
    }
    .boxed()
}

fn listing(entries: &[FileStat], truncated: bool) -> ToolResult {
    let packages = packages(entries);
    let mut lines = vec![match packages.len() {
        0 => "nothing is installed in this session; the host's own packages can be imported all the same".to_owned(),
        1 => "1 package is installed in this session".to_owned(),
        count => format!("{count} packages are installed in this session"),
    }];
    lines.extend(packages.iter().map(|package| format!("{} {}", package.name, package.version)));
    if truncated {
        lines.push("[and more than one listing gives]".to_owned());
    }
    ToolResult::structured(lines.join("\n"), json!(PkgListOutput { packages, truncated }))
}

/// Reads `NAME-VERSION.dist-info`; what is not spelt so describes no package.
fn packages(entries: &[FileStat]) -> Vec<PackageView> {
    let described = entries.iter().filter(|entry| entry.kind == FileKind::Directory).filter_map(|entry| {
        let file = entry.path.rsplit('/').next()?.strip_suffix(".dist-info")?;
        let (name, version) = file.split_once('-')?;
        let plain = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        (plain(name, b"._") && plain(version, b"._+!")).then(|| (canonical_name(name), version.to_owned()))
    });
    let sorted: BTreeMap<String, String> = described.collect();
    sorted.into_iter().map(|(name, version)| PackageView { name, version }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_spelt_as_a_description_is_a_package() {
        let stat = |name: &str, kind| FileStat {
            path: format!(".codegen/python/lib/python3.11/site-packages/{name}"),
            kind,
            size: 0,
            modified_ms: 0,
            etag: None,
            mode: 0o755,
            target: None,
        };
        let directory = |name| stat(name, FileKind::Directory);
        let entries = [
            directory("Demo_Pkg-2.0+x.dist-info"),
            directory("a-1.dist-info"),
            directory("~umpy-1.0.dist-info"),
            directory("x.dist-info"),
            directory("-1.dist-info"),
            directory("b-\u{1b}[31m.dist-info"),
            stat("c-1.dist-info", FileKind::File),
        ];
        let view = |name: &str, version: &str| PackageView { name: name.to_owned(), version: version.to_owned() };
        assert_eq!(packages(&entries), [view("a", "1"), view("demo-pkg", "2.0+x")]);
    }
}
