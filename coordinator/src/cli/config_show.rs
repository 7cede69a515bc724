//! `coordinator config show`: every value, and where it comes from.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::config::{Config, Shown};

pub(super) fn run(config: &Config, json: bool) -> ExitCode {
    let rows = config.show();
    let text = if json { super::json::pretty(&rows) } else { as_text(&rows) };
    super::print(&text, ExitCode::SUCCESS)
}

fn as_text(rows: &[Shown]) -> String {
    let width = |of: fn(&Shown) -> &str| rows.iter().map(|row| of(row).len()).max().unwrap_or(0);
    let (names, values) = (width(|row| &row.name), width(|row| &row.value));
    let mut text = String::new();
    for Shown { name, value, source } in rows {
        writeln!(text, "{name:names$}  {value:values$}  ({source})").expect("writing to a string");
    }
    text
}
