//! Lines of a segment, one at a time and of bounded length, however large or damaged the file is.

use std::io::{self, BufRead};

use crate::record::RECORD_BYTES_MAX;

/// What comes next in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// A whole line, without its newline.
    Line(&'a [u8]),
    /// Nothing: the segment ends behind a newline.
    End,
    /// What is no line: bytes without a newline, NUL bytes, or a line longer than any record.
    Rest {
        /// The bytes up to the first NUL byte, the end, or the bound.
        begin: &'a [u8],
        /// Whether nothing but NUL bytes follows to the end. If not, this is no torn tail.
        only_nul_follows: bool,
    },
}

/// Reads lines and knows where they stand.
pub(crate) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    /// Where the next one begins.
    offset: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) const fn new(input: R) -> Self {
        Self { input, line: Vec::new(), offset: 0 }
    }

    /// Lines of an input that begins at `offset` of its file.
    pub(crate) const fn starting_at(input: R, offset: u64) -> Self {
        Self { input, line: Vec::new(), offset }
    }

    /// Where the next line begins, in bytes.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        self.line.clear();
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok(if self.line.is_empty() {
                    Next::End
                } else {
                    Next::Rest { begin: &self.line, only_nul_follows: true }
                });
            }
            let end = available.iter().position(|byte| matches!(byte, b'\n' | 0));
            let taken = end.unwrap_or(available.len());
            self.line.extend_from_slice(&available[..taken]);
            let stop = end.map(|end| available[end]);
            match stop {
                Some(b'\n') => {
                    self.input.consume(taken + 1);
                    self.offset += self.line.len() as u64 + 1;
                    return Ok(Next::Line(&self.line));
                }
                Some(_) => {
                    self.input.consume(taken);
                    let only_nul_follows = only_nul(&mut self.input)?;
                    return Ok(Next::Rest { begin: &self.line, only_nul_follows });
                }
                None => self.input.consume(taken),
            }
            if self.line.len() > RECORD_BYTES_MAX {
                let only_nul_follows = only_nul(&mut self.input)?;
                return Ok(Next::Rest { begin: &self.line, only_nul_follows });
            }
        }
    }
}

fn only_nul(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let available = input.fill_buf()?;
        if available.is_empty() {
            return Ok(true);
        }
        if available.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let all = available.len();
        input.consume(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_come_first_and_the_rest_is_told_apart() {
        type Case = (&'static [u8], Option<(&'static [u8], bool)>);
        let cases: [Case; 5] = [
            (b"a\nb\n", None),
            (b"a\nb\ncd", Some((b"cd", true))),
            (b"a\nb\ncd\0\0", Some((b"cd", true))),
            (b"a\nb\n\0\0", Some((b"", true))),
            (b"a\nb\nc\0d\n", Some((b"c", false))),
        ];
        for (input, rest) in cases {
            let mut lines = Lines::new(io::BufReader::with_capacity(1, input));
            assert_eq!(lines.next().unwrap(), Next::Line(b"a"));
            assert_eq!(lines.next().unwrap(), Next::Line(b"b"));
            assert_eq!(lines.offset(), 4);
            match (lines.next().unwrap(), rest) {
                (Next::End, None) => {}
                (Next::Rest { begin, only_nul_follows }, Some(expected)) => {
                    assert_eq!((begin, only_nul_follows), expected)
                }
                (got, expected) => panic!("{got:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut lines = Lines::new(io::BufReader::new(io::Read::take(io::repeat(b'x'), 1 << 20)));
        let Next::Rest { begin, only_nul_follows } = lines.next().unwrap() else { panic!("no rest") };
        assert!(begin.len() < RECORD_BYTES_MAX + (16 << 10) && !only_nul_follows);
    }
}
