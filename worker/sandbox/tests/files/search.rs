//! Searching: what is found, what is passed by, and that no pattern, file or link makes it do more than it should.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use codegen_types::ErrorCode;
use codegen_types::event::{Found, SearchCut, SkippedFiles};
use codegen_types::operation::Search;

use crate::fixture::{Fixture, SECRET, code, path, search_of};

/// `path:line:text` of matches, `path-line-text` of context.
fn shown(found: &Found) -> Vec<String> {
    let lines = found.files.iter().flat_map(|file| file.lines.iter().map(move |line| (file, line)));
    lines
        .map(|(file, line)| {
            let mark = if line.is_match { ':' } else { '-' };
            format!("{}{mark}{}{mark}{}", file.path, line.number, line.text)
        })
        .collect()
}

#[test]
fn matching_lines_are_found_in_order_with_their_context() {
    let f = Fixture::new();
    f.write("b/deep.py", b"one\ntwo\nthree\nfour\n").expect("written");
    f.write("a.txt", b"TWO\r\nx\r\ntwo").expect("written");
    let found = f.search(&search_of("^two$")).expect("a search");
    assert_eq!(shown(&found), ["a.txt:3:two", "b/deep.py:2:two"]);
    assert_eq!((found.files_searched, found.skipped, found.cut), (2, SkippedFiles::default(), None));
    let found = f.search(&Search { ignore_case: true, context: 1, ..search_of("two$") }).expect("a search");
    let expected =
        ["a.txt:1:TWO", "a.txt-2-x", "a.txt:3:two", "b/deep.py-1-one", "b/deep.py:2:two", "b/deep.py-3-three"];
    assert_eq!(shown(&found), expected);
    let below = f.search(&Search { path: path("b"), ..search_of("t..") }).expect("a search");
    assert_eq!(shown(&below), ["b/deep.py:2:two", "b/deep.py:3:three"]);
    let one = f.search(&Search { path: path("a.txt"), ..search_of("x") }).expect("a search");
    assert_eq!(shown(&one), ["a.txt:2:x"]);
}

#[test]
fn a_pattern_is_read_as_asked() {
    let f = Fixture::new();
    f.write("f", "a.c\nabc\nÄrger (x)\nfoo foobar\n".as_bytes()).expect("written");
    let hits = |search: Search| shown(&f.search(&search).expect("a search"));
    assert_eq!(hits(search_of("a.c")).len(), 2);
    assert_eq!(hits(Search { literal: true, ..search_of("a.c") }), ["f:1:a.c"]);
    assert_eq!(hits(Search { ignore_case: true, ..search_of("ärger") }), ["f:3:Ärger (x)"]);
    assert_eq!(hits(Search { literal: true, ignore_case: true, ..search_of("(X)") }), ["f:3:Ärger (x)"]);
    assert_eq!(hits(search_of(r"\bfoo\b")), ["f:4:foo foobar"]);
    assert_eq!(hits(search_of(r"\bbar\b")), [""; 0]);
    assert_eq!(hits(search_of(r"^\w+ \(.\)$")), ["f:3:Ärger (x)"]);
    assert_eq!(hits(search_of("(abc|foobar)$")).len(), 2);
}

#[test]
fn a_glob_picks_files_by_name_or_by_path() {
    let f = Fixture::new();
    for name in ["a.py", "a.txt", "src/b.py", "src/deep/c.py"] {
        f.write(name, b"x").expect("written");
    }
    let hits = |glob: &str| {
        let found = f.search(&Search { glob: Some(glob.to_owned()), ..search_of("x") }).expect("a search");
        found.files.into_iter().map(|file| file.path).collect::<Vec<_>>()
    };
    assert_eq!(hits("*.py"), ["a.py", "src/b.py", "src/deep/c.py"]);
    assert_eq!(hits("src/*.py"), ["src/b.py"]);
    assert_eq!(hits("**/c.*"), ["src/deep/c.py"]);
    assert_eq!(hits("*.{txt,md}"), ["a.txt"]);
    assert_eq!(code(f.search(&Search { glob: Some("[".into()), ..search_of("x") })), ErrorCode::InvalidArgument);
}

