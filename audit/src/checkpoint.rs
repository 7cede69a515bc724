//! Checkpoints: signed statements of how long the log is and what it holds, in the C2SP formats `tlog-checkpoint` and
//! `signed-note`, so that other tools can verify them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use codegen_types::LogSeq;
use signed_note::{Note, StandardSigner, StandardVerifier, VerifierList};

use crate::hash::Hash;
use crate::merkle::Frontier;

const ORIGIN: &str = "codegen-mcp/audit/";

/// What a checkpoint says.
///
/// Beside origin, size and root, which every tool for transparency logs reads, it carries as extension lines the hash
/// of the last record and the roots of the tree's full subtrees, with which verification can begin behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub log_id: String,
    /// The hash of the last record covered.
    pub head: Hash,
    /// When it was made.
    pub time: jiff::Timestamp,
    pub(crate) frontier: Frontier,
}

/// Why a file is no checkpoint that can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum BadCheckpoint {
    /// It is no signed note.
    #[error("not a signed note, or the signature is not that of the key")]
    Note(#[from] signed_note::NoteError),
    /// The note says something else than a checkpoint of this program does.
    #[error("the note is no checkpoint of an audit log: {0}")]
    Format(&'static str),
    /// The public key cannot be read.
    #[error("not a verifier key in C2SP form")]
    Key(#[from] signed_note::VerifierError),
}

impl Checkpoint {
    /// The last record covered.
    pub const fn through(&self) -> LogSeq {
        LogSeq(self.frontier.size())
    }

    /// The Merkle root over all records covered.
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    pub(crate) fn sign(&self, signer: &StandardSigner) -> Result<Vec<u8>, BadCheckpoint> {
        let mut note = Note::new(self.text().as_bytes(), &[])?;
        note.add_sigs(&[signer])?;
        Ok(note.to_bytes())
    }

    /// Reads a signed note and checks its signature with a public key in C2SP form.
    ///
    /// # Errors
    ///
    /// [`BadCheckpoint`] when the note, its signature or the key is not as it should be.
    pub fn verify(note: &[u8], vkey: &str) -> Result<Self, BadCheckpoint> {
        let verifier = StandardVerifier::new(vkey.trim())?;
        let note = Note::from_bytes(note)?;
        note.verify(&VerifierList::new(vec![Box::new(verifier)]))?;
        let text = std::str::from_utf8(note.text()).map_err(|_| BadCheckpoint::Format("it is not UTF-8"))?;
        Self::parse(text)
    }

    fn text(&self) -> String {
        let roots: Vec<u8> = self.frontier.roots().iter().flat_map(|root| root.0).collect();
        format!(
            "{}\n{}\n{}\nhead {}\nfrontier {}\ntime {:.6}\n",
            origin(&self.log_id),
            self.frontier.size(),
            BASE64.encode(self.root().0),
            self.head,
            BASE64.encode(roots),
            self.time
        )
    }

    fn parse(text: &str) -> Result<Self, BadCheckpoint> {
        let mut lines = text.lines();
        let mut line = |what| lines.next().ok_or(BadCheckpoint::Format(what));
        let log_id = line("no origin")?.strip_prefix(ORIGIN).ok_or(BadCheckpoint::Format("another origin"))?.to_owned();
        let size: u64 = line("no size")?.parse().map_err(|_| BadCheckpoint::Format("the size is no number"))?;
        let root = BASE64.decode(line("no root")?).map_err(|_| BadCheckpoint::Format("the root is not base64"))?;
        let head = line("no head")?.strip_prefix("head ").and_then(|hash| hash.parse().ok());
        let frontier = line("no frontier")?.strip_prefix("frontier ").and_then(|text| parse_frontier(size, text));
        let time = line("no time")?.strip_prefix("time ").and_then(|time| time.parse().ok());
        let checkpoint = Self {
            log_id,
            head: head.ok_or(BadCheckpoint::Format("the head is no hash"))?,
            time: time.ok_or(BadCheckpoint::Format("the time is no time"))?,
            frontier: frontier.ok_or(BadCheckpoint::Format("the frontier does not fit the size"))?,
        };
        if checkpoint.root().0[..] != root[..] {
            return Err(BadCheckpoint::Format("the frontier does not make the root"));
        }
        Ok(checkpoint)
    }
}

fn parse_frontier(size: u64, text: &str) -> Option<Frontier> {
    let bytes = BASE64.decode(text).ok()?;
    let roots = bytes.chunks(32).map(|root| Some(Hash(root.try_into().ok()?))).collect::<Option<Vec<_>>>()?;
    Frontier::from_parts(size, roots)
}

/// The first line of a log's checkpoints, which is also the name of the key that signs them.
pub(crate) fn origin(log_id: &str) -> String {
    format!("{ORIGIN}{log_id}")
}

/// The log that a key belongs to, by the key's name.
pub(crate) fn log_id_of_origin(name: &str) -> Option<&str> {
    let log_id = name.strip_prefix(ORIGIN)?;
    let plain = log_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (plain && (1..=64).contains(&log_id.len())).then_some(log_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

    fn checkpoint(log_id: &str, records: u8) -> Checkpoint {
        let mut frontier = Frontier::default();
        (0..records).for_each(|n| frontier.push(&[n]));
        Checkpoint { log_id: log_id.to_owned(), head: Hash([9; 32]), time: jiff::Timestamp::UNIX_EPOCH, frontier }
    }

    #[test]
    fn a_checkpoint_reads_back_and_any_changed_byte_is_found() {
        let keys = Keys::mint().unwrap();
        let made = checkpoint(keys.log_id(), 13);
        let note = made.sign(keys.signer()).unwrap();
        assert_eq!(Checkpoint::verify(&note, keys.vkey()).unwrap(), made);
        for place in 0..note.len() {
            let mut changed = note.clone();
            changed[place] ^= 1;
            assert!(Checkpoint::verify(&changed, keys.vkey()).is_err(), "byte {place}");
        }
    }

    #[test]
    fn another_logs_key_does_not_verify_it() {
        let keys = Keys::mint().unwrap();
        let note = checkpoint(keys.log_id(), 3).sign(keys.signer()).unwrap();
        assert!(Checkpoint::verify(&note, Keys::mint().unwrap().vkey()).is_err());
    }
}
