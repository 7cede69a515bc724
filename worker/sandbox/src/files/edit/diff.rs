//! A short unified diff of replacements whose places are known.

use std::ops::Range;

use memchr::{memchr, memrchr};

use super::mismatch::line_number;

/// Hunks that are shown.
const HUNKS_MAX: usize = 5;
/// Lines of context on each side of a change.
const CONTEXT: usize = 2;
/// Lines of one side of a change that are shown.
const LINES_MAX: usize = 20;
/// Bytes of a line that are shown.
const LINE_BYTES_MAX: usize = 200;

/// The first changes that replacing `old_len` bytes at each place with `new` makes, which are in order and do not
/// overlap.
pub(super) fn of(contents: &[u8], places: &[usize], old_len: usize, new: &[u8]) -> String {
    let mut diff = String::new();
    let mut left = places;
    let mut line_shift = 0_isize;
    for _ in 0..HUNKS_MAX {
        let Some(region) = region(contents, &mut left, old_len) else { return diff };
        line_shift += hunk(&mut diff, contents, &region, old_len, new, line_shift);
    }
    match left.len() {
        0 => {}
        1 => diff.push_str("… and one place more\n"),
        more => diff.push_str(&format!("… and {more} places more\n")),
    }
    diff
}

/// Whole lines in which something is replaced.
struct Region<'a> {
    lines: Range<usize>,
    places: &'a [usize],
}

/// Takes the next places that share lines off the list.
fn region<'a>(contents: &[u8], left: &mut &'a [usize], old_len: usize) -> Option<Region<'a>> {
    let first = *left.first()?;
    let begin = memrchr(b'\n', &contents[..first]).map_or(0, |at| at + 1);
    let mut end = line_end(contents, first + old_len);
    let mut count = 1;
    while let Some(next) = left.get(count).filter(|next| **next < end) {
        // A long line with many places in it is looked through once.
        if next + old_len >= end {
            end = line_end(contents, next + old_len);
        }
        count += 1;
    }
    let (places, rest) = left.split_at(count);
    *left = rest;
    Some(Region { lines: begin..end, places })
}

fn line_end(contents: &[u8], at: usize) -> usize {
    memchr(b'\n', &contents[at..]).map_or(contents.len(), |more| at + more + 1)
}

/// Writes one hunk; by how many lines what follows is moved.
fn hunk(
    diff: &mut String,
    contents: &[u8],
    region: &Region<'_>,
    old_len: usize,
    new: &[u8],
    line_shift: isize,
) -> isize {
    let mut replaced = Vec::new();
    let mut kept_from = region.lines.start;
    for at in region.places {
        replaced.extend_from_slice(&contents[kept_from..*at]);
        replaced.extend_from_slice(new);
        kept_from = at + old_len;
    }
    replaced.extend_from_slice(&contents[kept_from..region.lines.end]);
    let before: Vec<&[u8]> = lines(&contents[region.lines.clone()]);
    let after: Vec<&[u8]> = lines(&replaced);
    // Lines that only adjoin the change are the same on both sides.
    let same_first = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let rest = (&before[same_first..], &after[same_first..]);
    let same_last = rest.0.iter().rev().zip(rest.1.iter().rev()).take_while(|(a, b)| a == b).count();
    let (removed, added) = (&rest.0[..rest.0.len() - same_last], &rest.1[..rest.1.len() - same_last]);

    let all_above = &contents[..region.lines.start];
    let above: Vec<&[u8]> = last_lines(all_above, CONTEXT).into_iter().chain(before[..same_first].to_vec()).collect();
    let above = &above[above.len().saturating_sub(CONTEXT)..];
    let below = before[before.len() - same_last..].iter().copied().chain(first_lines(&contents[region.lines.end..]));
    let below: Vec<&[u8]> = below.take(CONTEXT).collect();

    let number = line_number(contents, region.lines.start) + same_first - above.len();
    let moved = number.checked_add_signed(line_shift).unwrap_or(number);
    let around = above.len() + below.len();
    diff.push_str(&format!("@@ -{number},{} +{moved},{} @@\n", around + removed.len(), around + added.len()));
    for (sign, side) in [(' ', above), ('-', removed), ('+', added), (' ', &below)] {
        write_side(diff, sign, side);
    }
    isize::try_from(after.len()).unwrap_or(0) - isize::try_from(before.len()).unwrap_or(0)
}

/// Lines with their ends, so that a change of an end is a change.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

fn first_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').take(CONTEXT)
}

fn last_lines(text: &[u8], count: usize) -> Vec<&[u8]> {
    let mut begin = text.len();
    for _ in 0..count {
        begin = memrchr(b'\n', &text[..begin.saturating_sub(1)]).map_or(0, |at| at + 1);
    }
    lines(&text[begin..])
}

fn write_side(diff: &mut String, sign: char, side: &[&[u8]]) {
    for line in side.iter().take(LINES_MAX) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let part = &text[..text.len().min(LINE_BYTES_MAX)];
        diff.push(sign);
        diff.push_str(String::from_utf8_lossy(part).trim_end_matches('\u{fffd}'));
        if part.len() < text.len() {
            diff.push('…');
        }
        diff.push('\n');
    }
    if let Some(more) = side.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        diff.push_str(&format!("{sign}… {more} lines more\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(contents: &str, old: &str, new: &str) -> String {
        let places: Vec<usize> = contents.match_indices(old).map(|(at, _)| at).collect();
        of(contents.as_bytes(), &places, old.len(), new.as_bytes())
    }

    #[test]
    fn a_change_is_shown_with_the_lines_around_it() {
        let shown = diff("a\nb\nc\nd\ne\nf\n", "d\n", "D1\nD2\n");
        assert_eq!(shown, "@@ -2,5 +2,6 @@\n b\n c\n-d\n+D1\n+D2\n e\n f\n");
        assert_eq!(diff("a\nb\nc\n", "b\n", ""), "@@ -1,3 +1,2 @@\n a\n-b\n c\n");
        assert_eq!(diff("a\nb\nc\n", "b\nc", "x"), "@@ -1,3 +1,2 @@\n a\n-b\n-c\n+x\n");
        assert_eq!(diff("one word here", "word", "thing"), "@@ -1,1 +1,1 @@\n-one word here\n+one thing here\n");
        assert_eq!(diff("a\nb\n", "\n", ""), "@@ -1,2 +1,1 @@\n-a\n-b\n+ab\n");
    }

    #[test]
    fn places_in_one_line_are_one_change_and_later_ones_know_what_moved() {
        let shown = diff("x x\n1\n2\n3\n4\n5\nx\n", "x", "y\ny");
        assert_eq!(shown, "@@ -1,3 +1,5 @@\n-x x\n+y\n+y y\n+y\n 1\n 2\n@@ -5,3 +7,4 @@\n 4\n 5\n-x\n+y\n+y\n");
    }

    #[test]
    fn many_and_long_changes_are_cut() {
        let many = diff(&"x\n\n\n\n\n\n".repeat(100), "x", "y");
        assert!(many.ends_with("… and 95 places more\n"), "{many}");
        let long = diff(&"é".repeat(1_000_000), "é", "e");
        assert!(long.len() < 2_000 && long.contains('…'), "{}", long.len());
        let tall = diff("a", "a", &"line\n".repeat(100_000));
        assert!(tall.len() < 2_000 && tall.contains("lines more"), "{tall}");
    }
}