#[test]
fn a_pattern_that_explodes_is_refused_or_followed_in_little_time() {
    let f = Fixture::new();
    f.write("a", "a".repeat(1 << 20).as_bytes()).expect("written");
    let begun = Instant::now();
    let refused = |pattern: &str| f.search(&search_of(pattern)).expect_err(pattern);
    for large in ["(a{1000}){1000}", r"(?i)\p{L}{500}", r"((\w{99}){99}){99}", "(?i)[^x]{5000}"] {
        let failure = refused(large);
        assert_eq!(failure.code, ErrorCode::InvalidArgument);
        assert!(failure.message.contains("too large"), "{failure}");
    }
    for (bad, why) in
        [("(", "unclosed group"), ("a{2,1}", "repetition"), ("*", "repetition operator"), ("(?=x)", "look")]
    {
        assert!(refused(bad).message.contains(why), "{}", refused(bad));
    }
    assert!(refused("a\\nb").message.contains("end of a line"));
    assert_eq!(code(f.search(&search_of(""))), ErrorCode::InvalidArgument);
    assert_eq!(code(f.search(&search_of(&"a".repeat(5_000)))), ErrorCode::InvalidArgument);
    assert_eq!(code(f.search(&search_of(&"(".repeat(4_000)))), ErrorCode::InvalidArgument);
    assert!(f.search(&search_of("(a*)*b")).expect("a search").files.is_empty());
    assert!(f.search(&search_of("(a|aa)+$")).expect("a search").files.len() == 1);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_search_that_is_stopped_gives_nothing() {
    let f = Fixture::new();
    f.write("file", b"x").expect("written");
    let stop = Arc::new(AtomicBool::new(true));
    assert_eq!(code(f.workspace.search(&search_of("x"), &stop)), ErrorCode::TaskCancelled);
    stop.store(false, Ordering::Relaxed);
    assert!(f.workspace.search(&search_of("x"), &stop).is_ok());
}

#[test]
fn the_walk_to_the_files_is_stopped_and_bounded_too() {
    let f = Fixture::new();
    f.write("a/b/c/file", b"x").expect("written");
    let none = Search { glob: Some("nothing".into()), ..search_of("x") };
    assert_eq!(code(f.workspace.search(&none, &Arc::new(AtomicBool::new(true)))), ErrorCode::TaskCancelled);
    let deep = vec!["d".repeat(240); 16].join("/");
    for n in 0..4_400 {
        f.write(&format!("{deep}/{n}"), b"x").expect("written");
    }
    let found = f.search(&Search { matches_max: 1_000_000, ..search_of("y") }).expect("a search");
    assert_eq!(found.cut, Some(SearchCut::Files), "{}", found.files_searched);
    assert!(found.files_searched > 4_000, "{}", found.files_searched);
}

#[test]
fn what_is_not_searched_is_counted() {
    let f = Fixture::new();
    f.write("text", b"needle").expect("written");
    f.write("binary", b"needle\0").expect("written");
    f.write(
        "late",
        &[
            &b"needle
"[..],
            &b"x
"
            .repeat(100_000),
            b"\0",
        ]
        .concat(),
    )
    .expect("written");
    f.write("line", &b"needle ".repeat(1 << 20)).expect("written");
    f.write("secret", b"needle").expect("written");
    f.write("twice", b"needle").expect("written");
    f.as_session(|inside| {
        fs::set_permissions(inside.join("secret"), fs::Permissions::from_mode(0o000)).expect("chmod");
        fs::hard_link(inside.join("twice"), inside.join("twice too")).expect("link");
        nix::unistd::mkfifo(&inside.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("fifo");
    });
    let found = f.search(&search_of("needle")).expect("a search");
    assert_eq!(shown(&found), ["text:1:needle"]);
    assert_eq!(found.skipped, SkippedFiles { binary: 2, too_large: 1, unreadable: 3 });
    assert_eq!(found.files_searched, 1);
    assert_eq!(code(f.search(&Search { path: path("fifo"), ..search_of("x") })), ErrorCode::PathViolation);
    assert_eq!(code(f.search(&Search { path: path("twice"), ..search_of("x") })), ErrorCode::PathViolation);
    assert_eq!(code(f.search(&Search { path: path("gone"), ..search_of("x") })), ErrorCode::NotFound);
}

#[test]
fn a_result_is_bounded_and_says_so() {
    let f = Fixture::new();
    f.write("many", "hit\nmiss\nmiss\n".repeat(100).as_bytes()).expect("written");
    f.write("z", b"hit").expect("written");
    let found = f.search(&Search { matches_max: 2, context: 2, ..search_of("hit") }).expect("a search");
    let expected = ["many:1:hit", "many-2-miss", "many-3-miss", "many:4:hit", "many-5-miss", "many-6-miss"];
    assert_eq!((shown(&found), found.cut), (expected.map(String::from).to_vec(), Some(SearchCut::Matches)));
    let exact = f.search(&Search { matches_max: 101, ..search_of("hit") }).expect("a search");
    assert_eq!((exact.files.len(), exact.cut), (2, None));
    f.write("long", "x".repeat(100_000).as_bytes()).expect("written");
    let long = f.search(&search_of("xx$")).expect("a search");
    assert!(long.files[0].lines[0].text.len() < 1_100);
    f.write("lines", &b"y\n".repeat(100_000)).expect("written");
    let volume = f.search(&Search { matches_max: 200_000, ..search_of("y") }).expect("a search");
    assert_eq!((volume.cut, volume.files[0].lines.len()), (Some(SearchCut::Volume), 20_000));
}

#[test]
fn our_own_directory_is_searched_only_when_it_is_named() {
    let f = Fixture::new();
    for name in [".codegen/lib/x.py", "sub/.codegen/x.py", "x.py"] {
        f.write(name, b"needle").expect("written");
    }
    let paths = |at: &str| {
        let found = f.search(&Search { path: path(at), ..search_of("needle") }).expect("a search");
        found.files.into_iter().map(|file| file.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(""), ["sub/.codegen/x.py", "x.py"]);
    assert_eq!(paths(".codegen"), [".codegen/lib/x.py"]);
    assert_eq!(paths(".codegen/lib/x.py"), [".codegen/lib/x.py"]);
}

#[test]
fn nothing_outside_is_searched() {
    let f = Fixture::new();
    f.write("inside", b"nothing").expect("written");
    let outside = f.outside();
    f.as_session(|inside| {
        symlink(&outside, inside.join("directory")).expect("link");
        symlink(outside.join("secret"), inside.join("file")).expect("link");
        symlink("../../outside/secret", inside.join("relative")).expect("link");
        symlink("inside", inside.join("fine")).expect("link");
    });
    let found = f.search(&search_of(SECRET)).expect("a search");
    assert_eq!((found.files.len(), found.files_searched), (0, 1));
    for link in ["directory", "file", "relative", "directory/secret"] {
        assert_eq!(
            code(f.search(&Search { path: path(link), ..search_of(SECRET) })),
            ErrorCode::PathViolation,
            "{link}"
        );
    }
    let through = f.search(&Search { path: path("fine"), ..search_of("nothing") }).expect("a search");
    assert_eq!(shown(&through), ["fine:1:nothing"]);
}
