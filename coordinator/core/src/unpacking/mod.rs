//! A tar that a client sends: which files it has, as it comes in, or why it is refused.
//!
//! Only files and directories are taken, below one directory, each once. At most one file is held, and the names.

mod pax;
mod refused;
mod tree;

use std::mem;

use codegen_types::WorkspacePath;
use tar::{EntryType, Header};

pub use refused::{Refused, Why};
use tree::{Kind, Tree};

/// Everything in a tar is a multiple of it, in bytes.
const BLOCK_BYTES: usize = 512;
/// The largest header that goes before an entry, such as a long name, in bytes.
const AHEAD_BYTES_MAX: u64 = 16 << 10;
/// So many of them may go before one entry: a pax header, a long name and a long target.
const AHEAD_MAX: usize = 3;
/// The most zeros after the end, in bytes: programs fill up a record of theirs.
const ZEROS_MAX: usize = 1 << 20;

/// What an archive may have.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Entries of any kind.
    pub entries_max: usize,
    /// All files together, in bytes.
    pub bytes_max: u64,
    /// One file, in bytes.
    pub file_bytes_max: u64,
}

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name in the archive.
    pub name: String,
    /// Where it belongs.
    pub path: WorkspacePath,
    /// The bytes.
    pub contents: Vec<u8>,
}

/// An archive of which a part has come in.
#[derive(Debug)]
pub struct Unpacking {
    below: WorkspacePath,
    bounds: Bounds,
    part: Part,
    /// The name of the next entry, from a header before it.
    name: Option<Vec<u8>>,
    /// Headers before the next entry.
    ahead: usize,
    entries: usize,
    /// What the files hold together, in bytes.
    bytes: u64,
    tree: Tree,
    end: End,
}

/// How much of the end was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    OneBlock,
    /// It is over; so many zeros came after it.
    Over(usize),
}

/// What is being collected.
#[derive(Debug)]
struct Part {
    what: What,
    bytes: Vec<u8>,
    /// Bytes that are still to come.
    left: usize,
    /// Bytes after them that fill up a block.
    padding: usize,
}

#[derive(Debug)]
enum What {
    Header,
    Pax,
    /// A pax header for all that follows.
    Global,
    LongName,
    /// Where a link leads, which is refused once its name is known.
    LongTarget,
    File {
        name: String,
        path: WorkspacePath,
    },
}

impl Unpacking {
    /// An archive whose entries belong below this directory.
    pub fn new(below: WorkspacePath, bounds: Bounds) -> Self {
        let (name, ahead, entries, bytes) = Default::default();
        Self { below, bounds, part: Part::header(), name, ahead, entries, bytes, tree: Tree::default(), end: End::None }
    }

