//! The commands of docker/README.md, by the level of isolation that they give, as the tests run them.

use std::fs;
use std::process::Command;

use e2e::Client;

use crate::engine::{COORDINATOR, Engine, docker_file};

/// The image that the page names.
const IMAGE: &str = "codegen-mcp/coordinator";
/// What a container of it runs where the command says nothing else.
const SERVER: &str = "--standalone";

/// One of the page's commands.
#[derive(Debug)]
pub struct Documented {
    /// What `docker run` is given.
    options: Vec<String>,
    /// What the coordinator is given.
    server: Vec<String>,
}

impl Documented {
    /// The command for a level.
    ///
    /// # Panics
    /// When there is not exactly one.
    pub fn of(level: &str) -> Self {
        let mark = match level {
            "full" => "seccomp=docker/seccomp-worker.json".to_owned(),
            below => format!("ISOLATION_MINIMUM={below}"),
        };
        let mut of_level = commands().into_iter().filter(|command| command.contains(&mark));
        let (command, none) = (of_level.next(), of_level.next());
        let (Some(command), None) = (command, none) else { panic!("docker/README.md has not one command with {mark}") };
        let image = command.iter().position(|word| word == IMAGE).expect("the image");
        let [options, server] = [&command[..image], &command[image + 1..]];
        let server = if server.is_empty() { vec![SERVER.to_owned()] } else { server.to_vec() };
        Self { options: options.iter().map(|option| here(option)).collect(), server }
    }

    /// The same with further options of `docker run`.
    pub fn with<S: AsRef<str>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// A client of the server that the command runs, with further arguments, once it is greeted.
    pub fn client(&self, engine: &Engine, arguments: &[&str]) -> Client {
        let server = self.server.iter().map(String::as_str).chain(arguments.iter().copied());
        let mut client = Client::launch(self.command(engine, &[], server));
        client.initialize("2025-11-25");
        client
    }

    /// What another program of the image prints that is run the same way.
    pub fn printed(&self, engine: &Engine, program: &str, arguments: &[&str]) -> Vec<u8> {
        let mut command = self.command(engine, &["--entrypoint", program], arguments.iter().copied());
        let output = command.output().expect("the engine's client runs");
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn command<'a>(&'a self, engine: &Engine, more: &[&'a str], arguments: impl Iterator<Item = &'a str>) -> Command {
        let options = ["run"].into_iter().chain(self.options.iter().map(String::as_str)).chain(more.iter().copied());
        engine.docker(options.chain([COORDINATOR]).chain(arguments))
    }
}

/// What is behind `docker run` in each command of the page that begins so.
fn commands() -> Vec<Vec<String>> {
    let page = fs::read_to_string(docker_file("README.md")).expect("the page").replace("\\\n", " ");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    page.lines().filter_map(|line| line.strip_prefix("docker run ")).map(words).collect()
}

/// An option as the tests can use it: files by whole paths, and volumes that go with their container.
fn here(option: &str) -> String {
    match option.split_once(":/") {
        Some((_, place)) => format!("/{place}"),
        None => option
            .replace("seccomp=docker/seccomp-worker.json", &format!("seccomp={}", docker_file("seccomp-worker.json"))),
    }
}
