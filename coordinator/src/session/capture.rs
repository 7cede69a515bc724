//! Output within bounds: the head and the tail of what was written.

use std::collections::VecDeque;

use super::Captured;

/// The most bytes of each end of each stream that are kept.
pub(super) const END_BYTES_MAX: usize = 128 * 1024;

/// Collects one stream.
#[derive(Debug, Default, Clone)]
pub(super) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    omitted: u64,
}

impl Capture {
    /// Takes in what was written next.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = END_BYTES_MAX - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        // Only the last bytes of a large piece can stay.
        let skipped = rest.len().saturating_sub(END_BYTES_MAX);
        let rest = &rest[skipped..];
        let overflow = (self.tail.len() + rest.len()).saturating_sub(END_BYTES_MAX);
        self.tail.drain(..overflow);
        self.tail.extend(rest);
        self.omitted += (skipped + overflow) as u64;
    }

    /// Takes up again what was kept.
    pub(super) fn of(captured: Captured) -> Self {
        Self { head: captured.head, tail: captured.tail.into(), omitted: captured.omitted }
    }

    /// Whether nothing was written.
    pub(super) const fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// What is kept.
    pub(super) fn finish(self) -> Captured {
        Captured { head: self.head, tail: self.tail.into(), omitted: self.omitted }
    }
}

impl Captured {
    /// How many bytes were written, kept or not.
    pub fn written(&self) -> u64 {
        self.head.len() as u64 + self.omitted + self.tail.len() as u64
    }

    /// Leaves the first and last bytes, at most `bytes_max` together, and counts what goes.
    pub(crate) fn cut_to(&mut self, bytes_max: usize) {
        let each = bytes_max / 2;
        if self.head.len() + self.tail.len() <= bytes_max {
            return;
        }
        let mut whole = std::mem::take(&mut self.head);
        let head_len = whole.len();
        whole.append(&mut self.tail);
        let tail_from = whole.len() - each.min(whole.len() - each.min(whole.len()));
        // Where bytes are missing already, the gap must stay between head and tail.
        let (head_to, tail_from) =
            if self.omitted == 0 { (each, tail_from) } else { (each.min(head_len), tail_from.max(head_len)) };
        self.omitted += (tail_from - head_to) as u64;
        self.tail = whole.split_off(tail_from);
        whole.truncate(head_to);
        self.head = whole;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_output_is_kept_whole() {
        let mut capture = Capture::default();
        capture.push(b"hello ");
        capture.push(b"world");
        assert_eq!(capture.finish(), Captured { head: b"hello world".to_vec(), tail: vec![], omitted: 0 });
    }

    proptest! {
        #[test]
        fn head_and_tail_are_what_was_written_first_and_last(
            pieces in prop::collection::vec((0u8..255, 0usize..200_000), 0..8), cut in 2usize..300_000,
        ) {
            let (mut capture, mut whole) = (Capture::default(), Vec::new());
            for (byte, len) in pieces {
                let piece: Vec<u8> = (0..len).map(|n| byte.wrapping_add(n.to_le_bytes()[0])).collect();
                capture.push(&piece);
                whole.extend(piece);
            }
            let mut kept = capture.finish();
            for bytes_max in [2 * END_BYTES_MAX, cut] {
                kept.cut_to(bytes_max);
                prop_assert!(kept.head.len() + kept.tail.len() <= bytes_max);
                prop_assert!(whole.starts_with(&kept.head) && whole.ends_with(&kept.tail));
                prop_assert_eq!(kept.head.len() + kept.tail.len() + kept.omitted as usize, whole.len());
            }
        }
    }
}
