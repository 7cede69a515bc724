//! Records as JSON that stays on one line and shows what it is.

use std::io;

use codegen_types::terminal::push_in_json;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Compact JSON on one line in which deceptive characters are `\uXXXX`.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    let mut out = Vec::with_capacity(256);
    value
        .serialize(&mut Serializer::with_formatter(&mut out, OneLine))
        .expect("what the log serializes has string keys and is written to memory");
    String::from_utf8(out).expect("JSON is UTF-8")
}

struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.is_ascii() && !fragment.contains('\x7f') {
            return writer.write_all(fragment.as_bytes());
        }
        let mut escaped = String::with_capacity(fragment.len() + 16);
        fragment.chars().for_each(|c| push_in_json(&mut escaped, c));
        writer.write_all(escaped.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "a\nb\r\x1b[31m\u{7f}\u{85}\u{2028}\u{202e}evil\u{2066}\u{feff}\u{e0041}ü漢\"\\";

    #[test]
    fn json_is_one_line_without_deceptive_characters_and_reads_back() {
        let json = to_json(NASTY);
        assert_eq!(codegen_types::terminal::for_terminal(&json), json, "nothing is left to escape");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), NASTY);
        assert!(json.contains("ü漢"));
    }
}
