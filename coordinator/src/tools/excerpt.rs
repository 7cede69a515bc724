//! Long output, cut in the middle: its beginning says what it is, its end how it ended.

use std::borrow::Cow;

use codegen_types::WorkspacePath;

use crate::session::Captured;

/// Where the whole of a stream is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whole<'a> {
    /// In this file of the workspace.
    File(&'a WorkspacePath),
    /// Where `task_logs` finds it.
    Logs,
    /// Nowhere any more.
    Lost,
    /// With the program that showed it.
    Nowhere,
}

impl Whole<'_> {
    fn hint(self) -> String {
        match self {
            Whole::File(path) => format!("whole output: {path} (task_logs, fs_read)"),
            Whole::Logs => "task_logs shows them".to_owned(),
            Whole::Lost => {
                "to keep all of it, write to a file in the workspace and read the part you need with fs_read".to_owned()
            }
            Whole::Nowhere => "show a part of it to see more".to_owned(),
        }
    }
}

/// Divides `budget` characters between two streams: each gets what it needs as far as the other leaves it, at least a
/// third.
pub(super) fn share(budget: usize, first: &Captured, second: &Captured) -> (usize, usize) {
    let (first, second) = (kept(first), kept(second));
    let third = budget / 3;
    let second_gets = second.min(budget.saturating_sub(first).max(third));
    (budget - second_gets, second_gets)
}

fn kept(captured: &Captured) -> usize {
    let omitted = usize::try_from(captured.omitted).unwrap_or(usize::MAX);
    captured.head.len().saturating_add(captured.tail.len()).saturating_add(omitted)
}

/// At most about `budget` characters of a stream: all of it, or its beginning and its end and how much is missing
/// between them. Bytes that are not UTF-8 are shown as U+FFFD.
pub(super) fn excerpt(captured: &Captured, budget: usize, all: &Whole<'_>) -> String {
    if captured.omitted == 0 {
        let whole: Cow<'_, [u8]> = match captured.tail.as_slice() {
            [] => Cow::Borrowed(&captured.head),
            tail => Cow::Owned([captured.head.as_slice(), tail].concat()),
        };
        if whole.len() <= budget || (whole.len() <= budget * 4 && chars(&whole) <= budget) {
            return String::from_utf8_lossy(&whole).into_owned();
        }
        return joined(&whole, &whole, 0, budget, *all);
    }
    joined(&captured.head, &captured.tail, captured.omitted, budget, *all)
}

fn chars(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).chars().count()
}

/// The first half of the budget from `head` and the second from `tail`; both may be the same whole stream.
fn joined(head: &[u8], tail: &[u8], omitted: u64, budget: usize, all: Whole<'_>) -> String {
    let half = budget / 2;
    let first = first_chars(head, half);
    let last = last_chars(tail, half);
    let same = std::ptr::eq(head, tail);
    let kept = if same { head.len() } else { head.len() + tail.len() };
    let missing = omitted + (kept.saturating_sub(first.len() + last.len())) as u64;
    let (first, last) = (String::from_utf8_lossy(first), String::from_utf8_lossy(last));
    format!(
        "{first}
[… {missing} bytes left out; {} …]
{last}",
        all.hint()
    )
}

/// The first `count` characters. A character is at most four bytes; more without a beginning are none.
fn first_chars(bytes: &[u8], count: usize) -> &[u8] {
    let bytes = &bytes[..bytes.len().min(count * 4)];
    let starts = (0..bytes.len()).filter(|&at| is_start(bytes[at]));
    let end = starts.take(count + 1).nth(count).unwrap_or(bytes.len());
    &bytes[..end]
}

fn last_chars(bytes: &[u8], count: usize) -> &[u8] {
    let bytes = &bytes[bytes.len().saturating_sub(count * 4)..];
    let starts = (0..bytes.len()).rev().filter(|&at| is_start(bytes[at]));
    let begin = starts.take(count).last().unwrap_or(bytes.len());
    &bytes[begin..]
}

/// Whether a byte begins a character of UTF-8, or is none and counts as one.
const fn is_start(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(head: &[u8], tail: &[u8], omitted: u64) -> Captured {
        Captured { head: head.into(), tail: tail.into(), omitted }
    }

    #[test]
    fn what_fits_is_whole() {
        assert_eq!(excerpt(&captured(b"hello ", b"world", 0), 11, &Whole::Logs), "hello world");
        assert_eq!(excerpt(&captured("é".repeat(10).as_bytes(), b"", 0), 10, &Whole::Logs), "é".repeat(10));
    }

    #[test]
    fn what_does_not_fit_loses_its_middle_and_no_character() {
        let long = "é".repeat(100);
        let shown = excerpt(&captured(long.as_bytes(), b"", 0), 10, &Whole::Logs);
        assert!(shown.starts_with("ééééé\n[… 180 bytes left out"), "{shown}");
        assert!(shown.ends_with("\nééééé"), "{shown}");
        let shown = excerpt(&captured(b"0123456789", b"abcdefghij", 1000), 8, &Whole::Logs);
        assert!(shown.starts_with("0123\n[… 1012 bytes left out") && shown.ends_with("\nghij"), "{shown}");
    }

    #[test]
    fn a_stream_of_continuation_bytes_is_bounded_too() {
        let shown = excerpt(&captured(&[0x80; 100_000], b"", 0), 100, &Whole::Logs);
        assert!(shown.chars().count() < 1_000, "{}", shown.len());
    }

    #[test]
    fn a_quiet_stream_leaves_its_share_to_the_other() {
        let of = |n: usize| captured(&vec![b'x'; n], b"", 0);
        assert_eq!(share(300, &of(1000), &of(0)), (300, 0));
        assert_eq!(share(300, &of(1000), &of(50)), (250, 50));
        assert_eq!(share(300, &of(1000), &of(1000)), (200, 100));
        assert_eq!(share(300, &of(10), &of(1000)), (10, 290));
    }
}
