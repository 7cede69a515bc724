//! The tools: one row each in the table ([`TOOLS`]), one file per family, one dispatch ([`Connection::serve`]) for alias, refusal
//! and record.
//!
//! A tool reads its typed input, decides what to ask of the session layer and says what came of it. It knows no
//! protocol: [`crate::mcp`] turns its result into one.

mod args;
mod artifacts;
mod call;
mod calls;
mod connection;
mod devtools;
mod echo;
mod excerpt;
mod files;
mod kernels;
mod media;
mod operations;
mod packages;
mod resource_uri;
mod resources;
mod result;
mod run;
mod run_code;
mod run_input;
mod run_result;
mod schema;
mod serve;
mod session;
mod session_keys;
mod session_view;
mod sharing;
mod shown;
mod standing_view;
mod table;
mod tasks;
mod words;
mod yielding;

use serde_json::Value;

pub use call::Request;
pub use calls::SessionCalls;
pub use connection::{Connection, Handles};
pub(crate) use files::FileView;
pub use resource_uri::{InvalidWorkspaceUri, WorkspaceUri};
pub use resources::{
    Asked, COMPLETIONS_MAX, Completions, RESOURCE_BYTES_MAX, ResourceBody, ResourceContents, ResourceFile,
    ResourcePage, ResourceUri,
};
pub use result::{Content, LogPart, Raw, ResourceLink, ToolResult};
pub use serve::UnknownTool;
pub(crate) use session::{SessionCloseOutput, SessionInfoOutput};
pub use session_keys::SessionKeys;
pub(crate) use session_view::SessionView;
pub use table::TOOLS;
pub use tasks::TaskState;
pub(crate) use tasks::TaskView;

use call::Run;

/// A tool: what clients are told about it, and what it does.
pub struct Tool {
    /// Its name with an underscore, which every client takes.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What it does and when to use it, for a model.
    pub description: &'static str,
    /// What it may do to what is there.
    pub effect: Effect,
    input: fn() -> Value,
    output: Option<fn() -> Value>,
    run: Run,
}

/// What a tool may do to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Reads,
    /// It adds and never takes away.
    Adds,
    /// It may take away; doing it again changes nothing more.
    Sets,
    /// It may take away, and doing it again may do more.
    Acts,
}

impl Tool {
    /// The tool's name with a dot, such as `fs.read`.
    pub fn dotted(&self) -> String {
        self.name.replacen('_', ".", 1)
    }

    /// The JSON Schema of its arguments.
    pub fn input_schema(&self) -> Value {
        (self.input)()
    }

    /// The JSON Schema of its structured result, when it has one.
    pub fn output_schema(&self) -> Option<Value> {
        self.output.map(|schema| schema())
    }
}

/// The tool that is called so, by either of its names.
pub fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name || tool.dotted() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_found_by_both_names_and_by_no_other() {
        for tool in TOOLS {
            assert!(std::ptr::eq(find(tool.name).expect(tool.name), tool));
            assert!(std::ptr::eq(find(&tool.dotted()).expect("the dotted name"), tool));
        }
        for other in ["", "fs", "fs-read", "FS_READ", "fs_read ", "fs..read", "fs.read.", "session.create.x"] {
            assert!(find(other).is_none(), "{other}");
        }
    }

    #[test]
    fn every_acting_tool_takes_an_idempotency_key_and_no_other_does() {
        for tool in TOOLS {
            let takes = tool.input_schema()["properties"].get("idempotency_key").is_some();
            assert_eq!(takes, tool.effect != Effect::Reads, "{}", tool.name);
        }
    }

    #[test]
    fn each_tool_is_listed_as_the_snapshot_says() {
        for tool in TOOLS {
            let listed = serde_json::json!({
                "title": tool.title, "description": tool.description, "effect": format!("{:?}", tool.effect),
                "input": tool.input_schema(), "output": tool.output_schema(),
            });
            insta::assert_json_snapshot!(tool.name, listed);
        }
    }
}
