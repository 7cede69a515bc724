//! The engine that the tests use, through its command line, as people do.

use std::env;
use std::process::{Command, Output};

/// The image of the coordinator that `tests/with-engine` makes.
pub const COORDINATOR: &str = "codegen-mcp/coordinator:test";
/// The image of a worker that `tests/with-engine` makes.
pub const WORKER: &str = "codegen-mcp/worker:test";

/// A Docker engine that has this product's images.
#[derive(Debug, Clone)]
pub struct Engine {
    host: String,
}

impl Engine {
    /// The engine, or nothing once it is said that the test is skipped.
    ///
    /// # Panics
    /// When there is none where `CI=true`.
    pub fn at_hand() -> Option<Self> {
        if let Ok(host) = env::var("CODEGEN_TEST_ENGINE") {
            return Some(Self { host });
        }
        let why = env::var("CODEGEN_TEST_NO_ENGINE").unwrap_or_else(|_| "run by `tests/with-engine`".to_owned());
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        assert!(env::var("CI").as_deref() != Ok("true"), "{test} needs a Docker engine: {why}");
        eprintln!("SKIPPED {test}: it needs a Docker engine: {why}");
        None
    }

    /// A command of the engine's client.
    pub fn docker<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("docker");
        command.envs(self.environment()).args(arguments);
        command
    }

    /// What tells other clients of this engine.
    pub fn environment(&self) -> [(&'static str, &str); 1] {
        [("DOCKER_HOST", &self.host)]
    }

    /// Runs a command to its end.
    pub fn output<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        self.docker(arguments).output().expect("the engine's client runs")
    }

    /// What a command that succeeds prints, without the space around it.
    ///
    /// # Panics
    /// When it fails.
    pub fn said<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts a container in the background; it is removed when the value is dropped.
    pub fn start(&self, arguments: &[&str]) -> Container {
        let id = self.said(["run", "--detach"].into_iter().chain(arguments.iter().copied()));
        Container { engine: self.clone(), id }
    }
}

/// A container, with its volumes.
#[derive(Debug)]
pub struct Container {
    engine: Engine,
    id: String,
}

impl Container {
    /// What the engine knows about it, by a template of `docker inspect`.
    pub fn inspect(&self, template: &str) -> String {
        self.engine.said(["inspect", "--format", template, &self.id])
    }

    /// What a command in it prints that succeeds, without the space around it.
    pub fn said(&self, command: &[&str]) -> String {
        self.engine.said(["exec", &self.id].into_iter().chain(command.iter().copied()))
    }

    /// Whether a command in it succeeds.
    pub fn succeeds(&self, command: &[&str]) -> bool {
        self.engine.output(["exec", &self.id].into_iter().chain(command.iter().copied())).status.success()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Nothing is left to do for a container that cannot be removed; the engine's end takes it along.
        drop(self.engine.output(["rm", "--force", "--volumes", &self.id]));
    }
}

/// A file of this repository's `docker` directory.
pub fn docker_file(name: &str) -> String {
    format!("{}/../docker/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// How a container is run so that its sessions are isolated at level *full*.
pub fn full() -> Vec<String> {
    vec![
        "--security-opt".to_owned(),
        format!("seccomp={}", docker_file("seccomp-worker.json")),
        "--security-opt".to_owned(),
        "systempaths=unconfined".to_owned(),
    ]
}

/// How a container is run that can do nothing beyond what it needs: no capability, no new privileges, a read-only root.
pub const CONFINED: [&str; 7] =
    ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp:mode=1777,size=64m"];
