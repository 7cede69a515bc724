//! Whether what a client would start is this program, in this version.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use super::entry::{Entry, Found};

/// How long a program may take to say its version.
const ANSWER: Duration = Duration::from_secs(10);
/// The most that it may say, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 10;

/// What is wrong with the entry, for people; nothing when it is right. `asked` is whether somebody said which arguments
/// it should have; otherwise any with which a client is served will do.
pub(super) fn differences(found: &Found, entry: &Entry, asked: bool) -> Vec<String> {
    let mut differences = Vec::new();
    if let Err(why) = found.must_be_ours(&entry.name) {
        return vec![why.to_string()];
    }
    let command = found.command.as_deref().unwrap_or_default();
    if let Err(why) = program(Path::new(command), Path::new(&entry.command)) {
        differences.push(why);
    }
    match &found.args {
        None => differences.push("its arguments are not a list of texts".to_owned()),
        Some(args) if asked && *args != entry.args => {
            differences.push(format!("its arguments are {args:?} and not {:?}", entry.args));
        }
        Some(args) if !asked && !super::super::serves_a_client(args) => {
            differences.push(format!("with the arguments {args:?} it does not serve a client"));
        }
        Some(_) => {}
    }
    differences
}

/// Whether a client that starts `command` gets the program that is at `this` or another of the same version.
fn program(command: &Path, this: &Path) -> Result<(), String> {
    let shown = command.display();
    if !command.is_absolute() {
        return Err(format!("the command {shown} is not an absolute path: clients start programs from anywhere"));
    }
    let metadata = fs::metadata(command).map_err(|error| format!("the command {shown} cannot be used: {error}"))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("the command {shown} is not an executable file"));
    }
    if fs::metadata(this).is_ok_and(|this| (this.dev(), this.ino()) == (metadata.dev(), metadata.ino())) {
        return Ok(());
    }
    let expected = format!("coordinator {}", env!("CARGO_PKG_VERSION"));
    match version(command) {
        Ok(said) if said.trim() == expected => Ok(()),
        Ok(said) => Err(format!("the command {shown} is {:?} and not {expected:?}", said.trim())),
        Err(error) => Err(format!("the command {shown} does not say its version: {error}")),
    }
}

fn version(command: &Path) -> io::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut child = tokio::process::Command::new(command)
            .arg("--version")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut said = Vec::new();
        let stdout = child.stdout.take().expect("a pipe was asked for");
        let asked = async {
            stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut said).await?;
            child.wait().await
        };
        tokio::time::timeout(ANSWER, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(String::from_utf8_lossy(&said).into_owned())
    })
}
