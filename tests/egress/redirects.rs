//! Hosts on the list that send a session on to where it may not go, or to where its secrets may not.

use e2e::User;
use serde_json::json;

use crate::rig::{ASK, Rig, python};
use crate::secrets::VALUE;

#[test]
fn a_host_on_the_list_leads_to_no_other_by_sending_the_session_on() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let (plain, encrypted, foreign) = (rig.plain.host(), rig.encrypted.host(), rig.foreign.host());
    let session = rig.session(&mut client, &[&plain, &encrypted]);
    let code = format!(
        "{ASK}for way in ('http://{plain}', 'https://{encrypted}'):\n    \
             for to in ('http://{foreign}/', 'http://169.254.169.254/', 'http://127.0.0.1:{}/', 'http://{plain}/end'):\n        \
                 print(way, to, *ask(f'{{way}}/to/{{to}}'))\n",
        rig.foreign.port()
    );
    let text = python(&mut client, &session, &code);
    for way in [format!("http://{plain}"), format!("https://{encrypted}")] {
        for to in [&*foreign, "169.254.169.254"] {
            assert!(text.contains(&format!("{way} http://{to}/ 403 {to}")), "{way}, {to}: {text}");
        }
        assert!(
            text.contains(&format!("{way} http://127.0.0.1:{}/ 0 ", rig.foreign.port())),
            "its own loopback: {text}"
        );
        assert!(text.contains(&format!("{way} http://{plain}/end 200")), "what is on the list is reached: {text}");
    }
    assert_eq!(rig.foreign.log(), [""; 0]);
    assert_eq!(rig.connections(&foreign, "refused"), 2, "each is in the log");
}

#[test]
fn a_secret_does_not_follow_a_request_that_is_sent_on_to_another_host() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let (plain, encrypted) = (rig.plain.host(), rig.encrypted.host());
    rig.keep("token", &encrypted, VALUE);
    let network = json!({"network": {"allow": [plain, encrypted], "secrets": ["token"]}});
    let made = client.tool("session_create", network);
    made.ok();
    let session = made.structured["session_id"].as_str().expect("a handle").to_owned();
    let code = format!(
        "import urllib.request\n\
         def ask(url): return urllib.request.urlopen(url, timeout=20).read().decode()\n\
         print('at its host:', 'x-token' in ask('https://{encrypted}/').lower())\n\
         print('sent on:', ask('https://{encrypted}/to/http://{plain}/end'))\n"
    );
    let text = python(&mut client, &session, &code);
    assert!(text.contains("at its host: True"), "{text}");
    let (_, sent_on) = text.split_once("sent on: ").unwrap_or_else(|| panic!("{text}"));
    assert!(sent_on.contains("\"path\": \"/end\""), "the other host answered: {text}");
    assert!(!sent_on.to_ascii_lowercase().contains("x-token") && !sent_on.contains(VALUE), "{text}");
}
