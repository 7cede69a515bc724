//! Results as JSON: for programs, and harmless on a terminal that it may go to, whatever clients and workers call themselves.

use codegen_audit::json_for_terminal;
use serde::Serialize;

/// A result over several lines, with the break behind the last.
pub(super) fn pretty<T: Serialize + ?Sized>(result: &T) -> String {
    let json = serde_json::to_string_pretty(result).expect("plain data has a JSON form");
    json_for_terminal(&json) + "\n"
}

/// One result of many, on one line without its break.
pub(super) fn line<T: Serialize + ?Sized>(result: &T) -> String {
    json_for_terminal(&serde_json::to_string(result).expect("plain data has a JSON form"))
}
