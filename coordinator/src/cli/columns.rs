//! Aligned columns for people: harmless on any terminal, no wider than it, and whole when piped.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use codegen_audit::for_terminal;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What a column that is shortened keeps at least, in cells of the terminal.
const WIDTH_MIN: usize = 8;
/// Between two columns.
const GAP: &str = "  ";

/// One column and what it does where there is no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) yields: Yields,
}

/// What a column does where there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Yields {
    /// It stays as it is.
    Never,
    /// It is shortened.
    Shortens,
    /// It is shortened and then left out, the last of these first.
    Leaves,
}

/// The columns of a table by their names.
pub(super) fn columns<const N: usize>(columns: [(&'static str, Yields); N]) -> [Column; N] {
    columns.map(|(name, yields)| Column { name, yields })
}

/// The width of the terminal that stdout is, in cells; `None` when it is none, so that nothing is shortened.
pub(super) fn terminal_width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// The rows below a heading. Every cell is made harmless; `width` bounds the lines where columns can yield.
pub(super) fn table<const N: usize>(columns: [Column; N], rows: &[[String; N]], width: Option<usize>) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| for_terminal(cell))).collect();
    let mut widths: [usize; N] = std::array::from_fn(|at| {
        let widest = rows.iter().map(|row| row[at].width()).max().unwrap_or_default();
        widest.max(columns[at].name.width())
    });
    let mut shown = [true; N];
    if let Some(width) = width {
        fit(&columns, &mut widths, &mut shown, width);
    }
    let mut text = String::new();
    let heading = columns.map(|column| column.name.to_owned());
    for row in std::iter::once(&heading).chain(&rows) {
        let mut line = String::new();
        for at in (0..N).filter(|at| shown[*at]) {
            let cell = shortened(&row[at], widths[at]);
            let padding = widths[at].saturating_sub(cell.width());
            let gap = if line.is_empty() { "" } else { GAP };
            write!(line, "{gap}{cell}{:padding$}", "").expect("writing to a string");
        }
        writeln!(text, "{}", line.trim_end()).expect("writing to a string");
    }
    text
}

/// The text in at most so many cells of the terminal.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| left.checked_sub(c.width().unwrap_or(0)).inspect(|rest| left = *rest).is_some();
    text.chars().take_while(fits).chain(['…']).collect()
}

/// Shortens the widest column that may be shortened, again and again, and then leaves columns out, until it fits or
/// nothing yields any more.
fn fit<const N: usize>(columns: &[Column; N], widths: &mut [usize; N], shown: &mut [bool; N], width: usize) {
    loop {
        let in_use = (0..N).filter(|at| shown[*at]).collect::<Vec<_>>();
        let total = in_use.iter().map(|at| widths[*at]).sum::<usize>() + GAP.len() * in_use.len().saturating_sub(1);
        let Some(excess) = total.checked_sub(width).filter(|excess| *excess > 0) else { return };
        let yielding = |at: &&usize| columns[**at].yields != Yields::Never && widths[**at] > WIDTH_MIN;
        let widest = in_use.iter().filter(yielding).max_by_key(|at| (widths[**at], Reverse(**at)));
        match widest {
            Some(at) => widths[*at] = widths[*at].saturating_sub(excess).max(WIDTH_MIN),
            None => match in_use.iter().rfind(|at| columns[**at].yields == Yields::Leaves) {
                Some(at) => shown[*at] = false,
                None => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(width: Option<usize>) -> String {
        let columns = columns([("ID", Yields::Never), ("NAME", Yields::Shortens), ("NOTE", Yields::Leaves)]);
        let rows = [
            ["ses_1", "a name of some length", "n"].map(str::to_owned),
            ["ses_2", "\u{1b}[2Jred", "\u{202e}漢字"].map(str::to_owned),
        ];
        table(columns, &rows, width)
    }

    #[test]
    fn piped_everything_is_whole_and_aligned() {
        let text = shown(None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "ses_1  a name of some length  n");
        assert_eq!(lines[0].find("NOTE"), lines[1].rfind('n'));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_the_id_stays() {
        for width in 17..60 {
            for line in shown(Some(width)).lines() {
                assert!(line.width() <= width, "{width}: {line}");
                assert!(line.starts_with("ses_") || line.starts_with("ID"));
            }
        }
    }

    #[test]
    fn a_hostile_name_moves_no_cursor() {
        for width in [None, Some(40)] {
            assert!(!shown(width).contains(['\u{1b}', '\u{202e}']));
        }
    }
}
