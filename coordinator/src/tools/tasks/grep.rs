//! Lines that match, out of output that comes in pieces.

use codegen_types::Failure;
use regex::bytes::{Regex, RegexBuilder};

use crate::tools::args;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1_000;
/// What a compiled pattern may take, in bytes.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// A line that is longer is looked through in parts of this length, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Of a matching line so much is shown, in characters.
const SHOWN_CHARS_MAX: usize = 2_000;

/// A pattern. It takes linear time, whatever it is.
pub(super) struct Grep(Regex);

impl Grep {
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub(super) fn new(pattern: &str) -> Result<Self, Failure> {
        args::bounded("grep", pattern, PATTERN_BYTES_MAX)?;
        let mut builder = RegexBuilder::new(pattern);
        let built = builder.size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX).build();
        built.map(Self).map_err(|error| {
            let why: String = error.to_string().chars().take(300).collect();
            args::invalid("grep", format!("is no regular expression that can be used: {why}"))
        })
    }
}

/// Takes in output and keeps the lines that match, within bounds.
pub(super) struct Lines<'a> {
    grep: &'a Grep,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// Where that line begins.
    at: u64,
    text: String,
    chars_left: usize,
    is_full: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(grep: &'a Grep, from: u64, chars: usize) -> Self {
        Self { grep, begun: Vec::new(), at: from, text: String::new(), chars_left: chars, is_full: false }
    }

    /// Whether no more lines fit.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                self.begun.extend_from_slice(part);
                if self.begun.ends_with(b"\n") || self.begun.len() >= LINE_BYTES_MAX {
                    self.end_line();
                }
            }
            if self.is_full {
                return;
            }
        }
    }

    /// The last line needs no end.
    pub(super) fn finish(&mut self) {
        if !self.begun.is_empty() {
            self.end_line();
        }
    }

    /// Goes on elsewhere, and says what is missing.
    pub(super) fn skip_to(&mut self, position: u64, note: &str) {
        self.finish();
        if !self.is_full {
            self.at = position;
            self.text.push_str(note.trim_start_matches('\n'));
        }
    }

    fn end_line(&mut self) {
        if self.is_full {
            return;
        }
        let line = self.begun.strip_suffix(b"\n").unwrap_or(&self.begun);
        if self.grep.0.is_match(line) {
            let mut shown: String = String::from_utf8_lossy(line).chars().take(SHOWN_CHARS_MAX + 1).collect();
            if shown.chars().nth(SHOWN_CHARS_MAX).is_some() {
                shown.pop();
                shown.push('…');
            }
            let chars = shown.chars().count() + 1;
            if chars > self.chars_left && !self.text.is_empty() {
                self.is_full = true;
                return;
            }
            self.chars_left = self.chars_left.saturating_sub(chars);
            self.text.push_str(&shown);
            self.text.push('\n');
        }
        self.at += self.begun.len() as u64;
        self.begun.clear();
    }

    /// The lines, and where to go on.
    pub(super) fn into_shown(self) -> (String, u64) {
        (self.text, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grep(pattern: &str) -> Grep {
        Grep::new(pattern).unwrap_or_else(|failure| panic!("{failure}"))
    }

    #[test]
    fn lines_are_found_however_the_output_is_cut_and_the_cursor_goes_on_after_the_last() {
        let output = "one\ntwo\nthree\nfour\nfi".repeat(3);
        for size in 1..9 {
            let grep = grep("^t|fi");
            let mut lines = Lines::new(&grep, 100, 1_000);
            output.as_bytes().chunks(size).for_each(|piece| lines.take(piece));
            let (text, at) = lines.into_shown();
            assert_eq!(text, "two\nthree\nfione\ntwo\nthree\nfione\ntwo\nthree\n", "in pieces of {size}");
            assert_eq!(at, 100 + output.len() as u64 - 2, "what is no line yet is left for later");
        }
    }

    #[test]
    fn what_does_not_fit_is_where_the_cursor_points() {
        let grep = grep("x");
        let mut lines = Lines::new(&grep, 0, 10);
        lines.take(b"xxxx\nno\nxxxx\nxxxx\n");
        assert!(lines.is_full());
        assert_eq!(lines.into_shown(), ("xxxx\nxxxx\n".to_owned(), 13));
    }

    #[test]
    fn patterns_and_lines_are_bounded() {
        for wrong in ["(", &"a".repeat(1_001), "(?:a{1000}){1000}", "[[:alpha:]]{100000}"] {
            assert!(Grep::new(wrong).is_err(), "{wrong}");
        }
        let grep = grep("a");
        let mut lines = Lines::new(&grep, 0, 100);
        lines.take(&vec![b'a'; 1 << 20]);
        let (text, _) = lines.into_shown();
        assert!(text.chars().count() <= SHOWN_CHARS_MAX + 2, "{}", text.len());
    }
}
