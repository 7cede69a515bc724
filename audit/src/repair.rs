//! Repair: sets what is damaged aside, so that the log can go on behind its last good record. Deletes nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use codegen_types::LogSeq;
use serde::Serialize;
use serde_json::{Value, json};

use crate::keys::{KEY_DIR, KeyError, Keys};
use crate::layout::{self, CHECKPOINT_DIR, NoteFile, REPAIR_MARK, SegmentFile};
use crate::log::Tip;
use crate::open::{OpenError, claim, with_cause};
use crate::reader::records;
use crate::scan::{self, Checkpoints, End, Position, Scan};

/// What a repair found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// The last good record, behind which the log goes on.
    pub kept_through: LogSeq,
    /// The first bad record, if one was found, and what is wrong with it.
    pub damage: Option<(Position, String)>,
    /// Where what was set aside is now, below the log's directory.
    pub set_aside: Vec<String>,
    /// Whether the signing key was lost and a new one made.
    pub new_key: bool,
}

impl Repair {
    /// Whether anything had to be done.
    pub const fn changed_anything(&self) -> bool {
        self.new_key || !self.set_aside.is_empty()
    }
}

/// Repairs the log in `dir`. The next opening puts what was done on record.
///
/// # Errors
///
/// [`OpenError::Locked`] while a writer has the log, and whatever keeps files from being moved.
pub fn repair(dir: &Path) -> Result<Repair, OpenError> {
    if !dir.is_dir() {
        return Err(OpenError::Io { what: "find the audit log", source: io::ErrorKind::NotFound.into() });
    }
    let _lock = claim(dir)?;
    let fail = |what| move |source| OpenError::Io { what, source };
    let mut bench = Bench { dir, set_aside: Vec::new() };
    let (segments, notes) = scan::inventory(dir).map_err(fail("list the audit log"))?;
    if segments.is_empty() && notes.is_empty() {
        return Ok(Repair { kept_through: LogSeq(0), damage: None, set_aside: Vec::new(), new_key: false });
    }
    begin_mark(dir).map_err(fail("write down that a repair has begun"))?;
    let (keys, new_key) = bench.keys()?;
    let known = bench.checkpoints(&notes, &keys).map_err(fail("set a checkpoint aside"))?;
    let start = segments.first().and_then(|first| known.start_of(first));
    let found = match start {
        Some(start) => scan::scan(&segments, start, Some(keys.log_id()), &known).map_err(fail("read the audit log"))?,
        None => Scan { tip: Tip::genesis(), segment: None, end: End::Whole },
    };
    let damage = damage_of(&found, &segments);
    if damage.is_some() {
        bench.segments(&segments, &found).map_err(fail("set a damaged segment aside"))?;
    }
    let kept_through = LogSeq(found.tip.frontier.size());
    bench.notes_beyond(&notes, kept_through).map_err(fail("set a checkpoint aside"))?;
    let repair = Repair { kept_through, damage, set_aside: bench.set_aside, new_key };
    settle_mark(dir, &repair).map_err(fail("write down what the repair did"))?;
    Ok(repair)
}

fn damage_of(found: &Scan, segments: &[SegmentFile]) -> Option<(Position, String)> {
    match &found.end {
        End::Bad { at, fault } => Some((at.clone(), fault.to_string())),
        End::Rest { at, only_nul_follows: false, .. } => Some((at.clone(), crate::BadLine::NotWhole.to_string())),
        End::Whole | End::Rest { .. } => {
            let first = segments.first().filter(|_| found.segment.is_none())?;
            let at = Position { seq: first.first, file: first.name(), line: 1, offset: 0 };
            Some((at, scan::Fault::Start(first.first).to_string()))
        }
    }
}

/// Moves things aside and remembers where to.
struct Bench<'a> {
    dir: &'a Path,
    set_aside: Vec<String>,
}

