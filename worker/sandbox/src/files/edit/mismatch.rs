//! Why a text to replace is not to be found, in words that help to find it.

use codegen_types::operation::Edit;
use codegen_types::{ErrorCode, Failure};
use memchr::memmem;

use crate::files::fault;

/// Occurrences that are named when there are too many.
pub(super) const NAMED_MAX: usize = 10;
/// Lines of a file that are compared with what was looked for.
const COMPARED_LINES_MAX: usize = 50_000;
/// Bytes of a line that are compared or shown.
const LINE_BYTES_MAX: usize = 160;

/// The text is nowhere in the file.
pub(super) fn absent(edit: &Edit, contents: &[u8]) -> Failure {
    let shown = fault::shown(&edit.path);
    let mut message = format!("`old` is not in {shown}, so nothing was changed.");
    if std::str::from_utf8(contents).is_err() {
        message.push_str(" The file is not UTF-8, so text beyond ASCII may be there in another encoding.");
    }
    if let Some(hint) = hint(&edit.old, contents) {
        message.push(' ');
        message.push_str(&hint);
    }
    Failure::new(ErrorCode::PreconditionFailed, message)
}

/// The text is in the file several times.
pub(super) fn ambiguous(edit: &Edit, contents: &[u8], found: &[usize]) -> Failure {
    let numbers: Vec<String> = found.iter().take(NAMED_MAX).map(|at| line_number(contents, *at).to_string()).collect();
    let count = if found.len() > NAMED_MAX { format!("more than {NAMED_MAX}") } else { found.len().to_string() };
    let message = format!(
        "`old` is in {} {count} times, in lines {}{}, so nothing was changed; give more of the text around the one that is \
         meant, or set replace_all",
        fault::shown(&edit.path),
        numbers.join(", "),
        if found.len() > NAMED_MAX { ", …" } else { "" },
    );
    Failure::new(ErrorCode::PreconditionFailed, message)
}

/// The text is in the file more often than it can be replaced.
pub(super) fn too_often(edit: &Edit, max: usize) -> Failure {
    let message = format!(
        "`old`: it is in {} more than {max} times, so nothing was changed; replace so much with run_python or run_shell",
        fault::shown(&edit.path),
    );
    Failure::new(ErrorCode::InvalidArgument, message)
}

pub(super) fn line_number(contents: &[u8], at: usize) -> usize {
    memchr::memchr_iter(b'\n', &contents[..at]).count() + 1
}

fn hint(old: &str, contents: &[u8]) -> Option<String> {
    if let Some(hint) = line_ends(old, contents) {
        return Some(hint.to_owned());
    }
    let wanted = old.lines().map(str::as_bytes).find(|line| !line.trim_ascii().is_empty())?;
    let (number, line, likeness) = closest(wanted, contents)?;
    let quoted = quoted(line);
    Some(match likeness {
        Likeness::Same => {
            format!("Its first line is line {number}, but what follows there is another text than in `old`.")
        }
        Likeness::Blanks => format!("Line {number} differs from its first line in blanks only: {quoted}."),
        Likeness::Shared(_) => format!("The line most like its first one is line {number}: {quoted}."),
    })
}

