//! What a model is told about the server when it connects.

use crate::tools::Handles;

/// What is the same over every transport.
macro_rules! instructions {
    ($sessions:literal) => {
        concat!(
            "Run Python, shell commands and other programs, and keep files, in isolated, audited sessions.\n\n",
            $sessions,
            "Idle sessions end their processes and keep their files; \
the next call starts them again.

Files: paths are relative to the workspace (`data/in.csv`, never `/data` or `../x`), which is the programs' current \
directory; only files in it last. fs_edit changes a passage, fs_search finds text. Files are resources, too: \
workspace://SESSION/PATH, which clients can subscribe to. Put what the user wants into artifacts/; artifact_list and \
artifact_get show it.

Running: run_python starts a fresh interpreter, whose variables do not last, unless you name a `kernel`: it keeps variables \
and imports and shows the last value. matplotlib figures and pictures come back as images by themselves. run_shell and \
run_code run commands and other languages. test_run runs Python tests and lint_check checks files: both list what is wrong \
with its place. There is no network inside; pkg_install installs Python packages. Results have exit code, output and changed files. Long output is cut in the middle; the result says where all of it is. Programs end \
after 60 seconds unless timeout_seconds says otherwise.

Long work: a call that runs longer than 45 seconds, or with background true, gives a task_id. Go on with task_wait, read \
output so far with task_logs (cursor, grep), end it with task_cancel.

Errors: a result with isError begins with a code such as PATH_VIOLATION or TASK_TIMEOUT, what happened and what to do \
next; code that fails comes back with its traceback. With idempotency_key a call that you repeat runs at most once."
        )
    };
}

/// How sessions, files and runs work, in under 2 kB, where a connection has a default session.
pub(super) const INSTRUCTIONS: &str = instructions!(
    "Sessions: without session_id, calls use this connection's default session. session_create makes another and returns its \
     session_id, which works again later and from other connections. "
);

/// The same where every call names its session.
pub(super) const INSTRUCTIONS_WITH_HANDLES: &str = instructions!(
    "Sessions: begin with session_create, and pass the session_id that it returns to every call; it works again later and from \
     other connections, and session_list finds it. "
);

/// What a client is told whose calls name their sessions, or need not.
pub(super) const fn instructions(handles: Handles) -> &'static str {
    match handles {
        Handles::Optional => INSTRUCTIONS,
        Handles::Required => INSTRUCTIONS_WITH_HANDLES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_short_and_speak_of_a_default_session_only_where_there_is_one() {
        for handles in [Handles::Optional, Handles::Required] {
            let text = instructions(handles);
            assert!(text.len() < 2_000, "{}", text.len());
            assert_eq!(text.contains("default session"), handles == Handles::Optional);
        }
    }
}
