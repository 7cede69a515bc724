//! The table of tools: a row each, in the order in which clients see them.

use super::{
    Effect, Tool, artifacts, devtools, echo, files, kernels, packages, run, run_code, schema, session, session_view,
    sharing, tasks,
};

/// Every tool, in the order in which they are listed.
pub static TOOLS: &[Tool] = &[
    Tool {
        name: "echo",
        title: "Echo",
        description: "Gives the message back. Use it to see whether the server answers.",
        effect: Effect::Reads,
        input: schema::of::<echo::EchoInput>,
        output: None,
        run: echo::echo,
    },
    Tool {
        name: "session_create",
        title: "Create a session",
        description: "Makes a session: an isolated workspace with its own Python and shell. Returns its session_id, a \
                      handle to pass to the other tools. The handle goes on working after this connection ends.",
        effect: Effect::Adds,
        input: schema::of::<session::SessionCreateInput>,
        output: Some(schema::of_output::<session_view::SessionView>),
        run: session::create,
    },
    Tool {
        name: "session_info",
        title: "Describe a session",
        description: "Says how a session is: its state, how well it is isolated layer by layer, its limits, the tasks \
                      that run in it, how long its files are kept, and what is left of your own quotas.",
        effect: Effect::Reads,
        input: schema::of::<session::SessionInfoInput>,
        output: Some(schema::of_output::<session::SessionInfoOutput>),
        run: session::info,
    },
    Tool {
        name: "session_list",
        title: "List sessions",
        description: "Lists your sessions, and those that others share with you, with state, name and last use.",
        effect: Effect::Reads,
        input: schema::of::<session::SessionListInput>,
        output: Some(schema::of_output::<session::SessionListOutput>),
        run: session::list,
    },
    Tool {
        name: "session_update",
        title: "Update a session",
        description: "Changes a session's name, its metadata (merged, or replaced with replace_metadata) or its idle time.",
        effect: Effect::Sets,
        input: schema::of::<session::SessionUpdateInput>,
        output: Some(schema::of_output::<session_view::SessionView>),
        run: session::update,
    },
    Tool {
        name: "session_close",
        title: "Close a session",
        description: "Ends a session for good: its processes are killed and its files deleted. The handle cannot be \
                      used again. Idle sessions end by themselves and keep their files, so close only what is done with.",
        effect: Effect::Sets,
        input: schema::of::<session::SessionCloseInput>,
        output: Some(schema::of_output::<session::SessionCloseOutput>),
        run: session::close,
    },
    Tool {
        name: "session_share",
        title: "Share a session",
        description: "Shares a session of yours with another principal: an observer reads and follows it, a writer acts in \
                      it, too, one principal at a time. Sharing again changes the role.",
        effect: Effect::Sets,
        input: schema::of::<sharing::SessionShareInput>,
        output: Some(schema::of_output::<sharing::SharesOutput>),
        run: sharing::share,
    },
    Tool {
        name: "session_unshare",
        title: "Unshare a session",
        description: "Shares a session with a principal no longer, and ends what it runs or follows there.",
        effect: Effect::Sets,
        input: schema::of::<sharing::SessionUnshareInput>,
        output: Some(schema::of_output::<sharing::SharesOutput>),
        run: sharing::unshare,
    },
    Tool {
        name: "fs_read",
        title: "Read a file",
        description: "Reads a file of the workspace, or a part of it given in bytes. The first text block is exactly \
                      what was read; without a limit at most 256 KiB, and the result says where to go on. For bytes \
                      that are no UTF-8 text use encoding base64.",
        effect: Effect::Reads,
        input: schema::of::<files::FsReadInput>,
        output: None,
        run: files::read,
    },
    Tool {
        name: "fs_write",
        title: "Write a file",
        description: "Writes a file of the workspace in one step, making its directories: readers see the old contents \
                      or the new, never a mixture. Give if_match to avoid overwriting a version you have not seen.",
        effect: Effect::Acts,
        input: schema::of::<files::FsWriteInput>,
        output: None,
        run: files::write,
    },
    Tool {
        name: "fs_edit",
        title: "Edit a file",
        description: "Replaces exact text in a file of the workspace in one step, and shows the change. The text must be \
                      there exactly once unless replace_all is true; otherwise nothing changes and the answer says why.",
        effect: Effect::Acts,
        input: schema::of::<files::FsEditInput>,
        output: None,
        run: files::edit,
    },
    Tool {
        name: "fs_list",
        title: "List files",
        description: "Lists a directory of the workspace, sorted by path; recursive lists what is below, pattern picks \
                      by glob. At most 1000 entries.",
        effect: Effect::Reads,
        input: schema::of::<files::FsListInput>,
        output: Some(schema::of_output::<files::FsListOutput>),
        run: files::list,
    },
    Tool {
        name: "fs_search",
        title: "Search files",
        description: "Finds lines in text files of the workspace by regular expression, as path:line:text. Hidden files are \
                      searched, and .gitignore is not heeded; links and .codegen/ are passed by.",
        effect: Effect::Reads,
        input: schema::of::<files::FsSearchInput>,
        output: Some(schema::of_output::<files::FsSearchOutput>),
        run: files::search,
    },
    Tool {
        name: "fs_stat",
        title: "Describe a file",
        description: "Describes a file or directory: kind, size, time of change, and for files the etag that if_match \
                      takes. A symbolic link is described itself.",
        effect: Effect::Reads,
        input: schema::of::<files::FsStatInput>,
        output: Some(schema::of_output::<files::FileView>),
        run: files::stat,
    },
    Tool {
        name: "fs_move",
        title: "Move a file",
        description: "Renames a file or directory inside the workspace, making the directories of its new path.",
        effect: Effect::Acts,
        input: schema::of::<files::FsMoveInput>,
        output: None,
        run: files::mv,
    },
    Tool {
        name: "fs_delete",
        title: "Delete a file",
        description: "Deletes a file, or a directory: with all that is in it when recursive is true. A symbolic link is \
                      deleted itself, never what it points to.",
        effect: Effect::Sets,
        input: schema::of::<files::FsDeleteInput>,
        output: None,
        run: files::delete,
    },
    Tool {
        name: "artifact_list",
        title: "List artifacts",
        description: "Lists the files below artifacts/ in the workspace, where plots are saved and where what is worth \
                      keeping belongs, with type, size and resource address.",
        effect: Effect::Reads,
        input: schema::of::<artifacts::ArtifactListInput>,
        output: Some(schema::of_output::<artifacts::ArtifactListOutput>),
        run: artifacts::list,
    },
    Tool {
        name: "artifact_get",
        title: "Get an artifact",
        description: "Gives an artifact: a picture of at most 1 MiB as an image, text as text, anything else as the address \
                      of a resource.",
        effect: Effect::Reads,
        input: schema::of::<artifacts::ArtifactGetInput>,
        output: None,
        run: artifacts::get,
    },
    Tool {
        name: "run_python",
        title: "Run Python",
        description: "Runs Python code, or a Python file of the workspace, inside the session's sandbox, with the \
                      workspace as current directory: in a fresh interpreter, or with kernel in one that keeps variables \
                      and imports. Returns exit code, stdout, stderr, the last expression's value, figures and pictures, \
                      and the files that changed. There is no network; pkg_install installs packages.",
        effect: Effect::Acts,
        input: schema::of::<run::RunPythonInput>,
        output: None,
        run: run::run_python,
    },
    Tool {
        name: "kernel_list",
        title: "List kernels",
        description: "Lists the session's kernels: interpreters that keep variables between run_python calls.",
        effect: Effect::Reads,
        input: schema::of::<kernels::KernelListInput>,
        output: Some(schema::of_output::<kernels::KernelListOutput>),
        run: kernels::list,
    },
    Tool {
        name: "kernel_restart",
        title: "Restart a kernel",
        description: "Ends a kernel with what it runs; its variables are lost. The next call on it starts it anew.",
        effect: Effect::Sets,
        input: schema::of::<kernels::KernelRestartInput>,
        output: Some(schema::of_output::<kernels::KernelListOutput>),
        run: kernels::restart,
    },
    Tool {
        name: "run_shell",
        title: "Run a shell command",
        description: "Runs a shell command line inside the session's sandbox, with the workspace as current directory. \
                      Returns exit code, stdout, stderr and the files that changed. Processes left in the background \
                      are ended with the command. There is no network.",
        effect: Effect::Acts,
        input: schema::of::<run::RunShellInput>,
        output: None,
        run: run::run_shell,
    },
    Tool {
        name: "run_code",
        title: "Run code in another language",
        description: "Runs source text, or a file of the workspace, with another interpreter of the host, such as Node, \
                      in the session's sandbox; session_info lists those there are. Answers as run_shell does.",
        effect: Effect::Acts,
        input: schema::of::<run_code::RunCodeInput>,
        output: None,
        run: run_code::run_code,
    },
    Tool {
        name: "test_run",
        title: "Run tests",
        description: "Runs the session's Python tests: with pytest when it is installed, else those of unittest. Returns \
                      counts, and of each failure name, place and message.",
        effect: Effect::Acts,
        input: schema::of::<devtools::TestRunInput>,
        output: None,
        run: devtools::test_run,
    },
    Tool {
        name: "lint_check",
        title: "Check Python files",
        description: "Checks Python files of the workspace with ruff when it is installed, else for broken syntax. \
                      Returns each finding with file, line and message.",
        effect: Effect::Acts,
        input: schema::of::<devtools::LintCheckInput>,
        output: None,
        run: devtools::lint_check,
    },
    Tool {
        name: "pkg_install",
        title: "Install packages",
        description: "Installs Python packages into the session, where they stay: by requirement (name and versions, \
                      from the operator's package index) or from wheels of the workspace (without any network). Only \
                      wheels are installed, nothing is built. Returns what was installed and which hosts were reached.",
        effect: Effect::Acts,
        input: schema::of::<packages::PkgInstallInput>,
        output: None,
        run: packages::install,
    },
    Tool {
        name: "pkg_list",
        title: "List packages",
        description: "Lists the packages that were installed in a session, with their versions.",
        effect: Effect::Reads,
        input: schema::of::<packages::PkgListInput>,
        output: Some(schema::of_output::<packages::PkgListOutput>),
        run: packages::list,
    },
    Tool {
        name: "task_wait",
        title: "Wait for a task",
        description: "Waits for a task that was answered with its id, and gives what its own call would have given; if \
                      it still runs then, its output so far. Results are kept for a day.",
        effect: Effect::Reads,
        input: schema::of::<tasks::TaskWaitInput>,
        output: None,
        run: tasks::wait,
    },
    Tool {
        name: "task_logs",
        title: "Read a task's output",
        description: "Shows what a task wrote, both streams in the order of arrival, while it runs and afterwards; grep \
                      picks lines. next_cursor of the answer goes on where it ended.",
        effect: Effect::Reads,
        input: schema::of::<tasks::TaskLogsInput>,
        output: None,
        run: tasks::logs,
    },
    Tool {
        name: "task_status",
        title: "Describe a task",
        description: "Says how a task is, without waiting and without its output.",
        effect: Effect::Reads,
        input: schema::of::<tasks::TaskStatusInput>,
        output: Some(schema::of_output::<tasks::TaskView>),
        run: tasks::status,
    },
    Tool {
        name: "task_cancel",
        title: "Cancel a task",
        description: "Ends a running task with all its processes. What it wrote and changed stays.",
        effect: Effect::Sets,
        input: schema::of::<tasks::TaskCancelInput>,
        output: Some(schema::of_output::<tasks::TaskView>),
        run: tasks::cancel,
    },
    Tool {
        name: "task_list",
        title: "List tasks",
        description: "Lists your running and recent tasks, the newest first.",
        effect: Effect::Reads,
        input: schema::of::<tasks::TaskListInput>,
        output: Some(schema::of_output::<tasks::TaskListOutput>),
        run: tasks::list,
    },
];
