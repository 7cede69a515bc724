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
        assert!(text.starts_with("1 failed, 2 passed, 1 skipped, 1 xfailed in "), "{text}");
        assert!(text.contains("test_wrong\n  at checks/test_sums.py:5\n  AssertionError: 6 != 7"), "{text}");
        assert_eq!(answer.meta["codegen/tests"]["passed"], 2);
        assert!(!text.contains("stood in for"), "{text}");
        assert!(!text.contains("files changed"), "{text}");

        write(&mut client, "broken/test_broken.py", "import nothing_of_that_name\n");
        let answer = client.tool("test_run", json!({"path": "broken"}));
        let text = answer.failed();
        assert!(text.starts_with("1 error in "), "{text}");
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
    assert!(answer.ok().starts_with("1 passed in "), "{}", answer.text);
    client.tool("fs_write", json!({"path": "empty/notes.txt", "contents": ""})).ok();
    let answer = client.tool("test_run", json!({"path": "empty"}));
    assert!(answer.failed().starts_with("no tests ran ("), "{}", answer.text);
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
    assert!(answer.failed().starts_with("the test run ended before it could report ("), "{}", answer.text);
    assert!(answer.text.contains("exit 0 in ") || answer.text.contains("last words"), "{}", answer.text);
}

#[test]
fn pytest_is_used_where_a_session_has_it() {
    let installation = Installation::new();
    let mut client = installation.client();
    shadow(&mut client);
    install(&installation, &mut client, &pytest_packages());
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
    assert!(text.starts_with("1 failed, 1 error, 2 passed, 1 skipped, 1 xfailed in "), "{text}");
    assert!(text.contains("(pytest "), "{text}");
    assert!(
        text.contains("FAILED tests/test_each.py::test_each[3]\n  at tests/test_each.py:3\n  assert 3 < 3"),
        "{text}"
    );
    assert!(text.contains("ERROR tests/test_each.py::test_never\n  at tests/test_each.py:5\n  ValueError"), "{text}");
    assert!(!text.contains("stood in for") && !text.contains("files changed"), "{text}");
    let answer = client.tool("test_run", json!({"path": "tests", "args": ["-k", "2"]}));
    assert!(answer.ok().starts_with("1 passed in "), "{}", answer.text);
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
        assert!(client.tool("lint_check", json!({"path": "src"})).ok().starts_with("nothing found"));
        write(&mut client, "src/bad.py", "x = 1\ndef f(:\n    pass\n");
        client.tool("run_shell", json!({"command": "mkfifo src/pipe.py; ln -s /dev/zero src/endless.py"})).ok();
        let answer = client.tool("lint_check", json!({}));
        assert!(answer.failed().starts_with("1 finding"), "{}", answer.text);
        assert!(answer.text.contains("\nsrc/bad.py:2:"), "{}", answer.text);
        assert!(client.tool("lint_check", json!({"path": "nowhere"})).failed().contains("there is no nowhere"));
    }
}

/// Where the tests' own Python keeps pytest, and its version as directories name it.
fn pytest_packages() -> (PathBuf, String) {
    let python = env::var_os("CODEGEN_TEST_PYTHON");
    let python = python.expect("CODEGEN_TEST_PYTHON names a Python with pytest; `make test` sets it");
    let question = "import sys, os, pytest; print(os.path.dirname(os.path.dirname(pytest.__file__))); \
                    print('python%d.%d' % sys.version_info[:2])";
    let output = Command::new(python).args(["-c", question]).output().expect("the tests' Python starts");
    let said = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let [site, version] = said.lines().collect::<Vec<_>>()[..] else { panic!("it has no pytest: {said}") };
    (site.into(), version.to_owned())
}

/// Puts pytest where a session's own packages are, as an installation from an index would.
fn install(installation: &Installation, client: &mut Client, (site, version): &(PathBuf, String)) {
    let session = client.tool("session_info", json!({})).structured["session_id"].as_str().expect("an id").to_owned();
    let workspace = installation.state_dir().join("workspaces").join(session);
    let into = workspace.join(format!(".codegen/python/lib/{version}/site-packages"));
    for package in ["pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"] {
        copy(&site.join(package), &into.join(package));
    }
    fs::copy(site.join("py.py"), into.join("py.py")).expect("a copy");
    give(&workspace.join(".codegen"), &fs::metadata(&workspace).expect("a workspace"));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("an installed package").map(|entry| entry.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
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
