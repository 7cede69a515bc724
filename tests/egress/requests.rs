//! Requests that two readers could understand in two ways, that ask for another protocol, or that are no requests.

use e2e::User;
use serde_json::json;

use crate::rig::{Rig, begin, finish};
use crate::upstream::{Upstream, answer, hold};

/// Says each case on a connection of its own, and gives the status of each answer.
const TALK: &str = "import re, socket\n\
    def talk(said, rounds=1):\n    \
        line, heard = socket.create_connection(('127.0.0.1', 3128), timeout=60), b''\n    \
        try:\n        \
            for _ in range(rounds): line.sendall(said.encode('latin-1'))\n        \
            while more := line.recv(65536): heard += more\n    \
        except ConnectionError: pass\n    \
        return ' '.join(code.decode() for code in re.findall(rb'HTTP/1.1 (\\d+)', heard)) or 'closed'\n";

/// What a request must be answered with that nobody carries out.
const REFUSED: &[&str] = &["400", "closed"];

/// The hosts of the cases: one on the list for requests, one for tunnels, and one that is not on it.
struct Hosts {
    plain: Upstream,
    tunnelled: Upstream,
    foreign: Upstream,
}

/// What is said on one connection, and the answers that it may get.
type Case = (&'static str, String, &'static [&'static str]);

/// Several requests on one connection, and requests whose end is said in two ways or hidden.
fn of_many_readings(hosts: &Hosts) -> Vec<Case> {
    let (plain, foreign) = (hosts.plain.host(), hosts.foreign.host());
    let tunnelled = hosts.tunnelled.host();
    let get = |host: &str, path: &str| format!("GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let last = format!("GET http://{plain}/last HTTP/1.1\r\nHost: {plain}\r\nConnection: close\r\n\r\n");
    let smuggled = get(&foreign, "/smuggled");
    let post = |headers: &str| format!("POST http://{plain}/ HTTP/1.1\r\nHost: {plain}\r\n{headers}\r\n\r\n");
    let both = |first: &str, second: &str| format!("{}0\r\n\r\n{smuggled}", post(&format!("{first}\r\n{second}")));
    let length = format!("Content-Length: {}", 5 + smuggled.len());
    let chunked = "Transfer-Encoding: chunked";
    vec![
        ("pipelined", get(&plain, "/1") + &smuggled + &last, &["200 403 200"]),
        ("pipelined behind a body", post("Content-Length: 3") + "abc" + &smuggled + &last, &["200 403 200"]),
        ("pipelined behind chunks", post(chunked) + "3\r\nabc\r\n0\r\n\r\n" + &smuggled + &last, &["200 403 200"]),
        ("pipelined behind no tunnel", format!("CONNECT {foreign} HTTP/1.1\r\nHost: x\r\n\r\n{last}"), &["403 200"]),
        ("inside a tunnel", format!("CONNECT {tunnelled} HTTP/1.1\r\nHost: x\r\n\r\n{}", smuggled), &["200 200"]),
        ("length and chunks", both(&length, chunked), &["200"]),
        ("chunks and length", both(chunked, &length), &["200"]),
        ("two lengths", post(&format!("Content-Length: 0\r\n{length}")) + &smuggled, REFUSED),
        ("a list of lengths", post("Content-Length: 0, 0") + &smuggled, REFUSED),
        ("a length with a sign", post("Content-Length: +0") + &smuggled, REFUSED),
        ("a length beyond all", post("Content-Length: 18446744073709551617") + &smuggled, REFUSED),
        ("other coding", post("Transfer-Encoding: xchunked") + "0\r\n\r\n" + &smuggled, REFUSED),
        ("coding behind chunks", post("Transfer-Encoding: chunked, identity") + "0\r\n\r\n" + &smuggled, REFUSED),
        ("a space behind a name", post("Transfer-Encoding : chunked") + "0\r\n\r\n" + &smuggled, REFUSED),
        ("a folded header", post("X-A: a\r\n b: c") + &smuggled, REFUSED),
        ("a folded host", get(&plain, "/").replace("Host: ", "Host:\r\n ") + &smuggled, REFUSED),
        ("a folded coding", post("Transfer-Encoding:\r\n chunked") + "0\r\n\r\n" + &smuggled, REFUSED),
        ("a bare return", post("X-A: a\rTransfer-Encoding: chunked") + &smuggled, REFUSED),
        ("a zero byte", post("X-A: a\0b") + &smuggled, REFUSED),
    ]
}

/// Requests for another protocol or another host than the one that they name elsewhere, and none at all.
fn of_other_kinds(hosts: &Hosts) -> Vec<Case> {
    let (plain, foreign) = (hosts.plain.host(), hosts.foreign.host());
    let with = |line: &str, headers: &str| format!("{line} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
    let get = |headers: &str| with(&format!("GET http://{plain}/"), headers);
    let to = |target: &str| with(&format!("GET {target}"), "Host: x");
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: x\r\n")).collect::<String>() + "Host: x";
    let upgrade = |name: &str| get(&format!("Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {name}"));
    vec![
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(), REFUSED),
        ("HTTP/2 by upgrade", upgrade("h2c").replace("\r\n\r\n", "\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"), &["200"]),
        ("WebSocket", upgrade("websocket"), &["200"]),
        ("another host header", get(&format!("Host: {foreign}")), &["200"]),
        ("two host headers", get(&format!("Host: {plain}\r\nHost: {foreign}")), &["200"]),
        ("headers that are taken away", get("Host: x\r\nConnection: host, content-length"), &["200"]),
        ("64 headers", get(&many(62)), &["200"]),
        ("65 headers", get(&many(63)), &["431"]),
        ("a user before the host", to(&format!("http://{plain}@{foreign}/")), REFUSED),
        ("a host behind a number sign", to(&format!("http://{foreign}#@{plain}/")), &["400", "403", "closed"]),
        ("a host behind a backslash", to(&format!("http://{foreign}\\@{plain}/")), REFUSED),
        ("two targets", to(&format!("http://{plain}/ http://{foreign}/")), REFUSED),
        ("TRACE of a stranger", with(&format!("TRACE http://{foreign}/"), "Host: x"), &["403"]),
        ("another method", with(&format!("SMUGGLE http://{foreign}/"), &format!("Host: {plain}")), &["403"]),
        ("a small connect", with(&format!("connect {foreign}"), "Host: x"), &["405"]),
        ("everything", with("OPTIONS *", &format!("Host: {foreign}")), &["405"]),
        ("https in plain", to(&format!("https://{plain}/")), &["405"]),
        ("a tunnel without a port", with("CONNECT 127.0.0.2", "Host: x"), REFUSED),
    ]
}

/// That what an allowed host heard on one connection is one request for it, which ends where everybody sees it end.
fn assert_one_request(heard: &[u8], host: &str) {
    let text = String::from_utf8_lossy(heard).to_ascii_lowercase();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {text}"));
    let of = |name: &str| head.lines().filter(|line| line.starts_with(&format!("{name}:"))).count();
    assert!(head.split(' ').nth(1).is_some_and(|target| target.starts_with('/')), "{text}");
    assert!(of("host") == 1 && head.contains(&format!("host: {host}")), "{text}");
    assert!(of("content-length") + of("transfer-encoding") <= 1, "{text}");
    assert_eq!(of("upgrade") + of("http2-settings") + of("connection"), 0, "{text}");
    let is_chunked = of("transfer-encoding") == 1;
    assert!(["", "abc"].contains(&body) || (is_chunked && body.ends_with("0\r\n\r\n")), "{text}");
    assert!(!text.contains("smuggled"), "{text}");
}

#[test]
fn no_request_reaches_a_host_by_another_reading_and_every_host_gets_one_that_reads_one_way() {
    let rig = Rig::new(User::Myself);
    let hosts =
        Hosts { plain: Upstream::serve(answer), tunnelled: Upstream::serve(answer), foreign: Upstream::serve(hold) };
    let (plain, tunnelled, foreign) = (hosts.plain.host(), hosts.tunnelled.host(), hosts.foreign.host());
    rig.permit(&[&plain, &tunnelled]);
    let mut client = rig.client();
    let session = rig.session(&mut client, &[&plain, &tunnelled]);
    let cases = [of_many_readings(&hosts), of_other_kinds(&hosts)].concat();
    let said: Vec<_> = cases.iter().map(|(what, said, _)| (what, said)).collect();
    let code = format!(
        "{TALK}for what, said in {}: print(f'{{what}}: {{talk(said)}}')\n\
         print('a header without end:', talk('GET http://{plain}/ HTTP/1.1\\r\\nX: ' + 'x' * (1 << 20), rounds=64))\n\
         print('headers without end:', talk('GET http://{plain}/ HTTP/1.1\\r\\n' + 'X: x\\r\\n' * (1 << 17), rounds=64))\n\
         print('afterwards:', talk('GET http://{plain}/ HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'))\n",
        json!(said)
    );
    let task = begin(&mut client, &session, &code);
    let text = finish(&mut client, &task);
    let outcome = |what: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{what}: {text}")).to_owned()
    };
    for (what, said, expected) in &cases {
        assert!(expected.contains(&outcome(what).as_str()), "{what}: {expected:?}, not {}: {said}", outcome(what));
    }
    for what in ["a header without end", "headers without end"] {
        assert!(["431", "closed"].contains(&outcome(what).as_str()), "{what}: {text}");
    }
    assert_eq!(outcome("afterwards"), "200", "the session goes on");
    assert_eq!(hosts.foreign.begun(), 0, "what is not on the list gets not even a connection");
    let heard = hosts.plain.heard();
    assert!(heard.len() > 15, "{}", heard.len());
    heard.iter().for_each(|heard| assert_one_request(heard, &plain));
    assert!(rig.connections(&foreign, "refused") >= 7, "each is in the log");
    assert_eq!(rig.connections(&foreign, "reached") + rig.connections(&foreign, "failed"), 0);
}
