//! What a child process says on standard error: bounded lines, without control characters.

use std::collections::VecDeque;
use std::io;

use codegen_audit::for_terminal;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest line that is kept, in bytes; the rest of it is dropped.
const LINE_BYTES_MAX: usize = 4_096;
/// What is read at once, in bytes.
const CHUNK_BYTES: usize = 8_192;

/// Reads lines to the end and gives each to `on_line`. Never fails over what is in them.
pub(super) async fn read_lines(mut input: impl AsyncRead + Unpin, mut on_line: impl FnMut(&str)) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut line = Vec::new();
    loop {
        let got = input.read(&mut chunk).await?;
        if got == 0 {
            break;
        }
        for piece in chunk[..got].split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let fits = text.len().min(LINE_BYTES_MAX - line.len());
            line.extend_from_slice(&text[..fits]);
            if ended {
                on_line(&shown(&line));
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        on_line(&shown(&line));
    }
    Ok(())
}

fn shown(line: &[u8]) -> String {
    for_terminal(&String::from_utf8_lossy(line))
}

/// The last lines of a child, for the reason why it does not start.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    /// Lines kept.
    const LINES_MAX: usize = 6;
    /// Characters kept of each.
    const LINE_CHARS_MAX: usize = 300;

    pub(super) fn push(&mut self, line: &str) {
        if self.lines.len() == Self::LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line.chars().take(Self::LINE_CHARS_MAX).collect());
    }

    /// The lines as one text.
    pub(super) fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(input: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        read_lines(input, |line| lines.push(line.to_owned())).await.unwrap();
        lines
    }

    #[tokio::test]
    async fn lines_are_bounded_and_cannot_steer_a_terminal() {
        let long = [vec![b'x'; 100_000], b"\nshort\nno end".to_vec()].concat();
        let lines = lines_of(&long).await;
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 5, 6]);
        let steering = lines_of(b"\x1b[2J\xff\n").await;
        assert!(!steering[0].contains('\x1b'), "{steering:?}");
    }

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let mut tail = Tail::default();
        (0..10).for_each(|line| tail.push(&line.to_string()));
        assert_eq!(tail.text(), "4 | 5 | 6 | 7 | 8 | 9");
    }
}
