//! What is kept of the lines that a search finds.

use std::io;

use codegen_pattern::Pattern;
use codegen_types::event::{FoundLine, SearchCut};
use grep_searcher::{Searcher, Sink, SinkContext, SinkContextKind, SinkFinish, SinkMatch};

/// Bytes of a line that are shown.
pub(super) const LINE_BYTES_MAX: usize = 1_000;
/// Bytes shown before the end of a match that lies further back in its line.
const LEAD_BYTES: usize = 300;
/// Lines that one search gives, context included.
const LINES_MAX: usize = 20_000;
/// All lines that one search gives, in bytes.
const BYTES_MAX: usize = 2 << 20;

/// What a search may still give, and why it gives no more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    matches: u32,
    lines: usize,
    bytes: usize,
    pub(super) cut: Option<SearchCut>,
}

impl Budget {
    pub(super) const fn of(matches: u32) -> Self {
        Self { matches, lines: LINES_MAX, bytes: BYTES_MAX, cut: None }
    }
}

/// The lines found in one file.
pub(super) struct Finding<'a> {
    pub(super) pattern: &'a Pattern,
    pub(super) budget: &'a mut Budget,
    pub(super) lines: Vec<FoundLine>,
    pub(super) binary: bool,
}

impl Finding<'_> {
    /// Keeps a line; whether there is room for more.
    fn keep(&mut self, number: Option<u64>, is_match: bool, text: String) -> bool {
        let budget = &mut *self.budget;
        if budget.lines == 0 || budget.bytes < text.len() {
            budget.cut = Some(SearchCut::Volume);
            return false;
        }
        budget.lines -= 1;
        budget.bytes -= text.len();
        self.lines.push(FoundLine { number: number.unwrap_or(0), is_match, text });
        true
    }

    /// Takes back the lines that lead up to a match that is not shown.
    fn drop_lead(&mut self, match_number: u64) {
        let leads = |line: &FoundLine, number: u64| !line.is_match && line.number + 1 == number;
        let mut number = match_number;
        let lead = self.lines.iter().rev().take_while(|line| {
            let adjoins = leads(line, number);
            number = line.number;
            adjoins
        });
        let count = lead.count();
        let after_last_match = self.lines.iter().rev().take(count + 1).any(|line| line.is_match);
        if !after_last_match {
            self.lines.truncate(self.lines.len() - count);
        }
    }
}

impl Sink for Finding<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        if self.budget.matches == 0 {
            self.budget.cut = Some(SearchCut::Matches);
            self.drop_lead(found.line_number().unwrap_or(0));
            return Ok(false);
        }
        self.budget.matches -= 1;
        let line = without_end(found.bytes());
        let end = match line.len() {
            ..=LINE_BYTES_MAX => 0,
            _ => self.pattern.find_end(line).map_err(io::Error::other)?.unwrap_or(0),
        };
        Ok(self.keep(found.line_number(), true, shown(line, end)))
    }

    fn context(&mut self, _: &Searcher, around: &SinkContext<'_>) -> io::Result<bool> {
        match around.kind() {
            SinkContextKind::Before | SinkContextKind::After | SinkContextKind::Other => {
                Ok(self.keep(around.line_number(), false, shown(without_end(around.bytes()), 0)))
            }
        }
    }

    fn binary_data(&mut self, _: &Searcher, _: u64) -> io::Result<bool> {
        self.binary = true;
        Ok(false)
    }

    fn finish(&mut self, _: &Searcher, end: &SinkFinish) -> io::Result<()> {
        self.binary |= end.binary_byte_offset().is_some();
        Ok(())
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A line, or the part of a long one around the end of its match.
fn shown(line: &[u8], match_end: usize) -> String {
    if line.len() <= LINE_BYTES_MAX {
        return String::from_utf8_lossy(line).into_owned();
    }
    let inside = |byte: &u8| byte & 0xc0 == 0x80;
    let begin = match match_end {
        ..=LINE_BYTES_MAX => 0,
        end => end - LEAD_BYTES,
    };
    // A character that an edge cuts is left out; a longer run of such bytes is no text in any case.
    let begin = begin + line[begin..].iter().take(3 * usize::from(begin > 0)).take_while(|byte| inside(byte)).count();
    let end = line.len().min(begin + LINE_BYTES_MAX);
    let end = end - line[..end].iter().rev().take(3).take_while(|_| line.get(end).is_some_and(inside)).count();
    let part = String::from_utf8_lossy(&line[begin..end]);
    format!("{}{part}{}", if begin > 0 { "…" } else { "" }, if end < line.len() { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_shown_around_its_match() {
        let long = format!("{}NEEDLE{}", "é".repeat(2_000), "ü".repeat(2_000));
        let end = long.find("NEEDLE").expect("there") + 6;
        let part = shown(long.as_bytes(), end);
        assert!(part.starts_with("…é") && part.contains("éNEEDLEü") && part.ends_with("ü…"), "{part}");
        assert!(part.len() <= LINE_BYTES_MAX + 6 && !part.contains('\u{fffd}'), "{part}");
        let start = shown(long.as_bytes(), 0);
        assert!(start.starts_with('é') && start.ends_with("é…") && !start.contains('\u{fffd}'), "{start}");
        assert_eq!(shown(b"short", 3), "short");
    }

    #[test]
    fn bytes_that_are_no_text_are_bounded() {
        for byte in [0x80, 0xff, 0xc3] {
            let part = shown(&[byte; 10_000], 9_000);
            assert!(part.len() <= 3 * LINE_BYTES_MAX + 6, "{}", part.len());
        }
    }
}
