//! Sessions that want to go out by the proxy of another one, which helps them.

use e2e::User;
use serde_json::json;

use crate::rig::{Rig, begin, finish, written};
use crate::upstream::{Upstream, answer};

const ACCOMPLICE: &str = include_str!("programs/accomplice.py");
const TRESPASS: &str = include_str!("programs/trespass.py");

#[test]
fn no_session_goes_out_by_the_proxy_of_another_that_helps_it() {
    let rig = Rig::new(User::Myself);
    let (wanted, other) = (Upstream::serve(answer), Upstream::serve(answer));
    let (host, others) = (wanted.host(), other.host());
    rig.permit(&[&host, &others]);
    let mut client = rig.client();
    let listed = rig.session(&mut client, &[&host]);
    let otherwise = rig.session(&mut client, &[&others]);
    let bare = client.tool("session_create", json!({})).structured["session_id"].as_str().expect("a handle").to_owned();
    let accomplice = begin(&mut client, &listed, ACCOMPLICE);
    let facts = written(&mut client, &listed, "facts.json");
    assert!(facts.contains("way-out") && facts.contains("HTTP_PROXY"), "{facts}");
    let code = format!("import json\nHOST, FACTS = {host:?}, json.loads({})\n{TRESPASS}", json!(facts));
    for session in [&bare, &otherwise] {
        let task = begin(&mut client, session, &code);
        let text = finish(&mut client, &task);
        assert!(text.contains("all ways were tried") && !text.contains("reached"), "{text}");
    }
    assert_eq!(wanted.begun(), 0, "nobody has asked it for anything yet");
    // The same program finds every one of these ways where they are.
    let task = begin(&mut client, &listed, &code);
    let text = finish(&mut client, &task);
    for way in ["port 3128", "address 0.0.0.0", "socket '/tmp/way-out'", "environment"] {
        assert!(text.contains(&format!("reached by {way}")), "{way}: {text}");
    }
    client.tool("fs_write", json!({"session_id": listed, "path": "go", "contents": ""})).ok();
    finish(&mut client, &accomplice);
}
