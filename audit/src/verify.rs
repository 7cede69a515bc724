//! Verifies a stored log: every record, every link, every checkpoint. Needs the directory and the public key only.

use std::io;
use std::path::{Path, PathBuf};

use codegen_types::LogSeq;
use serde::Serialize;

use crate::keys::{KEY_DIR, PUBLIC_FILE};
use crate::layout::{self, CHECKPOINT_DIR, NoteFile};
use crate::log::Tip;
use crate::open::with_cause;
use crate::scan::{self, Checkpoints, End, Fault, Position, Scan};

/// What can be said about a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Every record is what was written, up to the end.
    Whole,
    /// A record, or a stored checkpoint, is not what was written.
    Tampered {
        /// The first bad one.
        at: Position,
        /// What is wrong with it.
        fault: String,
    },
    /// Records that a signed checkpoint covers are missing from the end.
    CutAfterCheckpoint {
        /// The last record that is there.
        last: LogSeq,
        /// The last record that the checkpoint covers.
        covered: LogSeq,
    },
    /// Whole, but for an unfinished record or padding at the end, as a crash leaves it; the next start cuts it.
    TornTail {
        /// Where it begins.
        at: Position,
        /// Bytes of an unfinished record.
        torn_bytes: u64,
    },
    /// Nothing can be said, because something cannot be read.
    Unreadable {
        /// What.
        why: String,
    },
}

/// What was verified, and the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Which log.
    pub log_id: Option<String>,
    /// The first record that is here; those before it are archived elsewhere, and a signed checkpoint covers them.
    pub first: LogSeq,
    /// The last good record; zero when there is none.
    pub last: LogSeq,
    /// How many checkpoints were verified.
    pub checkpoints: usize,
    /// The last record that one of them covers. What comes later can be cut off unseen.
    pub covered: LogSeq,
    /// Whether a writer has the log, so that an unfinished last line is only being written.
    pub live: bool,
}

/// What to verify a log with.
#[derive(Debug, Default, Clone)]
pub struct VerifyOptions {
    /// A checkpoint that was stored elsewhere.
    pub checkpoint: Option<PathBuf>,
    /// The public key in C2SP form; by default the one beside the log.
    pub key: Option<PathBuf>,
}

/// Verifies the log in `dir`, also against a checkpoint stored elsewhere. See [`verify_with`].
pub fn verify(dir: &Path, checkpoint: Option<&Path>) -> Verification {
    verify_with(dir, &VerifyOptions { checkpoint: checkpoint.map(Path::to_owned), key: None })
}

/// Verifies the log in `dir`: streams over all of it, in bounded memory, changing nothing.
pub fn verify_with(dir: &Path, options: &VerifyOptions) -> Verification {
    let live = layout::is_live(dir);
    let mut verification = Verification {
        verdict: Verdict::Whole,
        log_id: None,
        first: LogSeq(0),
        last: LogSeq(0),
        checkpoints: 0,
        covered: LogSeq(0),
        live,
    };
    match examine(dir, options, &mut verification) {
        Ok(verdict) => verification.verdict = verdict,
        Err(why) => verification.verdict = Verdict::Unreadable { why },
    }
    verification
}

