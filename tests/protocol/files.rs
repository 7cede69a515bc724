//! Editing, searching and artifacts through the product: what they give, and what bad input gets.

use std::time::{Duration, Instant};

use e2e::Installation;
use serde_json::json;

#[test]
fn an_edit_shows_its_change_and_is_done_once() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("fs_write", json!({"path": "a.py", "contents": "def f():\n    return 1\n"})).ok();
    let edit = json!({"path": "a.py", "old": "return 1", "new": "return 2", "idempotency_key": "once"});
    let first = client.tool("fs_edit", edit.clone()).ok().to_owned();
    assert!(first.starts_with("edited 1 place in a.py: ") && first.contains("-    return 1\n+    return 2"), "{first}");
    // The text is not there any more, and the answer is the first one's all the same.
    assert_eq!(client.tool("fs.edit", edit).ok(), first);
    client.tool("fs_edit", json!({"path": "a.py", "old": "return 1", "new": "x"})).code("PRECONDITION_FAILED");
    assert!(client.tool("fs_read", json!({"path": "a.py"})).ok().starts_with("def f():\n    return 2\n"));
}

#[test]
fn an_edit_that_cannot_be_made_says_what_to_do() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("fs_write", json!({"path": "f", "contents": "one\ntwo\none\n"})).ok();
    let twice = client.tool("fs_edit", json!({"path": "f", "old": "one", "new": "1"}));
    assert!(twice.code("PRECONDITION_FAILED").contains("2 times, in lines 1, 3"), "{}", twice.failed());
    let absent = client.tool("fs_edit", json!({"path": "f", "old": "  two", "new": "2"}));
    assert!(absent.code("PRECONDITION_FAILED").contains("Line 2 differs"), "{}", absent.failed());
    let etag = client.tool("fs_stat", json!({"path": "f"})).structured["etag"].clone();
    client.tool("fs_edit", json!({"path": "f", "old": "one", "new": "1", "replace_all": true, "if_match": etag})).ok();
    let stale = json!({"path": "f", "old": "two", "new": "2", "if_match": etag});
    client.tool("fs_edit", stale).code("PRECONDITION_FAILED");
    for (bad, code) in [
        (json!({"path": "f", "old": "", "new": "x"}), "INVALID_ARGUMENT"),
        (json!({"path": "f", "old": "two", "new": "two"}), "INVALID_ARGUMENT"),
        (json!({"path": "f", "old": "two"}), "INVALID_ARGUMENT"),
        (json!({"path": "f", "old": ["two"], "new": "x"}), "INVALID_ARGUMENT"),
        (json!({"path": "../f", "old": "a", "new": "b"}), "PATH_VIOLATION"),
        (json!({"path": "missing", "old": "a", "new": "b"}), "NOT_FOUND"),
        (json!({"path": "", "old": "a", "new": "b"}), "NOT_A_FILE"),
    ] {
        client.tool("fs_edit", bad).code(code);
    }
    assert!(client.tool("fs_read", json!({"path": "f"})).ok().starts_with("1\ntwo\n1\n"));
}

#[test]
fn a_search_finds_lines_and_says_what_it_passed_by() {
    let installation = Installation::new();
    let mut client = installation.client();
    let code = "import os\nos.makedirs('src/deep')\nopen('src/a.py', 'w').write('x = 1\\nneedle = 2\\ny = 3\\n')\nopen('src/deep/b.txt', 'w').write('needle\\n')\nopen('bin', 'wb').write(b'needle\\0')\nos.symlink('/etc/passwd', 'passwd')";
    client.tool("run_python", json!({"code": code})).ok();
    let found = client.tool("fs_search", json!({"pattern": "^need.e", "context": 1}));
    let expected = "2 matching lines in 2 files; 2 files searched, not searched: 1 binary\n\
                    src/a.py-1-x = 1\nsrc/a.py:2:needle = 2\nsrc/a.py-3-y = 3\n--\nsrc/deep/b.txt:1:needle";
    assert!(found.ok().starts_with(expected), "{}", found.ok());
    assert_eq!(found.structured["lines"][1]["line"], 2);
    let python =
        client.tool("fs_search", json!({"pattern": "NEEDLE", "ignore_case": true, "glob": "*.py", "path": "src"}));
    assert!(python.ok().starts_with("1 matching line in 1 file; 1 file searched\nsrc/a.py:2:"), "{}", python.ok());
    assert!(client.tool("fs_search", json!({"pattern": "root:"})).ok().starts_with("no match"));
}