/// Whether only the ends of lines differ.
fn line_ends(old: &str, contents: &[u8]) -> Option<&'static str> {
    let unix = |bytes: &[u8]| {
        let mut plain = Vec::with_capacity(bytes.len());
        plain.extend(bytes.iter().enumerate().filter_map(|(at, byte)| {
            let ends_line = *byte == b'\r' && bytes.get(at + 1) == Some(&b'\n');
            (!ends_line).then_some(*byte)
        }));
        plain
    };
    let has_crlf = memmem::find(contents, b"\r\n").is_some();
    if !(old.contains('\n') && (has_crlf || old.contains("\r\n"))) {
        return None;
    }
    memmem::find(&unix(contents), &unix(old.as_bytes()))?;
    Some(match has_crlf {
        true => "Only line ends differ: lines of the file end in \\r\\n, so write \\r\\n in `old` and `new`.",
        false => "Only line ends differ: lines of the file end in \\n, so write \\n in `old` and `new`.",
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// So many of a thousand pairs of neighbouring bytes are in both.
    Shared(usize),
    Blanks,
    Same,
}

/// Lines that share less than this with the wanted one, in thousandths, are no help.
const SHARED_MIN: usize = 500;

/// The line most like the wanted one, the first of several.
fn closest<'a>(wanted: &[u8], contents: &'a [u8]) -> Option<(usize, &'a [u8], Likeness)> {
    let wanted = &wanted[..wanted.len().min(LINE_BYTES_MAX)];
    let wanted_pairs = pairs(wanted);
    let wanted_words = words(wanted);
    let mut best: Option<(usize, &[u8], Likeness)> = None;
    for (index, line) in contents.split(|byte| *byte == b'\n').take(COMPARED_LINES_MAX).enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = &line[..line.len().min(LINE_BYTES_MAX)];
        let likeness = if line == wanted {
            Likeness::Same
        } else if words(line) == wanted_words {
            Likeness::Blanks
        } else {
            Likeness::Shared(shared(&wanted_pairs, &pairs(line)))
        };
        if likeness >= Likeness::Shared(SHARED_MIN) && best.is_none_or(|(_, _, found)| likeness > found) {
            best = Some((index + 1, line, likeness));
        }
    }
    best
}

fn words(line: &[u8]) -> Vec<&[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect()
}

fn pairs(line: &[u8]) -> Vec<[u8; 2]> {
    let mut pairs: Vec<[u8; 2]> = line.trim_ascii().windows(2).map(|pair| [pair[0], pair[1]]).collect();
    pairs.sort_unstable();
    pairs
}

/// How much two sorted lists have in common, in thousandths of both (Dice's coefficient).
fn shared(a: &[[u8; 2]], b: &[[u8; 2]]) -> usize {
    let (mut left, mut right, mut both) = (a.iter().peekable(), b.iter().peekable(), 0);
    while let (Some(x), Some(y)) = (left.peek(), right.peek()) {
        match x.cmp(y) {
            std::cmp::Ordering::Less => drop(left.next()),
            std::cmp::Ordering::Greater => drop(right.next()),
            std::cmp::Ordering::Equal => {
                both += 1;
                left.next();
                right.next();
            }
        }
    }
    2_000 * both / (a.len() + b.len()).max(1)
}

fn quoted(line: &[u8]) -> String {
    format!("`{}`", String::from_utf8_lossy(line).escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;
    use codegen_types::WorkspacePath;

    fn said(old: &str, contents: &str) -> String {
        let path = WorkspacePath::parse("f.py").expect("a legal path");
        let edit = Edit { path, old: old.to_owned(), new: String::new(), replace_all: false, if_match: None };
        absent(&edit, contents.as_bytes()).message
    }

    #[test]
    fn the_closest_line_is_named_with_its_difference() {
        let file = "import os\n\ndef add(a, b):\n    return a + b\n";
        assert!(said("def add(a,  b):\n", file).contains("Line 3 differs from its first line in blanks only"));
        assert!(said("\treturn a + b", file).contains("Line 4 differs from its first line in blanks only"));
        assert!(said("def add(a, c):", file).contains("line most like its first one is line 3: `def add(a, b):`"));
        assert!(said("def add(a, b):\n    return b", file).contains("Its first line is line 3, but what follows"));
        let nothing = said("class Zebra: quux", file);
        assert!(nothing.ends_with("so nothing was changed."), "{nothing}");
    }

    #[test]
    fn differing_line_ends_are_named() {
        assert!(said("a\nb\n", "x\r\na\r\nb\r\n").contains("end in \\r\\n, so write"));
        assert!(said("a\r\nb", "x\na\nb\n").contains("end in \\n, so write"));
    }

    #[test]
    fn a_message_is_short_whatever_the_file_holds() {
        let line = "\u{1b}".repeat(100_000);
        assert!(said(&format!("{line}x"), &line).len() < 2_000);
    }
}
