//! Lines that match, out of output that comes in pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use codegen_pattern::{Ended, Patience, Pattern, Wanted};
use codegen_types::{ErrorCode, Failure};
use tokio::sync::Semaphore;

use crate::tools::args;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1_000;
/// A line that is longer is looked through in parts of this length, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Of a matching line so much is shown, in characters.
const SHOWN_CHARS_MAX: usize = 2_000;
/// How long one call looks for lines, without waiting for them.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Calls that look for lines at once; further ones wait. A pattern can keep a processor busy as long as its call lasts.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Looks for lines off the event loop, for so long and no longer. Dropping it ends a look that is under way.
pub(super) struct Grep {
    /// Absent while a look is under way.
    lines: Option<Lines>,
    stop: Arc<AtomicBool>,
    left: Duration,
}

impl Grep {
    /// Keeps lines that match, from a position on, at most so many characters.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub(super) fn new(pattern: &str, from: u64, chars: usize) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let lines = Lines::new(compile(pattern, stop.clone())?, from, chars);
        Ok(Self { lines: Some(lines), stop, left: TIME_MAX })
    }

    /// Whether more output is of use: lines fit, and there is time.
    pub(super) fn wants_more(&self) -> bool {
        self.lines.as_ref().is_some_and(|lines| lines.end.is_none())
    }

    /// Looks through the next piece of output.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub(super) async fn take(&mut self, piece: Vec<u8>) -> Result<(), Failure> {
        self.work(move |lines| lines.take(&piece)).await
    }

    /// The last line needs no end.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        self.work(Lines::finish).await
    }

    /// Goes on elsewhere, and says what is missing.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub(super) async fn skip_to(&mut self, position: u64, note: String) -> Result<(), Failure> {
        self.work(move |lines| lines.skip_to(position, &note)).await
    }

    async fn work(&mut self, work: impl FnOnce(&mut Lines) + Send + 'static) -> Result<(), Failure> {
        let broken = || Failure::new(ErrorCode::Internal, "the output could not be looked through");
        let _turn = AT_ONCE.acquire().await.map_err(|_| broken())?;
        let mut lines = self.lines.take().ok_or_else(broken)?;
        let begun = Instant::now();
        lines.pattern.until(begun + self.left);
        let worked = tokio::task::spawn_blocking(move || {
            work(&mut lines);
            lines
        });
        self.lines = Some(worked.await.map_err(|_| broken())?);
        self.left = self.left.saturating_sub(begun.elapsed());
        Ok(())
    }

    /// The lines, and where to go on.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when time did not suffice for a single line.
    pub(super) fn into_shown(mut self) -> Result<(String, u64), Failure> {
        let lines = self.lines.take();
        lines.map_or_else(|| Ok((String::new(), 0)), Lines::into_shown)
    }
}

impl Drop for Grep {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn compile(pattern: &str, stop: Arc<AtomicBool>) -> Result<Pattern, Failure> {
    args::bounded("grep", pattern, PATTERN_BYTES_MAX)?;
    let wanted = Wanted { pattern, literal: false, ignore_case: false };
    let patience = Patience { stop, until: Instant::now() + TIME_MAX };
    Pattern::compile(&wanted, patience).map_err(|why| args::invalid("grep", why.to_string()))
}

/// Why no further lines are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// No more fit.
    Full,
    /// Time is up.
    TimedOut,
}

/// Takes in output and keeps the lines that match, within bounds.
struct Lines {
    pattern: Pattern,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// Where that line begins.
    at: u64,
    /// Where the first one began.
    from: u64,
    text: String,
    chars_left: usize,
    end: Option<End>,
}

