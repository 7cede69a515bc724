//! The times of records: what the clock says, except that they never go back within a segment. Where the clock was set,
//! a record says so, and where it was set back, a new segment begins.

use codegen_types::LogSeq;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::entry::{Entry, EventKind};
use crate::record::Record;

/// The clock may differ by so much from what the machine says has passed, as it does after a leap second.
const TOLERATED: SignedDuration = SignedDuration::from_secs(2);
/// Both clocks are read within so many nanoseconds, unless the process was held up in between.
const MOMENT_NS: u64 = 1_000_000;
/// How often they are read anew when it was.
const READINGS_MAX: usize = 8;

/// One reading of the wall clock and of the time since the machine booted, sleep included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) ts: Timestamp,
    pub(crate) mono_ns: u64,
}

impl Moment {
    fn now() -> Self {
        let mut before = since_boot_ns();
        for _ in 0..READINGS_MAX {
            let (ts, mono_ns) = (Timestamp::now(), since_boot_ns());
            if mono_ns.saturating_sub(before) < MOMENT_NS {
                return Self { ts, mono_ns };
            }
            before = mono_ns;
        }
        Self { ts: Timestamp::now(), mono_ns: since_boot_ns() }
    }
}

/// The time of the last record. That since boot only says something about records of the same boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Last {
    ts: Timestamp,
    mono_ns: Option<u64>,
}

/// Reads the clocks, and knows where the log's time stands.
pub(crate) struct Times {
    read: Box<dyn FnMut() -> Moment + Send>,
    boot_id: String,
    pub(crate) last: Option<Last>,
}

impl Times {
    pub(crate) fn new() -> Self {
        Self { read: Box::new(Moment::now), boot_id: boot_id(), last: None }
    }

    /// Goes on behind a record that is there already.
    pub(crate) fn resume(&mut self, record: &Record) {
        let mono_ns = (record.boot_id == self.boot_id).then_some(record.mono_ns);
        self.last = Some(Last { ts: record.ts, mono_ns });
    }

    /// Takes another clock's word.
    #[cfg(test)]
    pub(crate) fn set_clock(&mut self, read: impl FnMut() -> Moment + Send + 'static) {
        self.read = Box::new(read);
    }

    pub(crate) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// What the clock did since the last record.
    pub(crate) fn look(&mut self) -> Turn {
        let now = (self.read)();
        self.last.map_or_else(Turn::default, |last| last.turn(now))
    }

    /// The time of another record of a batch that began so.
    pub(crate) fn next(&mut self, last: &mut Option<Last>) -> Moment {
        let now = (self.read)();
        let ts = last.map_or(now.ts, |last| now.ts.max(last.ts));
        *last = Some(Last { ts, mono_ns: Some(now.mono_ns) });
        Moment { ts, ..now }
    }
}

/// What the clock did since the last record.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// By how much it was set.
    pub(crate) set_by: Option<SignedDuration>,
    /// Whether it is earlier now than it was then, by more than is waited for.
    pub(crate) is_back: bool,
}

impl Last {
    fn turn(self, now: Moment) -> Turn {
        let went = now.ts.duration_since(self.ts);
        let is_back = went < -TOLERATED;
        let passed = self.mono_ns.and_then(|then| i64::try_from(now.mono_ns.checked_sub(then)?).ok());
        let set_by = match passed.map(SignedDuration::from_nanos) {
            Some(passed) => Some(went.saturating_sub(passed)).filter(|by| by.abs() > TOLERATED),
            // Of another boot only this is known.
            None => Some(went).filter(|_| is_back),
        };
        Turn { set_by, is_back }
    }
}

/// The record of a clock that was set.
pub(crate) fn clock_set(by: SignedDuration, after: LogSeq) -> Entry {
    Entry {
        kind: EventKind::LogClockSet,
        detail: Some(json!({ "by_ms": i64::try_from(by.as_millis()).unwrap_or(i64::MAX), "after": after })),
        ..Entry::default()
    }
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().chars().filter(|c| c.is_ascii_hexdigit() || *c == '-').take(36).collect()
}

