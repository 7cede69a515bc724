//! Programs that try to get more out of the proxy than the list gives.

use e2e::User;
use serde_json::json;

use crate::rig::{Rig, python};

/// Says something to the proxy and gives the first line of its answer.
const SAY: &str = "import socket\n\
    def say(text, more=b''):\n    \
        s = socket.create_connection(('127.0.0.1', 3128), timeout=20)\n    \
        s.sendall(text.encode('latin-1') if isinstance(text, str) else text)\n    \
        try: return s.recv(4096).split(b'\\r\\n')[0].decode() or 'closed'\n    \
        except OSError as error: return 'closed'\n";

#[test]
fn no_spelling_of_an_address_gets_past_the_list() {
    let rig = Rig::with(User::Myself, |origin| format!("localhost:{}, 0x7f.1:{}", origin.port(), origin.port()));
    let mut client = rig.client();
    let (plain, port) = (rig.plain.host(), rig.foreign.port());
    // Permitted as public hosts, which their addresses are not.
    let session = rig.session(&mut client, &[&plain, &format!("localhost:{port}"), &format!("0x7f.1:{port}")]);
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "0",
        "0.0.0.0",
        "localhost.",
        "localhost",
        "0x7f.1",
        "user@127.0.0.2",
        "169.254.169.254",
    ];
    let code = format!(
        "{SAY}for host in {}:\n    for line in ('CONNECT %s:{port} HTTP/1.1', 'GET http://%s:{port}/ HTTP/1.1'):\n        \
         print(host, say((line % host) + '\\r\\nHost: x\\r\\n\\r\\n'))\n",
        json!(hosts)
    );
    let text = python(&mut client, &session, &code);
    for line in text.lines().filter(|line| hosts.iter().any(|host| line.starts_with(&format!("{host} ")))) {
        assert!(line.contains("HTTP/1.1 40"), "{line}");
    }
    assert_eq!(text.matches("HTTP/1.1 40").count(), 2 * hosts.len(), "{text}");
}

#[test]
fn what_is_no_request_for_a_host_on_the_list_is_refused_and_the_session_goes_on() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let plain = rig.plain.host();
    let session = rig.session(&mut client, &[&plain]);
    let foreign = rig.foreign.host();
    let code = format!(
        "{SAY}print('relative', say('GET / HTTP/1.1\\r\\nHost: {plain}\\r\\n\\r\\n'))\n\
         print('scheme', say('GET ftp://{plain}/ HTTP/1.1\\r\\nHost: {plain}\\r\\n\\r\\n'))\n\
         print('huge', say('GET http://{plain}/ HTTP/1.1\\r\\nX: ' + 'x' * 20000 + '\\r\\n\\r\\n'))\n\
         print('junk', say(bytes(range(256)) * 40))\n\
         smuggled = 'GET http://{foreign}/smuggled HTTP/1.1\\r\\nHost: {foreign}\\r\\n\\r\\n'\n\
         both = 'POST http://{plain}/ HTTP/1.1\\r\\nHost: {foreign}\\r\\nContent-Length: %d\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n'\n\
         print('smuggled', say(both % (5 + len(smuggled)) + smuggled))\n\
         many = [socket.create_connection(('127.0.0.1', 3128), timeout=20) for _ in range(100)]\n\
         [s.close() for s in many]\n\
         print('after', say('GET http://{plain}/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'))\n\
         for family, kind in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)):\n    \
         s = socket.socket(family, kind); s.settimeout(2)\n    \
         try: s.connect(('8.8.8.8', 53)); s.send(b'x'); print('REACHED')\n    \
         except OSError as error: print('direct', error.errno)\n"
    );
    let text = python(&mut client, &session, &code);
    for (what, answer) in [("relative", "40"), ("scheme", "40"), ("huge", "431"), ("junk", "400"), ("after", "200")] {
        let line = text.lines().find(|line| line.starts_with(what)).unwrap_or_else(|| panic!("{what}: {text}"));
        assert!(line.contains(&format!("HTTP/1.1 {answer}")) || (what == "junk" && line.contains("closed")), "{line}");
    }
    assert!(text.matches("direct").count() == 2 && !text.contains("REACHED"), "{text}");
    let (log, foreign_log) = (rig.plain.log(), rig.foreign.log());
    assert!(log.iter().any(|line| line == "GET /") && !log.iter().any(|line| line.contains("/smuggled")), "{log:?}");
    assert_eq!(foreign_log, [""; 0], "what is not on the list gets nothing");
    let seen = rig.records("task.outcome");
    assert!(!seen.iter().any(|record| {
        let contacts = record["detail"]["contacts"].as_array();
        contacts.is_some_and(|all| all.iter().any(|one| one["host"] == foreign && one["outcome"] == "reached"))
    }));
}

#[test]
fn a_flood_of_requests_and_of_invented_hosts_keeps_no_neighbour_from_its_host_and_hides_none() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let plain = rig.plain.host();
    let (flooding, neighbour) = (rig.session(&mut client, &[&plain]), rig.session(&mut client, &[&plain]));
    let invented = format!(
        "{SAY}for n in range(200): say(f'CONNECT h{{n}}.example:443 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n\
         print('listed', say('GET http://{plain}/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'))\n"
    );
    let text = python(&mut client, &flooding, &invented);
    assert!(text.contains("listed HTTP/1.1 200"), "{text}");
    let seen = rig.records("task.outcome");
    let reached = seen
        .iter()
        .filter_map(|record| record["detail"]["contacts"].as_array())
        .flatten()
        .any(|contact| contact["host"] == plain && contact["outcome"] == "reached");
    assert!(reached, "the host that was reached is named: {seen:?}");
    let flood = format!(
        "{SAY}import threading\n\
         def flood():\n    \
             while True: say('GET http://{plain}/flood HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n\
         [threading.Thread(target=flood).start() for _ in range(40)]\n"
    );
    let begun = client.tool("run_python", json!({"session_id": flooding, "code": flood, "background": true}));
    let floods = || rig.plain.log().iter().filter(|line| line.contains("/flood")).count();
    let await_floods = |least: usize| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while floods() < least {
            assert!(std::time::Instant::now() < deadline, "the flood goes on: {}", floods());
            std::thread::yield_now();
        }
    };
    await_floods(100);
    let code = format!("{SAY}print(say('GET http://{plain}/neighbour HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'))\n");
    let text = python(&mut client, &neighbour, &code);
    assert!(text.contains("HTTP/1.1 200"), "{text}");
    await_floods(floods() + 50);
    client.tool("task_cancel", json!({"task_id": begun.meta["codegen/task_id"]})).ok();
}
