//! Tests and lint: what is reported, in workspaces that stand in the way, by runs that fail in every way.

use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use e2e::{Client, Installation, User};
use serde_json::json;

const SHADOWS: [&str; 9] =
    ["pytest", "_pytest", "json", "sitecustomize", "unittest", "ruff", "pip", "traceback", "codegen_display"];

fn write(client: &mut Client, path: &str, contents: &str) {
    client.tool("fs_write", json!({"path": path, "contents": contents})).ok();
}

/// Fills a workspace with files that must not be taken for modules of the library or of the tools.
fn shadow(client: &mut Client) {
    for name in SHADOWS {
        write(client, &format!("{name}.py"), &format!("raise SystemExit('the workspace stood in for {name}')"));
    }
}

#[test]
fn tests_are_run_and_reported_in_a_workspace_that_shadows_the_runner() {
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        shadow(&mut client);
        write(&mut client, "lib.py", "def six():\n    return 6\n");
        let tests = "import unittest, json, lib\n\
                     class Sums(unittest.TestCase):\n\
                     \x20   def test_right(self): self.assertEqual(lib.six() * 7, 42)\n\
                     \x20   def test_json(self): self.assertEqual(json.loads('[1]'), [1])\n\
                     \x20   def test_wrong(self): self.assertEqual(lib.six(), 7)\n\
                     \x20   @unittest.skip('later')\n\
                     \x20   def test_later(self): pass\n\
                     \x20   @unittest.expectedFailure\n\
                     \x20   def test_known(self): self.fail()\n";
        write(&mut client, "checks/test_sums.py", tests);
        let answer = client.tool("test_run", json!({}));
        let text = answer.failed();
        assert!(text.contains("\n1 failed, 2 passed, 1 skipped, 1 xfailed in "), "{text}");
        assert!(text.contains("test_wrong\n  at checks/test_sums.py:5\n  AssertionError: 6 != 7"), "{text}");
        assert_eq!(answer.meta["codegen/tests"]["passed"], 2);
        assert!(!text.contains("stood in for"), "{text}");
        assert!(!text.contains("files changed"), "{text}");

        write(&mut client, "broken/test_broken.py", "import nothing_of_that_name\n");
        let answer = client.tool("test_run", json!({"path": "broken"}));
        let text = answer.failed();
        assert!(text.contains("\n1 error in "), "{text}");
        assert!(text.contains("at broken/test_broken.py:1\n  ModuleNotFoundError"), "{text}");
    }
}

#[test]
fn one_test_can_be_named_and_a_place_without_tests_says_so() {
    let installation = Installation::new();
    let mut client = installation.client();
    let tests =
        "import unittest\nclass A(unittest.TestCase):\n    def test_a(self): pass\n    def test_b(self): self.fail()\n";
    write(&mut client, "-k/test_a.py", tests);
    let answer = client.tool("test_run", json!({"path": "-k/test_a.py::A::test_a"}));
    assert!(answer.ok().contains("\n1 passed in "), "{}", answer.text);
    let by_name = |name: &str| json!({"path": "-k", "args": ["-k", name, "-v"]});
    let answer = client.tool("test_run", by_name("A.test_a"));
    assert!(answer.ok().contains("\n1 passed in ") && answer.text.contains("test_a (test_a.A"), "{}", answer.text);
    let answer = client.tool("test_run", by_name("nothing"));
    assert!(answer.failed().contains("no test in 1 test files is named so"), "{}", answer.text);
    let answer = client.tool("test_run", json!({"args": ["--maxfail=1"]}));
    assert!(answer.failed().contains("\nno tests ran (unittest ") && answer.text.contains("exit 4"), "{}", answer.text);
    assert!(answer.text.contains("`args`: unrecognized arguments: --maxfail=1; without pytest"), "{}", answer.text);
    let tests = tests.replace("test_a(self): pass", "test_a(self): self.fail()");
    client.tool("fs_write", json!({"path": "-k/test_a.py", "contents": tests})).ok();
    let answer = client.tool("test_run", json!({"args": ["-f"]}));
    assert!(answer.failed().contains("\n1 failed in "), "it goes no further: {}", answer.text);
    client.tool("fs_write", json!({"path": "empty/notes.txt", "contents": ""})).ok();
    let answer = client.tool("test_run", json!({"path": "empty"}));
    assert!(answer.failed().contains("\nno tests ran ("), "{}", answer.text);
    client.tool("test_run", json!({"path": "../x"})).code("PATH_VIOLATION");
}