fn since_boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;
    use crate::hash::Hash;
    use crate::log::Log;
    use crate::record::EncodedEvent;
    use crate::redact::Redactor;
    use crate::{Options, Verdict, first_record_of_segment_at, open, records, verify};

    const HOUR: i64 = 3_600;
    const YEAR: i64 = 365 * 24 * HOUR;

    /// A log whose clocks a test sets.
    struct Clocked {
        log: Log,
        now: Arc<Mutex<Moment>>,
    }

    impl Clocked {
        fn open(dir: &Path, start: Option<Moment>) -> Self {
            let options = Options { segment_bytes_max: 1_500, ..Options::new(dir) };
            let mut log = open::open(&options).unwrap().log;
            let now = Arc::new(Mutex::new(start.unwrap_or_else(Moment::now)));
            let clock = now.clone();
            log.times.set_clock(move || *clock.lock());
            Self { log, now }
        }

        /// So many seconds pass, and the clock says that others have.
        fn pass(&self, seconds: i64, clock_seconds: i64) {
            let mut now = self.now.lock();
            now.mono_ns += u64::try_from(seconds).unwrap() * 1_000_000_000;
            now.ts = now.ts.saturating_add(SignedDuration::from_secs(clock_seconds)).unwrap();
        }

        fn append(&mut self) -> LogSeq {
            let event = EncodedEvent::new(&Entry::default(), &Redactor::new([0; 32]));
            self.log.append([&event].into_iter()).unwrap()
        }
    }

    fn stored(dir: &Path) -> Vec<Record> {
        records(dir, None).map(Result::unwrap).collect()
    }

    fn notes(dir: &Path) -> Vec<i64> {
        let of_clock = stored(dir).into_iter().filter(|record| record.kind == EventKind::LogClockSet);
        of_clock.map(|record| record.detail.unwrap()["by_ms"].as_i64().unwrap()).collect()
    }

    /// Whatever time is asked for, reading from where it is said to begin leaves no record of it out.
    fn nothing_is_left_out(dir: &Path) {
        let all = stored(dir);
        assert!(all.windows(2).all(|pair| pair[1].prev == pair[0].hash) && all[0].prev == Hash::GENESIS);
        let nanosecond = SignedDuration::from_nanos(1);
        for since in all.iter().flat_map(|record| [record.ts, record.ts + nanosecond, record.ts - nanosecond]) {
            let from = first_record_of_segment_at(dir, since).unwrap();
            let read: Vec<LogSeq> =
                records(dir, from).map(|record| record.unwrap()).filter(|r| r.ts >= since).map(|r| r.seq).collect();
            let wanted: Vec<LogSeq> = all.iter().filter(|record| record.ts >= since).map(|record| record.seq).collect();
            assert_eq!(read, wanted, "since {since} from {from:?}");
        }
    }

    #[test]
    fn a_clock_that_is_set_is_on_record_and_one_that_is_set_back_begins_a_segment() {
        let dir = tempfile::tempdir().unwrap();
        let mut clocked = Clocked::open(dir.path(), None);
        clocked.append();
        clocked.pass(10, 10 + YEAR);
        let ahead = clocked.append();
        clocked.pass(10, 10 - YEAR);
        let back = clocked.append();
        clocked.pass(10, 9);
        clocked.append();
        clocked.pass(0, -1);
        clocked.append();
        assert_eq!(notes(dir.path()), [YEAR * 1_000, -YEAR * 1_000]);
        let segments: Vec<LogSeq> =
            crate::layout::segments(dir.path()).unwrap().into_iter().map(|segment| segment.first).collect();
        assert!(segments.contains(&LogSeq(back.0 - 1)) && back > ahead, "the note begins one: {segments:?}");
        nothing_is_left_out(dir.path());
        let all = stored(dir.path());
        let of = |seq: LogSeq| all.iter().find(|record| record.seq == seq).unwrap().ts;
        assert!(of(ahead) > of(back) && all[all.len() - 1].ts == all[all.len() - 2].ts, "a second back is waited for");
        clocked.log.finish().unwrap();
        assert_eq!(verify(dir.path(), None).verdict, Verdict::Whole);
    }

    #[test]
    fn a_clock_that_was_set_back_while_no_writer_was_there_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut clocked = Clocked::open(dir.path(), None);
        clocked.pass(HOUR, HOUR);
        clocked.append();
        clocked.log.finish().unwrap();
        drop(clocked);
        // The real clocks are an hour behind those of the first writer.
        let _again = Clocked::open(dir.path(), None);
        assert_eq!(notes(dir.path()).len(), 1);
        nothing_is_left_out(dir.path());
        let all = stored(dir.path());
        let back = all.windows(2).find(|pair| pair[1].ts < pair[0].ts).expect("it went back").to_vec();
        assert_eq!(back[1].kind, EventKind::LogClockSet);
    }

    #[test]
    fn passing_time_and_sleep_are_no_setting_of_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        let mut clocked = Clocked::open(dir.path(), None);
        for (seconds, clock_seconds) in [(0, 0), (YEAR, YEAR), (5, 6), (HOUR, HOUR - 1)] {
            clocked.pass(seconds, clock_seconds);
            clocked.append();
        }
        assert_eq!(notes(dir.path()), [] as [i64; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn however_the_clock_jumps_no_record_since_a_time_is_left_out(
            steps in prop::collection::vec((0..3 * HOUR, prop_oneof![3 => Just(0), 1 => -YEAR..YEAR, 2 => -5_i64..5]), 1..40),
            again in 0_usize..40,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut clocked = Clocked::open(dir.path(), None);
            for (n, (seconds, by)) in steps.into_iter().enumerate() {
                clocked.pass(seconds, seconds + by);
                if n == again {
                    let now = *clocked.now.lock();
                    drop(clocked);
                    clocked = Clocked::open(dir.path(), Some(now));
                }
                clocked.append();
            }
            for segment in crate::layout::segments(dir.path()).unwrap() {
                let next = crate::layout::segments(dir.path()).unwrap().into_iter().find(|other| other.first > segment.first);
                let of_it = stored(dir.path()).into_iter().filter(|record| {
                    record.seq >= segment.first && next.as_ref().is_none_or(|next| record.seq < next.first)
                });
                prop_assert!(of_it.map(|record| record.ts).is_sorted(), "{}", segment.name());
            }
            nothing_is_left_out(dir.path());
            drop(clocked);
            let is_tampered = matches!(verify(dir.path(), None).verdict, Verdict::Tampered { .. });
            prop_assert!(!is_tampered);
        }
    }
}
