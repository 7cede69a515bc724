//! A client's file: read whole, changed whole, with a copy of what it was.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// The largest file that is changed, in bytes.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// New files hold settings, and in some clients secrets: they are their owner's alone.
const MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// Copies made within one second.
const BACKUPS_MAX: u32 = 100;

/// A client's file as it was when it was read.
#[derive(Debug)]
pub(super) struct ClientFile {
    /// Where the bytes are: where a link leads to.
    place: PathBuf,
    was: Option<Was>,
}

#[derive(Debug)]
struct Was {
    text: String,
    stamp: Stamp,
    mode: u32,
}

/// What changes when somebody else writes the file.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(u64, u64, u64, i64, i64);

/// Why a client's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It is there but cannot be read.
    #[error("{0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// It is not a file.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// It is a link to nothing.
    #[error("{0} is a link to something that is not there")]
    Dangling(PathBuf),
    /// It is too large.
    #[error("{0} is larger than {max} MiB", max = FILE_BYTES_MAX >> 20)]
    TooLarge(PathBuf),
    /// It is not text.
    #[error("{0} is not UTF-8")]
    NotText(PathBuf),
    /// Somebody else wrote it in the meantime.
    #[error("{0} was changed by somebody else just now; nothing was written; run this again")]
    Changed(PathBuf),
    /// Written by this user, its owner could no longer use it.
    #[error("{0} belongs to another user; run this as that user")]
    Foreign(PathBuf),
    /// It, its directory or its copy cannot be written.
    #[error("{0} cannot be written")]
    Write(PathBuf, #[source] io::Error),
}

impl ClientFile {
    /// Reads the file, if there is one.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let unreadable = |error| FileError::Read(path.to_owned(), error);
        let place = match fs::canonicalize(path) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if fs::symlink_metadata(path).is_ok() {
                    return Err(FileError::Dangling(path.to_owned()));
                }
                return Ok(Self { place: path.to_owned(), was: None });
            }
            Err(error) => return Err(unreadable(error)),
        };
        // A pipe would wait for somebody to open its other end.
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&place).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(FileError::NotAFile(place));
        }
        let text = match read(&mut file) {
            Ok(Some(bytes)) => String::from_utf8(bytes).map_err(|_| FileError::NotText(place.clone()))?,
            Ok(None) => return Err(FileError::TooLarge(place)),
            Err(error) => return Err(unreadable(error)),
        };
        let was = Was { text, stamp: Stamp::of(&metadata), mode: metadata.mode() & 0o777 };
        Ok(Self { place, was: Some(was) })
    }

    /// What it says; nothing when there is no file. Some editors put a byte order mark first, which stays.
    pub(super) fn text(&self) -> &str {
        let text = self.was.as_ref().map_or("", |was| was.text.as_str());
        text.strip_prefix(MARK).unwrap_or(text)
    }

    /// Puts the text in its place in one step, and gives the copy of what was there.
    pub(super) fn replace(self, text: &str) -> Result<Option<PathBuf>, FileError> {
        let dir = self.place.parent().unwrap_or(Path::new("/")).to_owned();
        self.must_be_ours(&dir)?;
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(&dir)
            .map_err(|error| FileError::Write(dir.clone(), error))?;
        let mode = self.was.as_ref().map_or(MODE, |was| was.mode);
        let mark = if self.was.as_ref().is_some_and(|was| was.text.starts_with(MARK)) { MARK } else { "" };
        let unwritable = |error| FileError::Write(self.place.clone(), error);
        let new = write_beside(&dir, &[mark, text], mode).map_err(unwritable)?;
        let backup = self.back_up()?;
        if Stamp::at(&self.place).map_err(unwritable)?.as_ref() != self.was.as_ref().map(|was| &was.stamp) {
            return Err(FileError::Changed(self.place));
        }
        let put = if self.was.is_some() { new.persist(&self.place) } else { new.persist_noclobber(&self.place) };
        put.map_err(|error| unwritable(error.error))?;
        sync(&dir).map_err(unwritable)?;
        Ok(backup)
    }

    /// A file put in place belongs to whoever does it.
    fn must_be_ours(&self, dir: &Path) -> Result<(), FileError> {
        let existing = [self.place.as_path()].into_iter().chain(dir.ancestors()).find(|path| path.exists());
        let Some(existing) = existing else { return Ok(()) };
        let owner = fs::metadata(existing).map_err(|error| FileError::Read(existing.to_owned(), error))?.uid();
        let me = rustix::process::geteuid();
        // Whoever is not root and may write in a directory of another's was meant to.
        if me.is_root() && owner != me.as_raw() { Err(FileError::Foreign(existing.to_owned())) } else { Ok(()) }
    }

    fn back_up(&self) -> Result<Option<PathBuf>, FileError> {
        let Some(was) = &self.was else { return Ok(None) };
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut path = PathBuf::new();
        for count in 0..BACKUPS_MAX {
            let more = if count == 0 { String::new() } else { format!("-{count}") };
            let mut name = self.place.clone().into_os_string();
            name.push(format!(".bak-{stamp}{more}"));
            path = PathBuf::from(name);
            match create(&path, was.mode).and_then(|mut file| write(&mut file, &[&was.text])) {
                Ok(()) => return Ok(Some(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(FileError::Write(path, error)),
            }
        }
        Err(FileError::Write(path, io::ErrorKind::AlreadyExists.into()))
    }
}

const MARK: &str = "\u{feff}";

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
    }

    /// That of the file at `path`, if there is one.
    fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// All bytes, unless there are too many.
fn read(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= FILE_BYTES_MAX).then_some(bytes))
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

fn write(file: &mut File, parts: &[&str]) -> io::Result<()> {
    for part in parts {
        file.write_all(part.as_bytes())?;
    }
    file.sync_all()
}

/// A new file in the same directory, which goes away when it is not put in place.
fn write_beside(dir: &Path, parts: &[&str], mode: u32) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(".codegen-install-").tempfile_in(dir)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    write(file.as_file_mut(), parts)?;
    Ok(file)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
