//! How large each part of a message may be. Ceilings of the wire; the limits of a session are lower.

/// A text for people: a failure's message, a progress note, a reason. Bytes.
pub const MESSAGE_BYTES_MAX: usize = 4_096;
/// A token, ticket or etag. Bytes.
pub const TOKEN_BYTES_MAX: usize = 512;
/// A name: a version, a label, a media type. Bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// A path as a listing shows it. Bytes; three times the longest path, since a byte that is not UTF-8 becomes U+FFFD.
pub const SHOWN_PATH_BYTES_MAX: usize = 3 * codegen_types::path::PATH_BYTES_MAX;
/// Source text or a command line. Bytes.
pub const SOURCE_BYTES_MAX: usize = 16 << 20;
/// The contents of a file, standard input, one piece of output or a display. Bytes.
pub const CONTENTS_BYTES_MAX: usize = 64 << 20;
/// Arguments of a program.
pub const ARGS_MAX: usize = 4_096;
/// Arguments of a program together. Bytes.
pub const ARGS_BYTES_MAX: usize = 1 << 20;
/// Variables given to a program.
pub const ENV_MAX: usize = 1_024;
/// Variables given to a program, names and values together. Bytes.
pub const ENV_BYTES_MAX: usize = 1 << 20;
/// Entries of one listing.
pub const ENTRIES_MAX: usize = 20_000;
/// Changed files named by one task.
pub const FILE_CHANGES_MAX: usize = 1_000;
/// Matches of one search.
pub const MATCHES_MAX: usize = 10_000;
/// Lines that one search shows, context included.
pub const FOUND_LINES_MAX: usize = 200_000;
/// One line that a search shows. Bytes.
pub const FOUND_LINE_BYTES_MAX: usize = 8 << 10;
/// All lines that one search shows. Bytes.
pub const FOUND_BYTES_MAX: usize = 16 << 20;
/// Lines of context on each side of a match.
pub const CONTEXT_MAX: usize = 50;
/// A pattern to search for. Bytes.
pub const PATTERN_BYTES_MAX: usize = 4_096;
/// The diff that an edit gives. Bytes.
pub const DIFF_BYTES_MAX: usize = 64 << 10;
/// Kernels of one session.
pub const KERNELS_MAX: usize = 64;
/// Sentences beside an outcome.
pub const NOTES_MAX: usize = 32;
/// Hosts that one task reached.
pub const HOSTS_MAX: usize = 256;
/// Packages installed by one task, or requirements of one.
pub const PACKAGES_MAX: usize = 1_000;
/// The value of a secret that a worker puts into requests. Bytes.
pub const SECRET_BYTES_MAX: usize = 8 << 10;
/// Sessions that one worker holds.
pub const HELD_SESSIONS_MAX: usize = 16_384;
/// Tasks of one held session.
pub const HELD_TASKS_MAX: usize = 1_024;
/// Runtimes of one worker.
pub const RUNTIMES_MAX: usize = 32;
/// Labels of one worker.
pub const LABELS_MAX: usize = 64;
/// The longest duration, in milliseconds: thirty days.
pub const DURATION_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
