//! A small test runner that forks the launcher before any thread exists. Speaks as much of libtest's command line as
//! cargo and nextest use.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::{Command, ExitCode};

/// The user id that stands for an ordinary user.
const USER: u32 = 1000;

/// One test.
pub struct Case {
    pub name: &'static str,
    pub run: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

macro_rules! cases {
    ($($module:ident::$name:ident,)*) => {
        vec![$($crate::harness::Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
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
    let root = rustix::process::geteuid().is_root();
    let own = if root { "root" } else { "user" };
    let identities: &[&str] = if root { &["root", "user"] } else { &["user"] };
    let names =
        cases.iter().flat_map(|case| identities.iter().map(move |who| (case, *who, format!("{who}::{}", case.name))));
    let selected: Vec<_> = names.filter(|(_, _, name)| options.selects(name)).collect();
    if options.list {
        selected.iter().for_each(|(_, _, name)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let here: Vec<_> = selected.iter().filter(|(_, who, _)| *who == own).map(|(case, _, name)| (*case, name)).collect();
    let mut failed = run_here(&here);
    let others: Vec<&String> = selected.iter().filter(|(_, who, _)| *who != own).map(|(_, _, name)| name).collect();
    if !others.is_empty() && !run_as_user(&others) {
        failed += 1;
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
fn run_as_user(names: &[&String]) -> bool {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("isolation");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    // A home outside the places that are part of a sandbox, closed to others as homes are.
    let home = tempfile::Builder::new().prefix("home").tempdir_in("/opt").unwrap();
    std::os::unix::fs::chown(home.path(), Some(USER), Some(USER)).unwrap();
    let mut command = Command::new(&program);
    command.arg("--exact").args(names).current_dir("/").env_clear().env("HOME", home.path()).uid(USER).gid(USER);
    let status = command.status().unwrap();
    status.success()
}
