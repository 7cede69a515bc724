//! A wall clock that a test sets, of a server and its worker.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use e2e::{Installation, descendants};

use super::disk::Server;

pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 24 * HOUR;
pub const YEAR: i64 = 365 * DAY;

/// By how many seconds the clock of whoever goes by it differs from the machine's.
pub struct Clock {
    library: PathBuf,
    path: PathBuf,
    shift: File,
}

impl Clock {
    /// One that is right, for processes of this installation.
    ///
    /// # Panics
    /// When the C compiler is missing.
    pub fn of(installation: &Installation) -> Self {
        let (library, path) = (installation.outside().join("clock.so"), installation.outside().join("clock"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/lifecycle/clock.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        assert!(compiler.status().expect("a C compiler is needed").success(), "it compiles");
        let shift = File::options().write(true).create_new(true).open(&path).expect("a file");
        let clock = Self { library, path, shift };
        clock.set(0);
        clock
    }

    /// A server that goes by it, with settings in its environment.
    pub fn server(&self, installation: &Installation, settings: &[(&str, &str)]) -> Server {
        let mut command = Server::command(installation);
        command.env("LD_PRELOAD", &self.library).env("CLOCK_SHIFT", &self.path).envs(settings.iter().copied());
        let server = Server::launch(command);
        server.until_ready(true);
        self.assert_held_to(server.child.id());
        server
    }

    /// Sets it to so many seconds beside the machine's, for all who go by it, at once.
    pub fn set(&self, seconds: i64) {
        self.shift.write_all_at(&seconds.to_ne_bytes(), 0).expect("a number");
    }

    fn assert_held_to(&self, server: u32) {
        let library = self.library.display().to_string();
        let wears =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains(&library));
        assert!(wears(&server) && descendants(server).iter().any(wears), "server and worker go by the clock");
    }
}
