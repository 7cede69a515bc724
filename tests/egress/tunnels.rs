//! TLS in tunnels: it is for the host that the tunnel is for, or it does not pass, and the log says so.

use e2e::User;
use serde_json::json;

use crate::rig::{Rig, begin, finish, python};
use crate::upstream::{Upstream, repeat};

const GREETINGS: &str = include_str!("programs/greetings.py");

#[test]
fn a_greeting_for_another_host_than_the_tunnels_is_refused_and_the_log_says_so() {
    let rig = Rig::new(User::Myself);
    let (named, addressed) = (Upstream::at("127.0.0.1", repeat), Upstream::serve(repeat));
    let (name, address) = (named.host_by("localhost"), addressed.host());
    rig.permit(&[&name, &address]);
    let mut client = rig.client();
    let session = rig.session(&mut client, &[&name, &address]);
    let task = begin(&mut client, &session, &format!("NAMED, ADDRESSED = {name:?}, {address:?}\n{GREETINGS}"));
    let text = finish(&mut client, &task);
    let outcome = |what: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{what}: {text}")).to_owned()
    };
    let passed = [
        "the right name",
        "the right name in capitals",
        "the right name byte by byte",
        "the right name in many records",
        "20,000 further bytes",
        "no TLS",
    ];
    for what in passed.iter().chain(&["an address without a name"]) {
        assert_eq!(outcome(what), "passed", "{what}: {text}");
    }
    let refused = [
        "another name",
        "another name byte by byte",
        "another name in many records",
        "no name",
        "no name byte by byte",
        "two names",
        "the name of a name below",
        "a name twice",
        "a greeting that ends too soon",
        "an alert before a greeting",
        "40,000 further bytes",
        "a greeting without end",
    ];
    for what in refused.iter().chain(&["a name for an address"]) {
        assert!(["refused", "broken off"].contains(&outcome(what).as_str()), "{what}: {text}");
    }
    assert_eq!(outcome("another name"), "refused", "who listens is told why: {text}");
    let heard = |host: &Upstream| host.heard().iter().filter(|bytes| !bytes.is_empty()).count();
    assert_eq!((heard(&named), heard(&addressed)), (passed.len(), 1), "nothing passes of what is refused");
    let count = |host: &str, outcome: &str| rig.connections(host, outcome);
    assert_eq!(count(&name, "refused"), refused.len() as u64);
    assert_eq!(count(&address, "refused"), 1);
    assert_eq!(count(&name, "reached"), (passed.len() + refused.len()) as u64);
}

#[test]
fn where_the_proxy_stands_for_a_host_no_other_name_is_taken_and_the_log_says_so() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let host = rig.encrypted.host();
    rig.keep("token", &host, "value");
    let made = client.tool("session_create", json!({"network": {"allow": [host], "secrets": ["token"]}}));
    made.ok();
    let session = made.structured["session_id"].as_str().expect("a handle").to_owned();
    let code = format!(
        "import socket, ssl\n\
         context = ssl.create_default_context()\n\
         context.check_hostname = False\n\
         def ask(name, path):\n    \
             line = socket.create_connection(('127.0.0.1', 3128), timeout=60)\n    \
             line.sendall(b'CONNECT {host} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n')\n    \
             assert b' 200 ' in line.recv(4096)\n    \
             try:\n        \
                 line = context.wrap_socket(line, server_hostname=name)\n        \
                 line.sendall(f'GET {{path}} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n'.encode())\n        \
                 return line.recv(4096).split(b'\\r\\n')[0].decode() or 'closed'\n    \
             except OSError: return 'closed'\n\
         print('other', ask('other.example', '/other'))\n\
         print('right', ask('127.0.0.2', '/right'))\n"
    );
    let text = python(&mut client, &session, &code);
    assert!(text.contains("other closed") && text.contains("right HTTP/1.1 200"), "{text}");
    assert_eq!(rig.encrypted.log(), ["GET /right"]);
    assert_eq!((rig.connections(&host, "refused"), rig.connections(&host, "reached")), (1, 1));
}
