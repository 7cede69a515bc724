//! A bound on what one day's diagnostics may take on the disk.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Diagnostics of one day that are kept, in bytes; what comes after is dropped, and the file says so.
const DAY_BYTES_MAX: u64 = 64 << 20;

/// Writes whole lines to `inner`, up to a bound for each day.
#[derive(Debug)]
pub(super) struct Capped<W> {
    inner: W,
    day: u64,
    left: u64,
    /// Whether the file says already that lines were dropped.
    told: bool,
}

impl<W: Write> Capped<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, day: 0, left: DAY_BYTES_MAX, told: false }
    }

    fn write_on(&mut self, day: u64, line: &[u8]) -> io::Result<()> {
        if day != self.day {
            (self.day, self.left, self.told) = (day, DAY_BYTES_MAX, false);
        }
        let bytes = line.len() as u64;
        if bytes <= self.left && !self.told {
            self.left -= bytes;
            return self.inner.write_all(line);
        }
        if !self.told {
            self.told = true;
            let mib = DAY_BYTES_MAX >> 20;
            return writeln!(self.inner, "diagnostics of this day have reached {mib} MiB; the rest of them is dropped");
        }
        Ok(())
    }
}

impl<W: Write> Write for Capped<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.write_on(since_epoch.as_secs() / 86_400, line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_s_diagnostics_are_bounded_and_the_next_day_begins_anew() {
        let mut capped = Capped::new(Vec::new());
        let line = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            capped.write_on(1, &line).unwrap();
        }
        let full = capped.inner.len() as u64;
        assert!((DAY_BYTES_MAX..DAY_BYTES_MAX + 200).contains(&full));
        assert!(capped.inner.ends_with(b"dropped\n"));
        capped.write_on(2, &line).unwrap();
        assert_eq!(capped.inner.len() as u64, full + line.len() as u64);
    }
}