impl Lines {
    fn new(pattern: Pattern, from: u64, chars: usize) -> Self {
        Self { pattern, begun: Vec::new(), at: from, from, text: String::new(), chars_left: chars, end: None }
    }

    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                self.begun.extend_from_slice(part);
                if self.begun.ends_with(b"\n") || self.begun.len() >= LINE_BYTES_MAX {
                    self.end_line();
                }
            }
            if self.end.is_some() {
                return;
            }
        }
    }

    fn finish(&mut self) {
        if !self.begun.is_empty() {
            self.end_line();
        }
    }

    fn skip_to(&mut self, position: u64, note: &str) {
        self.finish();
        if self.end.is_none() {
            self.at = position;
            self.text.push_str(note.trim_start_matches('\n'));
        }
    }

    fn end_line(&mut self) {
        if self.end.is_some() {
            return;
        }
        let line = self.begun.strip_suffix(b"\n").unwrap_or(&self.begun);
        let found = match self.pattern.find_end(line) {
            Ok(found) => found.is_some(),
            Err(Ended::TimedOut | Ended::Stopped | Ended::Broken) => {
                self.end = Some(End::TimedOut);
                return;
            }
        };
        if found {
            let mut shown: String = String::from_utf8_lossy(line).chars().take(SHOWN_CHARS_MAX + 1).collect();
            if shown.chars().nth(SHOWN_CHARS_MAX).is_some() {
                shown.pop();
                shown.push('…');
            }
            let chars = shown.chars().count() + 1;
            if chars > self.chars_left && !self.text.is_empty() {
                self.end = Some(End::Full);
                return;
            }
            self.chars_left = self.chars_left.saturating_sub(chars);
            self.text.push_str(&shown);
            self.text.push('\n');
        }
        self.at += self.begun.len() as u64;
        self.begun.clear();
    }

    fn into_shown(self) -> Result<(String, u64), Failure> {
        let mut text = self.text;
        if self.end == Some(End::TimedOut) {
            if self.at == self.from {
                return Err(args::invalid("grep", "it takes too long with this output; a simpler pattern does not"));
            }
            text.push_str(&format!("[not looked through further: that took {} s]\n", TIME_MAX.as_secs()));
        }
        Ok((text, self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pattern: &str, from: u64, chars: usize) -> Lines {
        let compiled = compile(pattern, Arc::default()).unwrap_or_else(|failure| panic!("{failure}"));
        let mut lines = Lines::new(compiled, from, chars);
        lines.pattern.until(Instant::now() + Duration::from_secs(60));
        lines
    }

    #[test]
    fn lines_are_found_however_the_output_is_cut_and_the_cursor_goes_on_after_the_last() {
        let output = "one\ntwo\nthree\nfour\nfi".repeat(3);
        for size in 1..9 {
            let mut lines = lines("^t|fi", 100, 1_000);
            output.as_bytes().chunks(size).for_each(|piece| lines.take(piece));
            let (text, at) = lines.into_shown().expect("in time");
            assert_eq!(text, "two\nthree\nfione\ntwo\nthree\nfione\ntwo\nthree\n", "in pieces of {size}");
            assert_eq!(at, 100 + output.len() as u64 - 2, "what is no line yet is left for later");
        }
    }

    #[test]
    fn what_does_not_fit_is_where_the_cursor_points() {
        let mut lines = lines("x", 0, 10);
        lines.take(b"xxxx\nno\nxxxx\nxxxx\n");
        assert_eq!(lines.end, Some(End::Full));
        assert_eq!(lines.into_shown(), Ok(("xxxx\nxxxx\n".to_owned(), 13)));
    }

    #[test]
    fn patterns_and_lines_are_bounded() {
        for wrong in ["(", &"a".repeat(1_001), "(?:a{1000}){1000}", "[[:alpha:]]{100000}"] {
            assert!(Grep::new(wrong, 0, 100).is_err(), "{wrong}");
        }
        let mut lines = lines("a", 0, 100);
        lines.take(&vec![b'a'; 1 << 20]);
        let (text, _) = lines.into_shown().expect("in time");
        assert!(text.chars().count() <= SHOWN_CHARS_MAX + 2, "{}", text.len());
    }

    /// Output for which every step of `(a|b)*a(a|b){n}c` is a new state.
    fn random_letters(count: usize) -> Vec<u8> {
        let mut random = 12_345_u64;
        let letters = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if random >> 40 & 1 == 1 { b'a' } else { b'b' }
        });
        letters.take(count).collect()
    }

    #[tokio::test]
    async fn an_exploding_pattern_holds_up_nobody_and_ends_in_time() {
        let mut grep = Grep::new("(a|b)*a(a|b){1500}c|first", 0, 1_000).expect("it is small enough");
        grep.left = Duration::from_secs(1);
        let begun = Instant::now();
        let output = [b"first\n".as_slice(), &random_letters(4 << 20)].concat();
        let mut beats = 0;
        let beating = async {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                beats += 1;
            }
        };
        tokio::select! {
            taken = grep.take(output) => taken.expect("it is looked through"),
            () = beating => {}
        }
        assert!(begun.elapsed() < TIME_MAX && beats > 10, "{:?}, {beats}", begun.elapsed());
        assert!(!grep.wants_more());
        let (text, at) = grep.into_shown().expect("a line was found");
        assert!(text.starts_with("first\n[not looked through further") && at >= 6, "{text} {at}");
    }

    #[test]
    fn a_pattern_that_takes_too_long_for_one_line_is_refused() {
        let mut lines = lines("(a|b)*a(a|b){1500}c", 0, 1_000);
        lines.pattern.until(Instant::now() + Duration::from_millis(300));
        lines.take(&random_letters(1 << 20));
        assert_eq!(lines.into_shown().expect_err("no line was looked through").code, ErrorCode::InvalidArgument);
    }
}