fn examine(dir: &Path, options: &VerifyOptions, said: &mut Verification) -> Result<Verdict, String> {
    let key_path = options.key.clone().unwrap_or_else(|| dir.join(KEY_DIR).join(PUBLIC_FILE));
    let vkey = std::fs::read_to_string(&key_path)
        .map_err(|error| format!("the public key `{}` cannot be read: {error}", key_path.display()))?;
    let (segments, notes) =
        scan::inventory(dir).map_err(|error| format!("the directory `{}` cannot be read: {error}", dir.display()))?;
    let (mut known, bad_note) = load_notes(&notes, &vkey, said.live)?;
    if let Some(path) = &options.checkpoint {
        known.add(scan::read_note(path, &vkey).map_err(|error| with_cause(&error))?);
    }
    if segments.is_empty() && known.last().is_none() {
        return Err(format!("there is no audit log in `{}`", dir.display()));
    }
    said.log_id = log_id_of(&vkey);
    said.checkpoints = known.0.len();
    said.first = segments.first().map_or(LogSeq(0), |segment| segment.first);
    let start = match segments.first() {
        None => Tip::genesis(),
        Some(first) => match known.start_of(first) {
            Some(start) => start,
            None => {
                let at = Position { seq: first.first, file: first.name(), line: 1, offset: 0 };
                return Ok(Verdict::Tampered { at, fault: Fault::Start(first.first).to_string() });
            }
        },
    };
    let found = scan::scan(&segments, start, said.log_id.as_deref(), &known)
        .map_err(|error| format!("a segment cannot be read: {error}"))?;
    said.last = LogSeq(found.tip.frontier.size());
    said.covered =
        known.0.iter().map(crate::Checkpoint::through).filter(|size| *size <= said.last).max().unwrap_or_default();
    let live = said.live || layout::is_live(dir);
    Ok(judge(found, &known, bad_note, live))
}

fn judge(found: Scan, known: &Checkpoints, bad_note: Option<(Position, String)>, live: bool) -> Verdict {
    let last = LogSeq(found.tip.frontier.size());
    if let End::Bad { at, fault } = found.end {
        return Verdict::Tampered { at, fault: fault.to_string() };
    }
    if let End::Rest { at, only_nul_follows: false, .. } = &found.end
        && !live
    {
        return Verdict::Tampered { at: at.clone(), fault: crate::BadLine::NotWhole.to_string() };
    }
    if let Some((at, fault)) = bad_note {
        return Verdict::Tampered { at, fault };
    }
    if let Some(checkpoint) = known.last().filter(|checkpoint| checkpoint.through() > last) {
        return Verdict::CutAfterCheckpoint { last, covered: checkpoint.through() };
    }
    match found.end {
        End::Rest { at, torn_bytes, .. } if !live => Verdict::TornTail { at, torn_bytes },
        _ => Verdict::Whole,
    }
}

type LoadedNotes = (Checkpoints, Option<(Position, String)>);

/// Loads the stored checkpoints that can be trusted, and says which is the first that cannot.
fn load_notes(notes: &[NoteFile], vkey: &str, live: bool) -> Result<LoadedNotes, String> {
    let (mut known, mut bad) = (Checkpoints::default(), None);
    for note in notes {
        match Checkpoints::load(std::slice::from_ref(note), vkey) {
            Ok(one) => one.0.into_iter().for_each(|checkpoint| known.add(checkpoint)),
            // A live writer takes old notes away.
            Err(scan::NoteError::Io(_, error)) if live && error.kind() == io::ErrorKind::NotFound => {}
            Err(error @ scan::NoteError::Io(..)) => return Err(with_cause(&error)),
            Err(error @ scan::NoteError::Bad(..)) => {
                let name = note.path.file_name().unwrap_or_default().to_string_lossy();
                let at =
                    Position { seq: LogSeq(note.size), file: format!("{CHECKPOINT_DIR}/{name}"), line: 1, offset: 0 };
                bad.get_or_insert((at, with_cause(&error)));
            }
        }
    }
    Ok((known, bad))
}

fn log_id_of(vkey: &str) -> Option<String> {
    let (name, _) = vkey.split_once('+')?;
    crate::checkpoint::log_id_of_origin(name).map(str::to_owned)
}

/// The newest stored checkpoint of the log in `dir`, as a signed note, to be kept elsewhere; `None` when there is none.
///
/// # Errors
///
/// What the operating system says when it cannot be read.
pub fn latest_note(dir: &Path) -> io::Result<Option<String>> {
    let notes = layout::notes(dir)?;
    notes.last().map(|note| std::fs::read_to_string(&note.path)).transpose()
}
