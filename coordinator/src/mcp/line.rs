//! Lines of input: bounded, and resynchronised at the next newline when one is too long.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// A buffer that grew larger than this for one line is given back after it.
const KEPT_BYTES: usize = 1 << 20;

/// Reads lines of at most `bytes_max` bytes.
pub(super) struct LineReader<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    bytes_max: usize,
    /// The line being read is too long and was reported; what is left of it is skipped. Kept here because a read may
    /// be given up and taken up again.
    skipping: bool,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its newline.
    Whole(Vec<u8>),
    /// A line was too long and is skipped.
    TooLong,
    /// There will be no more.
    End,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(input: R, bytes_max: usize) -> Self {
        Self { input: BufReader::with_capacity(64 << 10, input), line: Vec::new(), bytes_max, skipping: false }
    }

    /// The next line. May be given up at any await without losing a byte. A last line without a newline counts.
    pub(super) async fn next(&mut self) -> std::io::Result<Line> {
        loop {
            let available = self.input.fill_buf().await?;
            if available.is_empty() {
                let rest = self.take();
                return Ok(if rest.is_empty() { Line::End } else { Line::Whole(rest) });
            }
            let newline = available.iter().position(|b| *b == b'\n');
            let part = &available[..newline.unwrap_or(available.len())];
            let used = part.len() + usize::from(newline.is_some());
            let too_long = !self.skipping && self.line.len() + part.len() > self.bytes_max;
            if !self.skipping && !too_long {
                self.line.extend_from_slice(part);
            }
            self.input.consume(used);
            if too_long {
                self.take();
                self.skipping = newline.is_none();
                return Ok(Line::TooLong);
            }
            if newline.is_some() && !std::mem::take(&mut self.skipping) {
                return Ok(Line::Whole(self.take()));
            }
        }
    }

    fn take(&mut self) -> Vec<u8> {
        let capacity = self.line.capacity().min(KEPT_BYTES);
        let mut line = std::mem::replace(&mut self.line, Vec::with_capacity(capacity));
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8], bytes_max: usize) -> Vec<Line> {
        let mut reader = LineReader::new(input, bytes_max);
        let mut lines = Vec::new();
        loop {
            match reader.next().await.expect("memory can be read") {
                Line::End => return lines,
                line => lines.push(line),
            }
        }
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.into())
    }

    #[tokio::test]
    async fn lines_end_with_either_newline_and_the_last_may_have_none() {
        assert_eq!(lines(b"a\nb\r\n\nc", 10).await, [whole("a"), whole("b"), whole(""), whole("c")]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_reported_once_and_the_next_is_read() {
        let input = ["x".repeat(300_000), "after".into(), "y".repeat(11), "z".repeat(10)].join("\n");
        let expected = [Line::TooLong, whole("after"), Line::TooLong, whole(&"z".repeat(10))];
        assert_eq!(lines(input.as_bytes(), 10).await, expected);
    }
}