#[test]
fn a_search_that_cannot_be_made_is_refused_at_once() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("fs_write", json!({"path": "a", "contents": "a".repeat(1 << 20)})).ok();
    let begun = Instant::now();
    for pattern in ["(a{1000}){1000}", "(?i)\\p{L}{500}", "(", "[z-a]", "(?=x)", "a\\nb", "", "\\1", &"(".repeat(2_000)]
    {
        client.tool("fs_search", json!({"pattern": pattern})).code("INVALID_ARGUMENT");
    }
    let explained = client.tool("fs_search", json!({"pattern": "x(y"}));
    assert!(explained.failed().contains("unclosed group"), "{}", explained.failed());
    assert!(client.tool("fs_search", json!({"pattern": "(a*)*b"})).ok().starts_with("no match"));
    for bad in [
        json!({"pattern": "x", "context": 21}),
        json!({"pattern": "x", "max_matches": 0}),
        json!({"pattern": "x", "glob": "["}),
        json!({"pattern": "x".repeat(2_000)}),
        json!({"pattern": 7}),
    ] {
        client.tool("fs_search", bad).code("INVALID_ARGUMENT");
    }
    client.tool("fs_search", json!({"pattern": "x", "path": "/etc"})).code("PATH_VIOLATION");
    client.tool("fs_search", json!({"pattern": "x", "path": "missing"})).code("NOT_FOUND");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn artifacts_are_listed_and_come_back_as_what_they_are() {
    let installation = Installation::new();
    let mut client = installation.client();
    assert!(client.tool("artifact_list", json!({})).ok().starts_with("no artifacts"));
    let code = "import os, struct, zlib\n\
        def chunk(kind, data):\n    \
            return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n\
        png = (b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 2000, 2, 8, 2, 0, 0, 0))\n    \
            + chunk(b'IDAT', zlib.compress((b'\\0' + bytes(6000)) * 2)) + chunk(b'IEND', b''))\n\
        os.makedirs('artifacts/sub dir')\n\
        open('artifacts/p.png', 'wb').write(png)\n\
        open('artifacts/q.png', 'wb').write(png[:8] + bytes(50))\n\
        open('artifacts/sub dir/t.csv', 'w').write('a,b\\n')\n\
        open('artifacts/x.bin', 'wb').write(bytes(5000000))\n\
        os.mkfifo('artifacts/fifo')\n\
        os.symlink('/etc/passwd', 'artifacts/link.png')";
    client.tool("run_python", json!({"code": code})).ok();
    let listed = client.tool("artifact_list", json!({}));
    assert!(listed.ok().starts_with("4 artifacts\nartifacts/p.png (image/png, "), "{}", listed.ok());
    let uri = listed.structured["artifacts"][2]["uri"].as_str().expect("an address");
    assert!(uri.starts_with("workspace://ses_") && uri.ends_with("/artifacts/sub%20dir/t.csv"), "{uri}");
    let picture = client.request("tools/call", json!({"name": "artifact_get", "arguments": {"path": "p.png"}}));
    assert_eq!(picture["result"]["content"][1]["type"], "image", "{picture}");
    assert_eq!(picture["result"]["content"][1]["mimeType"], "image/png");
    let data = picture["result"]["content"][1]["data"].as_str().expect("base64");
    // The width is in the bytes 16 to 19, so in the characters 20 to 27, with one more byte at each end.
    assert_eq!(&data[20..28], "UgAABiAA", "it is 1568 pixels wide: {data}");
    let liar = client.request("tools/call", json!({"name": "artifact_get", "arguments": {"path": "q.png"}}));
    let blocks = liar["result"]["content"].as_array().expect("content");
    assert!(
        blocks.iter().all(|block| block["type"] != "image") && liar.to_string().contains("not shown here"),
        "{liar}"
    );
    let text = client.tool("artifact_get", json!({"path": "artifacts/sub dir/t.csv"}));
    assert!(text.ok().starts_with("a,b\n"), "{}", text.ok());
    let large = client.tool("artifact_get", json!({"path": "x.bin"}));
    assert!(large.ok().contains("workspace://") && large.ok().len() < 1_000, "{}", large.ok());
    for (bad, code) in [
        ("link.png", "PATH_VIOLATION"),
        ("fifo", "PATH_VIOLATION"),
        ("../secret", "PATH_VIOLATION"),
        ("missing", "NOT_FOUND"),
        ("", "INVALID_ARGUMENT"),
        ("sub dir", "NOT_A_FILE"),
    ] {
        client.tool("artifact_get", json!({"path": bad})).code(code);
    }
    client.tool("artifact_list", json!({"cursor": "?"})).code("INVALID_ARGUMENT");
}
