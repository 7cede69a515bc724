//! What a model is told about the server when it connects.

/// How sessions, files and runs work, in under 2 kB.
pub(super) const INSTRUCTIONS: &str = "\
Run Python and shell commands and keep files in an isolated, audited session.

Sessions: without session_id, calls use this connection's default session, made when first needed. To keep work beyond \
this connection, or to separate tasks, call session_create and pass the session_id it returns; it works again later, from \
other connections, too. Idle sessions end their processes and keep their files; the next call starts them again.

Files: paths are relative to the workspace (`data/in.csv`, never `/data` or `../x`). Inside programs the workspace is the \
current directory, /workspace. Only files in it last; /tmp does not.

Running: run_python starts a fresh interpreter for every call, so variables do not last; write files instead, and print \
what you want to see. run_shell runs a command line. Both return exit code, stdout, stderr and the files that changed. \
There is no network inside. Long output is cut in the middle: write it to a file and read the part you need with fs_read. \
Programs are ended after 60 seconds unless timeout_seconds says otherwise.

Errors: a result with isError begins with a code such as PATH_VIOLATION or TASK_TIMEOUT, what happened, and what to do \
next; code that fails comes back with its traceback. Pass idempotency_key to an acting tool if you may have to repeat the \
call: it then runs at most once.";

#[cfg(test)]
mod tests {
    use super::INSTRUCTIONS;

    #[test]
    fn they_are_short() {
        assert!(INSTRUCTIONS.len() < 2_000, "{}", INSTRUCTIONS.len());
    }
}
