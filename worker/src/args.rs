//! The command line of the worker.

use std::ffi::OsString;

use clap::{ArgGroup, Parser};

/// A worker of CodeGen-MCP: runs the code of sessions in sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "worker",
    version,
    group = ArgGroup::new("mode").required(true).args(["embedded", "probe", "render"]),
    after_help = "A coordinator starts its embedded worker by itself. Joining a remote coordinator is not possible yet."
)]
pub(crate) struct Args {
    /// Serve the coordinator that started this process: a start message is read from standard input, whose end stops
    /// the worker at once
    #[arg(long)]
    pub embedded: bool,

    /// Make a sandbox, look for interpreters, print what was found as JSON and exit
    #[arg(long)]
    pub probe: bool,

    /// Draw the picture of this media type that comes on standard input, as the worker asks of itself
    #[arg(long, value_name = "MIME", hide = true)]
    pub render: Option<String>,

    /// Directories to search for interpreters, separated by colons
    #[arg(long, value_name = "DIRS", requires = "probe")]
    pub search_path: Option<OsString>,
}
