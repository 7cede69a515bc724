//! Packages on a host that has no pip: one known release is fetched, and no other is ever run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use e2e::{Client, Index, Installation, python};
use serde_json::json;

const FILE: &str = "pip-26.0.1-py3-none-any.whl";

/// A Python with neither pip nor ensurepip, as the packages of some systems leave it.
struct BarePython {
    directory: tempfile::TempDir,
}

impl BarePython {
    fn new() -> Self {
        let python = python();
        // What lies below the system's temporary directory is never shown in a sandbox.
        let tools = python.ancestors().nth(3).expect("it lies in an environment of its own");
        let directory = tempfile::Builder::new().prefix("bare-python-").tempdir_in(tools).expect("a directory");
        let made = Command::new(&python).args(["-m", "venv", "--without-pip"]).arg(directory.path()).status();
        assert!(made.expect("the tests' Python starts").success(), "an environment without pip");
        let question = "import sysconfig; print(sysconfig.get_path('purelib'))";
        let site = Command::new(directory.path().join("bin/python3")).args(["-c", question]).output().expect("it runs");
        let site = PathBuf::from(String::from_utf8(site.stdout).expect("a path").trim());
        let without = "import sys, sysconfig\nsys.modules['ensurepip'] = None\n\
                       sysconfig.get_config_vars()['WHEEL_PKG_DIR'] = None\n";
        fs::write(site.join("sitecustomize.py"), without).expect("a file");
        Self { directory }
    }

    /// A client of a product that finds this Python first and uses that index.
    fn client(&self, installation: &Installation, index: &Index) -> Client {
        let config = installation.outside().join("config.toml");
        fs::write(&config, format!("package_indexes = '{}'\npackage_hosts = 'none'\n", index.url())).expect("a file");
        let path = format!("{}:{}", self.directory.path().join("bin").display(), env::var("PATH").expect("a path"));
        let mut command = installation.command([Path::new("--config"), config.as_path()]);
        let mut client = Client::launch({
            command.env("PATH", path);
            command
        });
        client.initialize("2025-11-25");
        client
    }
}

/// The wheel itself, as another tool of the tests' Python brings it.
fn pip_wheel() -> Vec<u8> {
    let question = "import os, virtualenv; print(os.path.dirname(virtualenv.__file__))";
    let output = Command::new(python()).args(["-c", question]).output().expect("the tests' Python starts");
    let package = String::from_utf8(output.stdout).expect("a path");
    let wheel = Path::new(package.trim()).join("seed/wheels/embed").join(FILE);
    fs::read(&wheel).unwrap_or_else(|error| panic!("{}: {error}", wheel.display()))
}

fn fetched(index: &Index) -> usize {
    index.asked().iter().filter(|path| path.ends_with(FILE)).count()
}

#[test]
fn a_host_without_pip_fetches_the_one_that_is_known_once() {
    let python = BarePython::new();
    let index = Index::serve_with("127.0.0.1:1", &[(FILE, pip_wheel())]);
    let installation = Installation::new();
    let mut client = python.client(&installation, &index);
    let installed = client.tool("pkg_install", json!({"packages": ["demo-pkg"]}));
    let text = installed.ok();
    assert!(text.contains("installed demo-dep 1.0, demo-pkg 2.0\n"), "{text}");
    assert!(text.contains(&format!("{FILE} was fetched and is kept")), "{text}");
    assert!(text.contains(&format!("reached {}\n", index.host())), "{text}");
    assert!(
        client.tool("run_python", json!({"code": "import demo_pkg; print(demo_pkg.VERSION)"})).ok().contains("2.0")
    );
    // Another session, after another start, finds it kept.
    drop(client);
    installation.kill_server();
    let mut client = python.client(&installation, &index);
    let again = client.tool("pkg_install", json!({"packages": ["demo-dep"]}));
    assert!(again.ok().contains("installed demo-dep 1.0\n") && !again.text.contains("fetched"), "{}", again.text);
    assert_eq!(fetched(&index), 1, "{:?}", index.asked());
    // What lies there is believed as little as what an index gives.
    let kept = installation.state_dir().join("workspaces/.pip").join(FILE);
    fs::write(&kept, b"something else").expect("a file");
    let repaired = client.tool("pkg_install", json!({"packages": ["demo-pkg==1.0"]}));
    assert!(repaired.ok().contains("installed demo-pkg 1.0\n"), "{}", repaired.text);
    assert_eq!((fetched(&index), fs::read(&kept).expect("it is kept again")), (2, pip_wheel()));
}

#[test]
fn a_pip_that_is_not_the_one_that_is_known_is_never_run() {
    let python = BarePython::new();
    let mut tampered = pip_wheel();
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;
    let index = Index::serve_with("127.0.0.1:1", &[(FILE, tampered)]);
    let installation = Installation::new();
    let mut client = python.client(&installation, &index);
    let refused = client.tool("pkg_install", json!({"packages": ["demo-pkg"]}));
    let text = refused.failed();
    assert!(text.contains("is not what it should be and was not used"), "{text}");
    assert!(text.contains("could not be fetched from the index"), "{text}");
    assert!(!index.asked().iter().any(|path| path.contains("demo")), "nothing was installed: {:?}", index.asked());
    assert!(!installation.state_dir().join("workspaces/.pip").exists(), "and nothing was kept");
    assert_eq!(client.tool("pkg_list", json!({})).structured["packages"], json!([]));
}

#[test]
fn without_a_pip_to_be_had_the_remedy_is_named() {
    let python = BarePython::new();
    let index = Index::serve("127.0.0.1:1");
    let installation = Installation::new();
    let mut client = python.client(&installation, &index);
    let missing = client.tool("pkg_install", json!({"packages": ["demo-pkg"]}));
    assert!(missing.failed().contains("answered 404") && missing.text.contains("python3-pip"), "{}", missing.text);
    client.tool("fs_write", json!({"path": "a-1-py3-none-any.whl", "contents": ""})).ok();
    let offline = client.tool("pkg_install", json!({"packages": ["a-1-py3-none-any.whl"]}));
    assert!(offline.code("NOT_FOUND").contains("python3-pip"), "{}", offline.text);
}
