//! The table of runtimes beside Python and the shell: one row each, and nothing else to write for another one.

/// A kind of interpreter: how it is found, what it needs in a sandbox, and its command lines.
#[derive(Debug)]
pub(crate) struct Row {
    /// The name by which calls choose it.
    pub name: &'static str,
    /// Executables to look for, the best first.
    pub executables: &'static [&'static str],
    /// Arguments with which it prints its version; cheap ones, since every start of a worker asks.
    pub version: &'static [&'static str],
    /// Arguments with which it prints the path of its own executable; asked only of one outside the system's
    /// directories, which may be a version manager's stand-in. Empty: what its path resolves to is taken.
    pub locate: &'static [&'static str],
    /// What of it a sandbox must show.
    pub needs: Needs,
    /// Arguments before source text, which is one argument itself.
    pub code: &'static [&'static str],
    /// Arguments between source text and the caller's own, so that these are never read as options; none where what
    /// stands before the source text ends the options already.
    pub after_code: &'static [&'static str],
    /// Arguments before a file's path.
    pub file: &'static [&'static str],
    /// Its own variables, which a call's win over.
    pub env: &'static [(&'static str, &'static str)],
}

/// What of a runtime a sandbox must show when it is outside the system's directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Its executable alone.
    Executable,
    /// The whole installation: its library lies beside its `bin`.
    Installation,
}

/// Every runtime, in the order in which they are listed.
pub(crate) static ROWS: &[Row] = &[
    Row {
        name: "node",
        executables: &["node", "nodejs"],
        version: &["--version"],
        locate: &["-p", "process.execPath"],
        needs: Needs::Executable,
        code: &["-e"],
        after_code: &["--"],
        file: &[],
        env: &[],
    },
    Row {
        name: "deno",
        executables: &["deno"],
        version: &["--version"],
        locate: &["eval", "console.log(Deno.execPath())"],
        needs: Needs::Executable,
        // The sandbox is what bounds it; questions about permissions would find nobody to answer.
        code: &["eval", "--"],
        after_code: &[],
        file: &["run", "--allow-all"],
        env: &[("DENO_NO_UPDATE_CHECK", "1"), ("NO_COLOR", "1")],
    },
    Row {
        name: "bun",
        executables: &["bun"],
        version: &["--version"],
        locate: &["-e", "console.log(process.execPath)"],
        needs: Needs::Executable,
        code: &["-e"],
        after_code: &[],
        file: &["run"],
        env: &[("DO_NOT_TRACK", "1")],
    },
    Row {
        name: "perl",
        executables: &["perl"],
        version: &["--version"],
        locate: &["-e", "print $^X"],
        needs: Needs::Installation,
        code: &["-e"],
        after_code: &["--"],
        file: &[],
        env: &[],
    },
    Row {
        name: "ruby",
        executables: &["ruby"],
        version: &["--version"],
        locate: &["-rrbconfig", "-e", "print RbConfig.ruby"],
        needs: Needs::Installation,
        code: &["-e"],
        after_code: &["--"],
        file: &[],
        env: &[],
    },
    Row {
        name: "php",
        executables: &["php"],
        version: &["--version"],
        locate: &["-n", "-r", "echo PHP_BINARY;"],
        needs: Needs::Installation,
        code: &["-r"],
        after_code: &["--"],
        file: &[],
        env: &[],
    },
    Row {
        name: "lua",
        executables: &["lua", "lua5.4", "lua5.3", "luajit"],
        version: &["-e", "print(_VERSION)"],
        locate: &[],
        needs: Needs::Executable,
        code: &["-e"],
        // Without a script there are no arguments; this one is empty.
        after_code: &["/dev/null"],
        file: &[],
        env: &[],
    },
    Row {
        name: "r",
        executables: &["Rscript"],
        version: &["--version"],
        locate: &["--vanilla", "-e", "cat(file.path(R.home('bin'), 'Rscript'))"],
        needs: Needs::Installation,
        code: &["--vanilla", "-e"],
        after_code: &["--args"],
        file: &["--vanilla"],
        env: &[],
    },
    Row {
        name: "julia",
        executables: &["julia"],
        version: &["--version"],
        locate: &["--startup-file=no", "-e", "print(joinpath(Sys.BINDIR, \"julia\"))"],
        needs: Needs::Installation,
        code: &["--startup-file=no", "-e"],
        after_code: &["--"],
        file: &["--startup-file=no"],
        env: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_told_from_the_others_and_from_python_and_the_shell() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(!["python", "shell"].contains(&row.name), "{}", row.name);
            assert!(ROWS[..at].iter().all(|other| other.name != row.name), "{} twice", row.name);
            assert!(!row.executables.is_empty() && !row.version.is_empty() && !row.code.is_empty(), "{}", row.name);
        }
    }
}
