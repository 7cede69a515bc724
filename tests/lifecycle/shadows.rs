//! A workspace whose files are called like modules of the library and of the tools that the product runs.

use std::path::PathBuf;

use e2e::{Client, Installation, User};
use serde_json::json;

use crate::packages::put_wheel;

/// What the interpreter, the product's own programs, pip, pytest or unittest import.
const FILES: [&str; 16] = [
    "json",
    "sitecustomize",
    "usercustomize",
    "site",
    "encodings",
    "socket",
    "ssl",
    "traceback",
    "unittest",
    "compileall",
    "py_compile",
    "zipfile",
    "tokenize",
    "runpy",
    "importlib",
    "codegen_display",
];
const PACKAGES: [&str; 4] = ["pip", "pytest", "_pytest", "ruff"];
/// Where such a file leaves its name when it is run.
const TRACE: &str = "stood-in";

struct Shadowed {
    installation: Installation,
    client: Client,
}

impl Shadowed {
    /// A workspace full of such files. Where one is run outside its sandbox it leaves its name there, too.
    fn of(user: User) -> Self {
        let installation = Installation::for_user(user);
        let client = installation.client();
        let mut shadowed = Self { installation, client };
        let files = FILES.iter().map(|name| (*name, format!("{name}.py")));
        let packages =
            PACKAGES.iter().flat_map(|name| ["__init__", "__main__"].map(|file| (*name, format!("{name}/{file}.py"))));
        for (name, path) in files.chain(packages) {
            let contents = format!(
                "import os\nfor place in ('{TRACE}', {:?}):\n    try:\n        with open(place, 'a') as file: \
                 file.write('{name} ')\n    except OSError: pass\nraise SystemExit('the workspace stood in for {name}')\n",
                shadowed.outside()
            );
            shadowed.client.tool("fs_write", json!({"path": path, "contents": contents})).ok();
        }
        shadowed
    }

    /// Where a program leaves its name that is not in a sandbox; who runs the server may write there.
    fn outside(&self) -> PathBuf {
        self.installation.state_dir().join(TRACE)
    }

    /// The names of those that were run.
    fn run(&mut self) -> String {
        assert!(!self.outside().exists(), "outside of the sandbox: {:?}", std::fs::read_to_string(self.outside()));
        let trace = self.client.tool("fs_read", json!({"path": TRACE}));
        if trace.is_error {
            trace.code("NOT_FOUND");
            String::new()
        } else {
            trace.text
        }
    }
}

#[test]
fn nothing_that_the_product_runs_takes_a_file_of_the_workspace_for_a_module() {
    for user in User::all() {
        let mut shadowed = Shadowed::of(user);
        let client = &mut shadowed.client;
        for kernel in [json!({}), json!({"kernel": "k"})] {
            let mut run = |code: &str| {
                let mut call = kernel.clone();
                call["code"] = json!(code);
                client.tool("run_python", call)
            };
            let ran = run("import json\nprint(json.dumps([6 * 7]))\n{'value': [1, 2]}");
            assert!(
                ran.ok().contains("stdout:\n[42]") && ran.text.contains("value:\n{'value': [1, 2]}"),
                "{}",
                ran.text
            );
            let failed = run("def f(): return 1 / 0\nf()");
            assert!(failed.failed().contains("ZeroDivisionError: division by zero"), "{}", failed.text);
        }
        let path = put_wheel(client, "local_one", "0.1", "");
        let installed = client.tool("pkg_install", json!({"packages": [path]}));
        assert!(installed.ok().contains("installed local-one 0.1\n"), "{}", installed.text);
        let listed = client.tool("pkg_list", json!({}));
        assert_eq!(listed.structured["packages"], json!([{"name": "local-one", "version": "0.1"}]));
        let uses = json!({"code": "import local_one; print(local_one.VERSION)"});
        assert!(client.tool("run_python", uses).ok().contains("stdout:\n0.1"));
        let tests = "import unittest\nclass A(unittest.TestCase):\n    def test_a(self): pass\n";
        client.tool("fs_write", json!({"path": "checks/test_a.py", "contents": tests})).ok();
        for path in [json!({}), json!({"path": "checks"})] {
            assert!(client.tool("test_run", path).ok().contains("\n1 passed in "));
        }
        let linted = client.tool("lint_check", json!({}));
        assert!(linted.ok().contains("\nnothing found"), "{}", linted.text);
        assert_eq!(shadowed.run(), "");
    }
}

/// That no name is left above says something only since these do leave theirs.
#[test]
fn code_of_the_user_gets_what_its_workspace_has_as_it_does_from_python_and_in_the_sandbox_alone() {
    let mut shadowed = Shadowed::of(User::Myself);
    for (arguments, name) in [
        (json!({"code": "import pytest"}), "pytest"),
        (json!({"code": "import pip", "kernel": "k"}), "pip"),
        (json!({"code": "import ruff.__main__"}), "ruff"),
    ] {
        let stood_in = shadowed.client.tool("run_python", arguments);
        assert!(stood_in.failed().contains(&format!("the workspace stood in for {name}")), "{}", stood_in.text);
        assert!(shadowed.run().contains(name));
    }
}
