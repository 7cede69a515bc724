//! Hosts on the list that do what no honest host does: the worker bears it, and other sessions do not notice.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use e2e::{User, poll_until};
use rustix::net::sockopt::set_socket_linger;
use serde_json::json;

use crate::rig::{LONG, Rig, begin, finish, python};
use crate::upstream::{FLOOD_BYTES_MAX, Flood, Upstream, answer, flood, head, say};

/// What a worker may take more while hosts flood it, in bytes.
const GROWTH_BYTES_MAX: usize = 32 << 20;
/// Connections to each host that floods.
const OF_EACH: usize = 8;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
/// What only announces an answer.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// The head of an answer in chunks.
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What comes of an answer whose body is not whole.
const BROKEN_OFF: &str = "broken off";

/// Asks through the proxy, and says what came of it: a status and a body, or that it broke off.
const GET: &str = "import http.client\n\
    def get(host, line=None, path='/'):\n    \
        line = line or http.client.HTTPConnection('127.0.0.1', 3128, timeout=60)\n    \
        try:\n        \
            line.request('GET', f'http://{host}{path}')\n        \
            answer = line.getresponse()\n        \
            try: return f'{answer.status} {answer.read().decode().strip()}'\n        \
            except (http.client.HTTPException, OSError, ValueError): return f'{answer.status} broken off'\n    \
        except (http.client.HTTPException, OSError): return 'broken off'\n";

/// The memory of a process, in bytes.
fn resident_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

