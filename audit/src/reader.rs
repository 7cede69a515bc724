//! Reading the log back, record by record, while it is being written or long after.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use codegen_types::LogSeq;

use crate::layout::{self, SegmentFile};
use crate::lines::{Lines, Next};
use crate::record::{BadLine, RECORD_BYTES_MAX, Record};

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read.
    #[error("cannot read the audit log at `{path}`")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no record; reading goes on behind it.
    #[error("{file}, line {line}, byte {offset}: {bad}")]
    Bad {
        /// The segment's file name.
        file: String,
        /// The line in it, counted from 1; from where reading began, when that was not the segment's beginning.
        line: u64,
        /// The line's first byte.
        offset: u64,
        /// What is wrong.
        bad: BadLine,
    },
}

/// The records of the log in `dir`, oldest first, from record `from` on. Nothing is checked but that each line is a
/// record; [`verify`](crate::verify()) checks the rest.
///
/// An unfinished last line is not given. After `None`, a log that has grown gives more.
pub fn records(dir: &Path, from: Option<LogSeq>) -> Records {
    Records {
        dir: dir.to_owned(),
        from: from.unwrap_or_default(),
        place: None,
        open: None,
        last_pass: false,
        damaged: false,
    }
}

/// See [`records`].
pub struct Records {
    dir: PathBuf,
    from: LogSeq,
    /// The segment that is being read, and how far.
    place: Option<Place>,
    open: Option<Lines<BufReader<File>>>,
    /// Whether a later segment has been seen since the present one was opened, so that its end is final.
    last_pass: bool,
    damaged: bool,
}

struct Place {
    segment: SegmentFile,
    offset: u64,
    line: u64,
}

enum Step {
    Give(Box<Record>),
    Skip,
    Behind,
    Bad(BadLine),
    /// What is no line, and whether nothing but padding follows it.
    Rest(bool),
}

impl Iterator for Records {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.damaged {
                return None;
            }
            match self.reopen() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(self.stop(error))),
            }
            match self.step() {
                Ok(Step::Give(record)) => return Some(Ok(*record)),
                Ok(Step::Skip) => {}
                Ok(Step::Bad(bad)) => return self.bad(bad, 1).map(Err),
                Ok(Step::Behind) => match self.move_on() {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) => return Some(Err(self.stop(error))),
                },
                Ok(Step::Rest(only_nul_follows)) => match self.behind_rest(only_nul_follows) {
                    Ok(None) => {}
                    Ok(Some(result)) => return result.map(Err),
                    Err(error) => return Some(Err(self.stop(error))),
                },
                Err(error) => return Some(Err(self.stop(error))),
            }
        }
    }
}

impl Records {
    /// Opens the present segment where reading stopped; false when there is none yet.
    fn reopen(&mut self) -> io::Result<bool> {
        if self.open.is_some() {
            return Ok(true);
        }
        if self.place.is_none() {
            let mut segments = layout::segments(&self.dir)?;
            let behind = segments.partition_point(|segment| segment.first <= self.from);
            if segments.is_empty() {
                return Ok(false);
            }
            self.place = Some(Place { segment: segments.swap_remove(behind.saturating_sub(1)), offset: 0, line: 0 });
        }
        let Some(place) = &self.place else { return Ok(false) };
        let mut file = File::open(&place.segment.path)?;
        file.seek(io::SeekFrom::Start(place.offset))?;
        self.open = Some(Lines::starting_at(BufReader::with_capacity(64 << 10, file), place.offset));
        Ok(true)
    }

    fn step(&mut self) -> io::Result<Step> {
        let (Some(lines), Some(place)) = (&mut self.open, &mut self.place) else { return Ok(Step::Behind) };
        let parsed = match lines.next()? {
            Next::End => return Ok(Step::Behind),
            Next::Rest { begin, .. } if begin.len() > RECORD_BYTES_MAX => return Ok(Step::Rest(false)),
            Next::Rest { only_nul_follows, .. } => return Ok(Step::Rest(only_nul_follows)),
            Next::Line(line) => match std::str::from_utf8(line) {
                Ok(line) => Record::parse(line),
                Err(_) => Err(BadLine::NotARecord("it is not UTF-8".to_owned())),
            },
        };
        let step = match parsed {
            Ok(record) if record.seq < self.from => Step::Skip,
            Ok(record) => Step::Give(Box::new(record)),
            Err(bad) => Step::Bad(bad),
        };
        if !matches!(step, Step::Bad(_)) {
            place.line += 1;
            place.offset = lines.offset();
        }
        Ok(step)
    }