#[test]
fn a_test_that_ends_the_process_is_told_with_what_was_written() {
    let installation = Installation::new();
    let mut client = installation.client();
    let tests = "import os, unittest\n\
                 class A(unittest.TestCase):\n\
                 \x20   def test_a(self):\n\
                 \x20       os.write(1, b'last words'); os._exit(0)\n";
    write(&mut client, "test_a.py", tests);
    let answer = client.tool("test_run", json!({"args": []}));
    assert!(answer.failed().contains("\nthe test run ended before it could report ("), "{}", answer.text);
    assert!(answer.text.contains("exit 0 in ") || answer.text.contains("last words"), "{}", answer.text);
}

#[test]
fn pytest_is_used_where_a_session_has_it() {
    let installation = Installation::new();
    let mut client = installation.client();
    shadow(&mut client);
    let pytest = TestPackages::of("pytest");
    let packages = ["pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py.py"];
    install(&installation, &mut client, |python| pytest.copy_to(python, &packages));
    let tests = "import pytest\n\
                 @pytest.mark.parametrize('n', [1, 2, 3])\n\
                 def test_each(n): assert n < 3\n\
                 @pytest.fixture\n\
                 def broken(): raise ValueError('no fixture')\n\
                 def test_never(broken): pass\n\
                 @pytest.mark.xfail\n\
                 def test_known(): assert 0\n\
                 @pytest.mark.skip\n\
                 def test_later(): pass\n";
    write(&mut client, "tests/test_each.py", tests);
    let answer = client.tool("test_run", json!({"path": "tests"}));
    let text = answer.failed();
    assert!(text.contains("\n1 failed, 1 error, 2 passed, 1 skipped, 1 xfailed in "), "{text}");
    assert!(text.contains("(pytest "), "{text}");
    assert!(
        text.contains("FAILED tests/test_each.py::test_each[3]\n  at tests/test_each.py:3\n  assert 3 < 3"),
        "{text}"
    );
    assert!(text.contains("ERROR tests/test_each.py::test_never\n  at tests/test_each.py:5\n  ValueError"), "{text}");
    assert!(!text.contains("stood in for") && !text.contains("files changed"), "{text}");
    let answer = client.tool("test_run", json!({"path": "tests", "args": ["-k", "2"]}));
    assert!(answer.ok().contains("\n1 passed in "), "{}", answer.text);
    let answer = client.tool("test_run", json!({"args": ["--no-such-option"]}));
    assert!(answer.failed().contains("pytest refused its arguments"), "{}", answer.text);
}

#[test]
fn broken_syntax_is_found_without_a_linter() {
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        shadow(&mut client);
        write(&mut client, "src/good.py", "x = 1\n");
        assert!(client.tool("lint_check", json!({"path": "src"})).ok().contains("\nnothing found"));
        write(&mut client, "src/bad.py", "x = 1\ndef f(:\n    pass\n");
        client.tool("run_shell", json!({"command": "mkfifo src/pipe.py; ln -s /dev/zero src/endless.py"})).ok();
        let answer = client.tool("lint_check", json!({}));
        assert!(answer.failed().contains("\n1 finding"), "{}", answer.text);
        assert!(answer.text.contains("\nsrc/bad.py:2:"), "{}", answer.text);
        assert!(client.tool("lint_check", json!({"path": "nowhere"})).failed().contains("there is no nowhere"));
    }
}

