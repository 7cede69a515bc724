//! A small test runner that forks the launcher before any thread exists. Speaks as much of libtest's command line as
//! cargo and nextest use.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::{Command, ExitCode};

/// The user id of the one who stands for an ordinary user.
const USER_ID: &str = "CODEGEN_TEST_USER_ID";
/// As whom this process runs, when that is less than whoever runs the tests.
const CONFINED: &str = "CODEGEN_TEST_CONFINED";
/// A set-user-id program of root's, which gives root to whoever runs it outside of a sandbox: only root can plant one.
pub const SET_USER_ID: &str = "CODEGEN_TEST_SET_USER_ID";

/// Where level full is found: as root and as an ordinary user.
pub const FULL: &[&str] = &["root", "user"];
/// Where a lower one is: as root, and as an ordinary user, with what an engine's default container leaves them.
pub const BELOW_FULL: &[&str] = &["portable", "reduced"];
/// Where each session has a user id of its own, and no namespaces.
pub const PORTABLE: &[&str] = &["portable"];
/// Everywhere.
pub const EVERY: &[&str] = &["root", "user", "portable", "reduced"];

/// One test.
pub struct Case {
    pub name: &'static str,
    /// As whom it is run: where what it shows is promised.
    pub as_whom: &'static [&'static str],
    pub run: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

macro_rules! cases {
    ($as_whom:expr; $($module:ident::$name:ident,)*) => {
        vec![$($crate::harness::Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            as_whom: $as_whom,
            run: || Box::pin($crate::$module::$name()),
        },)*]
    };
}
pub(crate) use cases;

struct Options {
    list: bool,
    ignored: bool,
    exact: bool,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self { list: false, ignored: false, exact: false, filters: Vec::new(), skip: Vec::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => options.list = true,
                "--ignored" => options.ignored = true,
                "--exact" => options.exact = true,
                "--skip" => options.skip.extend(arguments.next()),
                "--format" | "--test-threads" | "--color" | "-Z" => drop(arguments.next()),
                flag if flag.starts_with('-') => {}
                filter => options.filters.push(filter.to_owned()),
            }
        }
        options
    }

    fn selects(&self, name: &str) -> bool {
        let hit = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        !self.ignored && (self.filters.is_empty() || self.filters.iter().any(hit)) && !self.skip.iter().any(hit)
    }
}

/// Runs the selected tests.
pub fn main(cases: Vec<Case>) -> ExitCode {
    let options = Options::parse();
    let own = match std::env::var(CONFINED) {
        Ok(confined) => {
            crate::confine::confine().unwrap();
            if confined == "reduced" && rustix::process::geteuid().is_root() {
                become_user();
            }
            confined
        }
        Err(_) if rustix::process::geteuid().is_root() => "root".to_owned(),
        Err(_) => "user".to_owned(),
    };
    let identities: &[&str] = match own.as_str() {
        "root" => EVERY,
        "user" => &["user", "reduced"],
        "portable" => &["portable"],
        _ => &["reduced"],
    };
    let names = cases.iter().flat_map(|case| {
        let here = identities.iter().filter(|who| case.as_whom.contains(who));
        here.map(move |who| (case, *who, format!("{who}::{}", case.name)))
    });
    let selected: Vec<_> = names.filter(|(_, _, name)| options.selects(name)).collect();
    if options.list {
        selected.iter().for_each(|(_, _, name)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let here: Vec<_> = selected.iter().filter(|(_, who, _)| *who == own).map(|(case, _, name)| (*case, name)).collect();
    let mut failed = run_here(&here);
    for other in identities.iter().filter(|who| **who != own) {
        let names: Vec<&String> = selected.iter().filter(|(_, who, _)| who == other).map(|(_, _, name)| name).collect();
        if !names.is_empty() && !run_as(other, &names) {
            failed += 1;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_here(cases: &[(&Case, &String)]) -> usize {
    if cases.is_empty() {
        return 0;
    }
    crate::room::fork_launcher();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failed = 0;
    for (case, name) in cases {
        let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on((case.run)())));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed += usize::from(result.is_err());
    }
    println!("\ntest result: {} passed; {failed} failed", cases.len() - failed);
    failed
}

/// Runs tests in a copy of this program that the other user can reach.
fn run_as(who: &str, names: &[&String]) -> bool {
    let another = rustix::process::geteuid().is_root() && who != "portable";
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("isolation");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    // A home outside the places that are part of a sandbox, closed to others as homes are, unless sessions must pass it.
    let home = tempfile::Builder::new().prefix("home").tempdir_in(home_of_homes()).unwrap();
    // Whoever lacks root's power over others' files leaves some behind, which go with this directory.
    let scratch = directory.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mut command = Command::new(&program);
    command.arg("--exact").args(names).current_dir("/").env_clear().env("HOME", home.path()).env("TMPDIR", &scratch);
    command.env(USER_ID, user().to_string());
    if another {
        for directory in [home.path(), &scratch] {
            std::os::unix::fs::chown(directory, Some(user()), Some(user())).unwrap();
        }
        // Root confines itself first, since others could do it only without set-user-id programs.
        if who != "reduced" {
            command.uid(user()).gid(user());
        }
        command.env(SET_USER_ID, plant_set_user_id(home.path()));
    } else if rustix::process::geteuid().is_root() {
        command.env(SET_USER_ID, plant_set_user_id(home.path()));
    }
    if BELOW_FULL.contains(&who) {
        command.env(CONFINED, who);
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let status = command.status().unwrap();
    status.success()
}

/// The ordinary user of this process of tests, and of those that it starts. The kernel counts processes by user id, and what
/// uses them up in one test must not be missing in the next.
fn user() -> u32 {
    std::env::var(USER_ID).map_or_else(|_| 100_000 + std::process::id(), |id| id.parse().unwrap())
}

fn become_user() {
    rustix::thread::set_thread_groups(&[]).unwrap();
    let group = rustix::thread::Gid::from_raw(user());
    rustix::thread::set_thread_res_gid(group, group, group).unwrap();
    let user = rustix::thread::Uid::from_raw(user());
    rustix::thread::set_thread_res_uid(user, user, user).unwrap();
    // Which a change of ids takes away, and a test that looks into /proc needs.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
}

/// Plants it in a tree that can be shown to a sandbox, and sees that it works.
fn plant_set_user_id(home: &std::path::Path) -> std::path::PathBuf {
    let tree = home.join("set-user-id");
    std::fs::create_dir(&tree).unwrap();
    let program = tree.join("id");
    std::fs::copy("/usr/bin/id", &program).unwrap();
    for (path, mode) in [(home, 0o755), (&tree, 0o755), (&program, 0o4755)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let ran = Command::new(&program).arg("-u").uid(user()).gid(user()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "0\n", "outside of a sandbox it gives root");
    program
}

/// A directory that is no part of a sandbox.
fn home_of_homes() -> std::path::PathBuf {
    if rustix::process::geteuid().is_root() { "/opt".into() } else { std::env::home_dir().unwrap() }
}