impl Bench<'_> {
    /// The log's keys, or new ones where they are lost; what is left of the old ones is set aside.
    fn keys(&mut self) -> Result<(Keys, bool), OpenError> {
        match Keys::load(self.dir) {
            Ok(Some(keys)) => return Ok((keys, false)),
            Ok(None) | Err(KeyError::Damaged(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let fail = |source| OpenError::Io { what: "set the old keys aside", source };
        if self.dir.join(KEY_DIR).exists() {
            self.move_aside(&self.dir.join(KEY_DIR)).map_err(fail)?;
        }
        let first = records(self.dir, None).find_map(Result::ok).map(|record| record.log_id);
        let plain =
            first.filter(|log_id| crate::checkpoint::log_id_of_origin(&crate::checkpoint::origin(log_id)).is_some());
        let keys = plain.map_or_else(Keys::mint, |log_id| Keys::mint_for(&log_id))?;
        keys.store(self.dir)?;
        Ok((keys, true))
    }

    /// The checkpoints that can be trusted; the others are set aside.
    fn checkpoints(&mut self, notes: &[NoteFile], keys: &Keys) -> io::Result<Checkpoints> {
        let mut known = Checkpoints::default();
        for note in notes {
            match Checkpoints::load(std::slice::from_ref(note), keys.vkey()) {
                Ok(one) => one.0.into_iter().for_each(|checkpoint| known.add(checkpoint)),
                Err(error) => {
                    tracing::warn!(error = with_cause(&error), "a checkpoint is set aside");
                    self.move_aside(&note.path)?;
                }
            }
        }
        Ok(known)
    }

    /// Keeps what is good of the segment in which the damage is, and nothing of those behind it.
    fn segments(&mut self, segments: &[SegmentFile], found: &Scan) -> io::Result<()> {
        let last_good = found.segment.as_ref().map(|(file, _)| file.first);
        if let Some((file, segment)) = &found.segment
            && file.path.metadata()?.len() > segment.durable_bytes
        {
            let copy = layout::copy_aside(self.dir, &file.path, segment.durable_bytes)?;
            copy.iter().for_each(|copy| self.remember(copy));
            let damaged = OpenOptions::new().write(true).open(&file.path)?;
            damaged.set_len(segment.durable_bytes)?;
            damaged.sync_all()?;
        }
        for behind in segments.iter().filter(|segment| last_good.is_none_or(|good| segment.first > good)) {
            self.move_aside(&behind.path)?;
        }
        Ok(())
    }

    fn notes_beyond(&mut self, notes: &[NoteFile], kept_through: LogSeq) -> io::Result<()> {
        for note in notes.iter().filter(|note| note.size > kept_through.0 && note.path.exists()) {
            self.move_aside(&note.path)?;
        }
        layout::sync_dir(&self.dir.join(CHECKPOINT_DIR))
    }

    fn move_aside(&mut self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let target = layout::aside(self.dir, &name)?;
        std::fs::rename(path, &target)?;
        layout::sync_dir(&self.dir.join(layout::ASIDE_DIR))?;
        layout::sync_dir(self.dir)?;
        self.remember(&target);
        Ok(())
    }

    fn remember(&mut self, path: &Path) {
        let below = path.strip_prefix(self.dir).unwrap_or(path);
        self.set_aside.push(below.to_string_lossy().into_owned());
    }
}

/// Says that a repair has begun, and keeps what an earlier one said that no opening has put on record yet.
fn begin_mark(dir: &Path) -> io::Result<()> {
    write_mark(dir, &json!({ "repair": "unfinished", "earlier": read_mark(dir) }))
}

/// Leaves the mark for the next opening, or takes it back when nothing had to be done.
fn settle_mark(dir: &Path, repair: &Repair) -> io::Result<()> {
    let earlier = read_mark(dir).and_then(|mark| mark.get("earlier").filter(|earlier| !earlier.is_null()).cloned());
    match earlier {
        _ if repair.changed_anything() => write_mark(dir, &json!({ "repair": repair, "earlier": earlier })),
        Some(earlier) => write_mark(dir, &earlier),
        None => {
            std::fs::remove_file(dir.join(REPAIR_MARK))?;
            layout::sync_dir(dir)
        }
    }
}

fn read_mark(dir: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(dir.join(REPAIR_MARK)).ok()?).ok()
}

fn write_mark(dir: &Path, mark: &Value) -> io::Result<()> {
    let temporary = dir.join(".repaired.new");
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(crate::escape::to_json(mark).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(REPAIR_MARK))?;
    layout::sync_dir(dir)
}
