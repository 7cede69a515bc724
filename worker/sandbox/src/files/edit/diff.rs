//! A short unified diff of replacements whose places are known.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};

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
    let before = &contents[region.lines.clone()];
    // Lines that only adjoin the change are the same on both sides.
    let same_first = same_lines_at_start(before, &replaced);
    let (removed, added) = (&before[same_first..], &replaced[same_first..]);
    let same_last = same_lines_at_end(removed, added);
    let (removed, added) = (&removed[..removed.len() - same_last], &added[..added.len() - same_last]);

    let begin = region.lines.start + same_first;
    let above = last_lines(&contents[..begin], CONTEXT);
    let below = first_lines(&contents[region.lines.end - same_last..], CONTEXT);
    let number = line_number(contents, begin) - count_lines(above);
    let moved = number.checked_add_signed(line_shift).unwrap_or(number);
    let around = count_lines(above) + count_lines(below);
    let (removed_count, added_count) = (count_lines(removed), count_lines(added));
    diff.push_str(&format!("@@ -{number},{} +{moved},{} @@\n", around + removed_count, around + added_count));
    for (sign, side) in [(' ', above), ('-', removed), ('+', added), (' ', below)] {
        write_side(diff, sign, side);
    }
    isize::try_from(added_count).unwrap_or(0) - isize::try_from(removed_count).unwrap_or(0)
}

/// How many bytes at the beginning are whole lines that both texts begin with.
fn same_lines_at_start(a: &[u8], b: &[u8]) -> usize {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    memrchr(b'\n', &a[..same]).map_or(0, |at| at + 1)
}

/// How many bytes at the end are whole lines that both texts end with. Both begin where a line begins.
fn same_lines_at_end(a: &[u8], b: &[u8]) -> usize {
    let same = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let begins_line = |text: &[u8]| text.len() == same || text[text.len() - same - 1] == b'\n';
    if begins_line(a) && begins_line(b) {
        return same;
    }
    let tail = &a[a.len() - same..];
    memchr(b'\n', tail).map_or(0, |at| tail.len() - at - 1)
}

fn count_lines(text: &[u8]) -> usize {
    let unended = text.last().is_some_and(|last| *last != b'\n');
    memchr_iter(b'\n', text).count() + usize::from(unended)
}

fn first_lines(text: &[u8], count: usize) -> &[u8] {
    let end = memchr_iter(b'\n', text).nth(count - 1).map_or(text.len(), |at| at + 1);
    &text[..end]
}

fn last_lines(text: &[u8], count: usize) -> &[u8] {
    let mut begin = text.len();
    for _ in 0..count {
        begin = memrchr(b'\n', &text[..begin.saturating_sub(1)]).map_or(0, |at| at + 1);
    }
    &text[begin..]
}

fn write_side(diff: &mut String, sign: char, side: &[u8]) {
    // Lines with their ends, so that a change of an end is a change.
    for line in side.split_inclusive(|byte| *byte == b'\n').take(LINES_MAX) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let part = &text[..text.len().min(LINE_BYTES_MAX)];
        diff.push(sign);
        diff.push_str(String::from_utf8_lossy(part).trim_end_matches('\u{fffd}'));
        if part.len() < text.len() {
            diff.push('…');
        }
        diff.push('\n');
    }
    if let Some(more) = count_lines(side).checked_sub(LINES_MAX).filter(|more| *more > 0) {
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

    /// What the diff shows is what it would be if all lines were compared one by one.
    #[test]
    fn lines_at_both_ends_are_the_same_only_when_they_are_whole() {
        for (a, b, start, end) in [
            ("a\nx\nb\n", "a\ny\nb\n", 2, 2),
            ("a\nxb", "a\nyb", 2, 0),
            ("a\nb\n", "a\n", 2, 0),
            ("ab", "ab\n", 0, 0),
            ("x\nb", "y\nb", 0, 1),
            ("b", "x\nb", 0, 1),
            ("xb\nc\n", "b\nc\n", 0, 2),
            ("", "a\n", 0, 0),
        ] {
            let first = same_lines_at_start(a.as_bytes(), b.as_bytes());
            assert_eq!(first, start, "{a:?} {b:?}");
            assert_eq!(same_lines_at_end(&a.as_bytes()[first..], &b.as_bytes()[first..]), end, "{a:?} {b:?}");
        }
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