    /// Takes bytes from the front of `input`, up to the end of a file or all of them.
    ///
    /// # Errors
    /// What came is no archive that is taken. Then nothing more is.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<File>, Refused> {
        loop {
            if let End::Over(zeros) = self.end {
                return self.take_zeros(zeros, mem::take(input));
            }
            self.part.fill(input);
            if !self.part.is_whole() {
                return Ok(None);
            }
            let Part { what, bytes, .. } = mem::replace(&mut self.part, Part::header());
            match what {
                What::Header => self.take_header(&bytes)?,
                What::Pax => self.name = pax::name(&bytes).map_err(Refused::from)?.or_else(|| self.name.take()),
                What::Global if pax::name(&bytes).map_err(Refused::from)?.is_none() => {}
                What::Global => return Err(Why::Kind("one name for all entries").into()),
                What::LongName => self.name = Some(bytes.strip_suffix(b"\0").unwrap_or(&bytes).to_owned()),
                What::LongTarget => {}
                What::File { name, path } => return Ok(Some(File { name, path, contents: bytes })),
            }
        }
    }

    /// How many bytes are held of what is not whole yet.
    pub const fn held(&self) -> usize {
        self.part.bytes.len()
    }

    /// All of it came in; directories in which no entry is.
    ///
    /// # Errors
    /// It was cut.
    pub fn end(self) -> Result<Vec<WorkspacePath>, Refused> {
        match (self.end, self.part.what) {
            (End::Over(_), _) => Ok(self.tree.bare()),
            (_, What::File { name, .. }) => Err(Refused::of(&name, Why::Cut)),
            _ => Err(Why::Cut.into()),
        }
    }

    fn take_zeros(&mut self, before: usize, input: &[u8]) -> Result<Option<File>, Refused> {
        let zeros = before.saturating_add(input.len());
        if zeros > ZEROS_MAX || input.iter().any(|byte| *byte != 0) {
            return Err(Why::AfterEnd.into());
        }
        self.end = End::Over(zeros);
        Ok(None)
    }

    fn take_header(&mut self, block: &[u8]) -> Result<(), Refused> {
        if block.iter().all(|byte| *byte == 0) {
            self.end = if self.end == End::None { End::OneBlock } else { End::Over(0) };
            return if self.ahead == 0 { Ok(()) } else { Err(Why::Header.into()) };
        }
        let header = Header::from_byte_slice(block);
        if self.end != End::None || !is_sound(header, block) {
            return Err(Why::Header.into());
        }
        let size = header.entry_size().map_err(|_| Why::Header)?;
        match header.entry_type() {
            EntryType::XHeader => self.expect_ahead(What::Pax, size),
            EntryType::GNULongName => self.expect_ahead(What::LongName, size),
            EntryType::GNULongLink => self.expect_ahead(What::LongTarget, size),
            EntryType::XGlobalHeader => self.count().and_then(|()| self.expect_ahead(What::Global, size)),
            kind => {
                self.ahead = 0;
                let name = self.name.take().unwrap_or_else(|| header.path_bytes().into_owned());
                let shown = String::from_utf8_lossy(&name).into_owned();
                let taken = self.count().and_then(|()| self.take_entry(kind, name, size));
                taken.map_err(|refused| Refused::of(&shown, refused.why))
            }
        }
    }

    fn count(&mut self) -> Result<(), Refused> {
        self.entries += 1;
        let max = self.bounds.entries_max;
        if self.entries > max { Err(Why::TooManyEntries { max }.into()) } else { Ok(()) }
    }

    /// The next is a header that goes before an entry, or before all.
    fn expect_ahead(&mut self, what: What, size: u64) -> Result<(), Refused> {
        self.ahead += usize::from(!matches!(what, What::Global));
        if self.ahead > AHEAD_MAX || size > AHEAD_BYTES_MAX {
            return Err(Why::TooLong.into());
        }
        self.part = Part::of(what, size)?;
        Ok(())
    }

    fn take_entry(&mut self, kind: EntryType, name: Vec<u8>, size: u64) -> Result<(), Refused> {
        let name = String::from_utf8(name).map_err(|_| Why::NotUtf8)?;
        let own = WorkspacePath::parse(&name).map_err(Why::Path)?;
        let path = match self.below.is_root() {
            true => own.clone(),
            false => WorkspacePath::parse(&format!("{}/{own}", self.below)).map_err(Why::Path)?,
        };
        match kind {
            EntryType::Directory if size != 0 => Err(Why::Header.into()),
            // The directory itself, which many programs put first.
            EntryType::Directory if own.is_root() => Ok(()),
            EntryType::Directory => Ok(self.tree.add(&path, Kind::Directory)?),
            EntryType::Regular if own.is_root() || name.ends_with('/') => {
                Err(Why::Kind("a file without a name").into())
            }
            EntryType::Regular => self.expect_file(name, path, size),
            kind => Err(Why::Kind(refused::said(kind)).into()),
        }
    }

    fn expect_file(&mut self, name: String, path: WorkspacePath, size: u64) -> Result<(), Refused> {
        let Bounds { bytes_max, file_bytes_max, .. } = self.bounds;
        if size > file_bytes_max {
            return Err(Why::FileTooLarge { size, max: file_bytes_max }.into());
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > bytes_max {
            return Err(Why::TooManyBytes { max: bytes_max }.into());
        }
        self.tree.add(&path, Kind::File)?;
        self.part = Part::of(What::File { name, path }, size)?;
        Ok(())
    }
}

/// Whether a header's sum is right.
fn is_sound(header: &Header, block: &[u8]) -> bool {
    let field = 148..156;
    let sum = block.iter().enumerate().map(|(at, byte)| if field.contains(&at) { 32 } else { u32::from(*byte) });
    header.cksum().is_ok_and(|said| said == sum.sum::<u32>())
}

impl Part {
    const fn header() -> Self {
        Self { what: What::Header, bytes: Vec::new(), left: BLOCK_BYTES, padding: 0 }
    }

    /// Something of so many bytes. None of them are given room before they come.
    fn of(what: What, size: u64) -> Result<Self, Why> {
        let left = usize::try_from(size).map_err(|_| Why::Header)?;
        Ok(Self { what, bytes: Vec::new(), left, padding: left.wrapping_neg() % BLOCK_BYTES })
    }

    fn fill(&mut self, input: &mut &[u8]) {
        let (taken, rest) = input.split_at(self.left.min(input.len()));
        self.bytes.extend_from_slice(taken);
        self.left -= taken.len();
        let skipped = self.padding.min(rest.len());
        self.padding -= skipped;
        *input = &rest[skipped..];
    }

    const fn is_whole(&self) -> bool {
        self.left == 0 && self.padding == 0
    }
}

#[cfg(test)]
mod tests;