    /// Goes on to the next segment; false when there is none.
    fn move_on(&mut self) -> io::Result<bool> {
        self.open = None;
        let Some(place) = &self.place else { return Ok(false) };
        let next = layout::segments(&self.dir)?.into_iter().find(|segment| segment.first > place.segment.first);
        let Some(next) = next else { return Ok(false) };
        // The writer may have added to this segment after its end was seen and before it began the next one.
        if self.last_pass {
            self.place = Some(Place { segment: next, offset: 0, line: 0 });
        }
        self.last_pass = !self.last_pass;
        Ok(true)
    }

    /// `None` to go on, else what to give.
    fn behind_rest(&mut self, only_nul_follows: bool) -> io::Result<Option<Option<ReadError>>> {
        let was_last_pass = self.last_pass;
        // It is in the segment that is being read now.
        let here = self.place.as_ref().map(|place| ReadError::Bad {
            file: place.segment.name(),
            line: place.line + 1,
            offset: place.offset,
            bad: BadLine::NotWhole,
        });
        let more = self.move_on()?;
        if more && !was_last_pass {
            return Ok(None);
        }
        if more || !(only_nul_follows || layout::is_live(&self.dir)) {
            self.damaged = true;
            return Ok(Some(here));
        }
        Ok(Some(None))
    }

    fn bad(&mut self, bad: BadLine, lines: u64) -> Option<ReadError> {
        let place = self.place.as_mut()?;
        let error = ReadError::Bad { file: place.segment.name(), line: place.line + 1, offset: place.offset, bad };
        place.line += lines;
        if let Some(open) = &self.open {
            place.offset = open.offset();
        }
        Some(error)
    }

    fn stop(&mut self, source: io::Error) -> ReadError {
        self.damaged = true;
        let path = self.place.as_ref().map_or_else(|| self.dir.clone(), |place| place.segment.path.clone());
        ReadError::Io { path, source }
    }
}

/// The first record of a segment before which no record of this time or later stands: where to begin when only what came
/// since is wanted. `None`: at the beginning.
///
/// Times go back where the clock was set back, which begins a segment: so each segment's last record is its latest.
///
/// # Errors
///
/// [`ReadError::Io`] when the directory cannot be listed.
pub fn first_record_of_segment_at(dir: &Path, since: jiff::Timestamp) -> Result<Option<LogSeq>, ReadError> {
    let mut segments = layout::segments(dir).map_err(|source| ReadError::Io { path: dir.to_owned(), source })?;
    // The last one may be growing.
    let Some(growing) = segments.pop() else { return Ok(None) };
    // What cannot be read is taken for late, so that too much is read and nothing left out.
    let is_late = |segment: &SegmentFile| {
        let last = last_record(&segment.path).ok().flatten();
        last.is_none_or(|record| record.ts >= since)
    };
    Ok(Some(segments.into_iter().find(is_late).unwrap_or(growing).first))
}

/// The last record of a segment, when it ends behind a whole one.
pub(crate) fn last_record(segment: &Path) -> io::Result<Option<Record>> {
    let mut file = File::open(segment)?;
    let tail = file.metadata()?.len().min(RECORD_BYTES_MAX as u64 + 2);
    file.seek(io::SeekFrom::End(-i64::try_from(tail).unwrap_or(0)))?;
    let mut bytes = Vec::new();
    file.take(tail).read_to_end(&mut bytes)?;
    let Some(whole) = bytes.strip_suffix(b"\n") else { return Ok(None) };
    let begin = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    Ok(std::str::from_utf8(&whole[begin..]).ok().and_then(|line| Record::parse(line).ok()))
}

/// The first record of the last segment: where to begin when only the log's end is wanted.
///
/// # Errors
///
/// [`ReadError::Io`] when the directory cannot be listed.
pub fn last_segment_start(dir: &Path) -> Result<Option<LogSeq>, ReadError> {
    let segments = layout::segments(dir).map_err(|source| ReadError::Io { path: dir.to_owned(), source })?;
    Ok(segments.last().map(|segment| segment.first))
}