#[test]
fn an_answer_that_is_none_is_told_as_that_and_no_answer_is_given_to_another_request() {
    let rig = Rig::new(User::Myself);
    let endless = Arc::<Flood>::default();
    let said = |bytes: &'static [u8]| Upstream::serve(say(bytes));
    let in_chunks = |chunk: &str| Upstream::serve(say([CHUNKED, chunk.as_bytes()].concat().leak()));
    let flooding = |first: &'static [u8], again| Upstream::serve(flood(first, again, &endless));
    let hosts = [
        ("no answer", said(b""), "502 "),
        ("no HTTP", said(b"hello\r\n\r\n"), "502 "),
        ("a head that is cut", said(b"HTTP/1.1 200 OK\r\nContent-"), "502 "),
        ("a head without end", flooding(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"), "502 "),
        ("a header without end", flooding(b"HTTP/1.1 200 OK\r\nX: ", b"xxxx"), "502 "),
        ("announcements without end", flooding(b"", CONTINUE), "502 "),
        ("a folded header", said(b"HTTP/1.1 200 OK\r\nX: x\r\n y\r\nContent-Length: 0\r\n\r\n"), "502 "),
        ("two lengths", said(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), "502 "),
        ("another protocol", said(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "502 "),
        ("a body that is cut", said(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst"), BROKEN_OFF),
        ("a body that is reset", Upstream::serve(reset), BROKEN_OFF),
        ("a chunk beyond all", in_chunks("ffffffffffffffff1\r\nx"), BROKEN_OFF),
        ("a chunk that never ends", in_chunks("fffffffffffffff0\r\nx"), BROKEN_OFF),
        ("a line of a chunk without end", flooding([CHUNKED, b"1"].concat().leak(), b";x"), BROKEN_OFF),
        ("trailers without end", flooding([CHUNKED, b"0\r\n"].concat().leak(), b"X: x\r\n"), BROKEN_OFF),
    ];
    let plain = Upstream::serve(answer);
    let early = Upstream::serve(early);
    let all: Vec<_> = hosts.iter().map(|(what, upstream, _)| (what, upstream.host())).collect();
    let names: Vec<_> = all.iter().map(|(_, host)| host.clone()).chain([plain.host(), early.host()]).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    rig.permit(&names);
    let mut client = rig.client();
    let session = rig.session(&mut client, &names);
    let code = format!(
        "{GET}for what, host in {}: print(f'{{what}}: {{get(host)}}')\n\
         for n in range(20):\n    \
             line = http.client.HTTPConnection('127.0.0.1', 3128, timeout=60)\n    \
             print('early:', get('{}', line), '/', get('{}', line))\n\
         print('afterwards:', get('{}'))\n",
        json!(all),
        early.host(),
        plain.host(),
        plain.host()
    );
    let task = begin(&mut client, &session, &code);
    let text = finish(&mut client, &task);
    for (what, upstream, expected) in &hosts {
        let outcome = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        assert!(
            outcome.is_some_and(|outcome| outcome.starts_with(expected) || outcome == format!("200 {expected}")),
            "{what}: {text}"
        );
        poll_until("the worker is through with a host", LONG, || upstream.is_left_alone().then_some(()));
    }
    assert!(endless.sent_bytes.load(Ordering::Relaxed) < FLOOD_BYTES_MAX, "none was heard to its end");
    let second = |line: &str| line.ends_with("/ 200 ok") || line.ends_with("/ broken off");
    let early: Vec<_> = text.lines().filter(|line| line.starts_with("early:")).collect();
    assert!(early.len() == 20 && early.iter().all(|line| second(line) && !line.contains("second")), "{text}");
    assert!(text.contains("afterwards: 200 ok"), "{text}");
}

/// Answers twice before it is asked.
fn early(stream: &mut TcpStream) -> Vec<u8> {
    let one = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all((one("first") + &one("second")).as_bytes());
    head(stream)
}

/// Breaks off in the midst of an answer.
fn reset(stream: &mut TcpStream) -> Vec<u8> {
    let heard = say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")(stream);
    set_socket_linger(&*stream, Some(Duration::ZERO)).expect("an option");
    heard
}

#[test]
fn floods_of_hosts_take_little_of_a_worker_hold_up_no_other_session_and_end_with_who_asked() {
    let rig = Rig::new(User::Myself);
    let (unread, read) = (Arc::<Flood>::default(), Arc::<Flood>::default());
    let floods = [
        Upstream::serve(flood(CHUNKED, b"10\r\n0123456789abcdef\r\n", &unread)),
        Upstream::serve(flood(OK, b"0123456789abcdef", &unread)),
        Upstream::serve(flood(b"", CONTINUE, &read)),
    ];
    let plain = Upstream::serve(answer);
    let hosts: Vec<_> = floods.iter().chain([&plain]).map(Upstream::host).collect();
    let names: Vec<_> = hosts.iter().map(String::as_str).collect();
    rig.permit(&names);
    let mut client = rig.client();
    let (flooded, neighbour) = (rig.session(&mut client, &names), rig.session(&mut client, &[&plain.host()]));
    let ask = format!("{GET}print(get('{}'))", plain.host());
    for session in [&flooded, &neighbour] {
        assert!(python(&mut client, session, &ask).contains("200 ok"), "it is there before");
    }
    let worker = rig.worker_pid();
    let before = resident_bytes(worker);
    // None is read by who asked for it, so that what comes has to wait somewhere.
    let code = format!(
        "import os, socket, time\nlines = []\n\
         for host in {} * {OF_EACH}:\n    \
             lines.append(socket.create_connection(('127.0.0.1', 3128), timeout=60))\n    \
             lines[-1].sendall(f'GET http://{{host}}/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'.encode())\n\
         while not os.path.exists('go'): time.sleep(0.02)\n",
        json!(hosts[..3])
    );
    let task = begin(&mut client, &flooded, &code);
    let is_flooded = || {
        let is_full = unread.sent_bytes.load(Ordering::Relaxed) >= FLOOD_BYTES_MAX;
        let is_blocked = unread.blocked.load(Ordering::Relaxed) == 2 * OF_EACH;
        (is_full || is_blocked) && floods.iter().all(|flood| flood.begun() == OF_EACH)
    };
    poll_until("all that can be taken of the floods is", LONG, || is_flooded().then_some(()));
    let text = python(&mut client, &neighbour, &ask);
    assert!(text.contains("200 ok"), "another session reaches its host meanwhile: {text}");
    let grown = resident_bytes(worker).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the worker has grown by {grown} bytes");
    client.tool("fs_write", json!({"session_id": flooded, "path": "go", "contents": ""})).ok();
    finish(&mut client, &task);
    for flood in &floods {
        poll_until("a flood is broken off", LONG, || flood.is_left_alone().then_some(()));
        assert_eq!(flood.begun(), OF_EACH);
    }
    assert!(python(&mut client, &flooded, &ask).contains("200 ok"), "its session goes on");
}