#[test]
fn ruff_is_used_where_a_session_has_it() {
    let installation = Installation::new();
    let mut client = installation.client();
    shadow(&mut client);
    let ruff = TestPackages::of("ruff");
    install(&installation, &mut client, |python| {
        ruff.copy_to(python, &["ruff"]);
        fs::create_dir_all(python.join("bin")).expect("a directory");
        fs::copy(ruff.program(), python.join("bin/ruff")).expect("a copy");
    });
    write(&mut client, "src/good.py", "x = 1\n");
    let clean = client.tool("lint_check", json!({"path": "src"}));
    assert!(clean.ok().contains("\nnothing found") && clean.text.contains("(ruff "), "{}", clean.text);
    write(&mut client, "src/bad.py", "import os\nimport sys\n\nprint(sys.path)\nprint(undefined_name)\n");
    write(&mut client, "src/broken.py", "def f(:\n    pass\n");
    let found = client.tool("lint_check", json!({"path": "src"}));
    let text = found.failed();
    assert!(text.contains("(ruff "), "{text}");
    assert!(text.contains("\nsrc/bad.py:1:8 F401 "), "an unused import: {text}");
    assert!(text.contains("\nsrc/bad.py:5:7 F821 "), "a name that is nothing: {text}");
    assert!(text.contains("\nsrc/broken.py:1:7 invalid-syntax "), "broken syntax: {text}");
    assert!(!text.contains("stood in for") && !text.contains("files changed"), "{text}");
    let alone = client.tool("lint_check", json!({"path": "src/bad.py"}));
    assert!(alone.failed().contains("\n2 findings") && !alone.text.contains("broken.py"), "{}", alone.text);
}

/// A package that the tests' own Python has.
struct TestPackages {
    site: PathBuf,
    /// Its version of Python, as directories name it.
    version: String,
    program: PathBuf,
}

impl TestPackages {
    fn of(package: &str) -> Self {
        let python = env::var_os("CODEGEN_TEST_PYTHON");
        let python = python.expect("CODEGEN_TEST_PYTHON names a prepared Python; `make test` sets it");
        let question = format!(
            "import sys, os, {package}; print(os.path.dirname(os.path.dirname({package}.__file__))); \
             print('python%d.%d' % sys.version_info[:2])"
        );
        let output = Command::new(&python).args(["-c", &question]).output().expect("the tests' Python starts");
        let said = String::from_utf8(output.stdout).expect("paths are UTF-8");
        let [site, version] = said.lines().collect::<Vec<_>>()[..] else { panic!("it has no {package}: {said}") };
        let program = Path::new(&python).with_file_name(package);
        Self { site: site.into(), version: version.to_owned(), program }
    }

    /// Copies modules into the place of a session's own packages.
    fn copy_to(&self, python: &Path, modules: &[&str]) {
        let into = python.join(format!("lib/{}/site-packages", self.version));
        for module in modules {
            copy(&self.site.join(module), &into.join(module));
        }
    }

    fn program(&self) -> &Path {
        &self.program
    }
}

/// Puts packages where a session's own are, as an installation from an index would.
fn install(installation: &Installation, client: &mut Client, fill: impl FnOnce(&Path)) {
    let session = client.tool("session_info", json!({})).structured["session_id"].as_str().expect("an id").to_owned();
    let workspace = installation.state_dir().join("workspaces").join(session);
    fill(&workspace.join(".codegen/python"));
    give(&workspace.join(".codegen"), &fs::metadata(&workspace).expect("a workspace"));
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).expect("a copy");
        return;
    }
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("an installed package").map(|entry| entry.expect("an entry")) {
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

/// Makes a tree belong to the session.
fn give(path: &Path, owner: &fs::Metadata) {
    lchown(path, Some(owner.uid()), Some(owner.gid())).expect("chown");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            give(&entry.expect("an entry").path(), owner);
        }
    }
}
