//! What sessions reach outside: the hosts on their list, by the worker's proxy, and nothing else.

mod changes;
mod connections;
mod hostile;
mod neighbours;
mod redirects;
mod requests;
mod rig;
mod secrets;
mod tunnels;
mod upstream;
mod upstreams;
mod workers;

use e2e::User;
use rig::{ASK, Rig, python};
use serde_json::json;

#[test]
fn a_session_reaches_the_hosts_on_its_list_and_no_other_and_each_contact_is_in_the_log() {
    for user in User::all() {
        let rig = Rig::new(user);
        let mut client = rig.client();
        let (encrypted, plain, foreign) = (rig.encrypted.host(), rig.plain.host(), rig.foreign.host());
        let session = rig.session(&mut client, &[&encrypted, &plain]);
        let code = format!(
            "{ASK}for url in ('https://{encrypted}/a', 'http://{plain}/b?c=d', 'http://{foreign}/', 'https://{foreign}/'):\n    \
             print(url, *ask(url, data=b'x' * 10))\n"
        );
        let text = python(&mut client, &session, &code);
        assert!(
            text.contains(&format!("https://{encrypted}/a 200 {{\"method\": \"POST\", \"path\": \"/a\"")),
            "{text}"
        );
        assert!(
            text.contains(&format!("http://{plain}/b?c=d 200 {{\"method\": \"POST\", \"path\": \"/b?c=d\"")),
            "{text}"
        );
        assert!(text.contains(&format!("http://{foreign}/ 403 {foreign} is not on the list of hosts")), "{text}");
        assert!(text.contains(&format!("https://{foreign}/ 0 ")) && text.contains("403"), "{text}");
        let described = client.tool("session_info", json!({"session_id": session}));
        let mut listed = [encrypted.clone(), plain.clone()];
        // Ports are compared as numbers, of which these have five digits.
        listed.sort();
        assert_eq!(described.structured["network"], json!(listed));
        let receipt = &described.structured["receipt"];
        let [reached, refused] = ["hosts", "hosts_refused"].map(|name| receipt[name].to_string());
        assert!(reached.contains(&encrypted) && !reached.contains(&foreign) && refused.contains(&foreign), "{receipt}");
        assert!(described.text.contains(&format!("{foreign} (refused)")), "{}", described.text);
        let created = rig.records("session.created");
        assert!(created[0]["args"]["network"]["allow"].to_string().contains(&encrypted), "{created:?}");
        let outcomes = rig.records("task.outcome");
        let contacts = outcomes.iter().find_map(|record| record["detail"]["contacts"].as_array()).expect("contacts");
        let of = |host: &str| contacts.iter().find(|contact| contact["host"] == host).expect(host).clone();
        assert_eq!(
            (of(&encrypted)["outcome"].clone(), of(&foreign)["outcome"].clone()),
            (json!("reached"), json!("refused"))
        );
        assert_eq!(of(&foreign)["connections"], 2, "{contacts:?}");
        assert!(of(&encrypted)["sent_bytes"].as_u64() > Some(100) && of(&plain)["received_bytes"].as_u64() > Some(100));
    }
}

#[test]
fn a_session_without_a_list_has_no_proxy_and_what_the_operator_does_not_permit_is_refused() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let foreign = rig.foreign.host();
    let refused = client.tool("session_create", json!({"network": {"allow": [foreign, "169.254.169.254:80"]}}));
    let text = refused.code("PERMISSION_DENIED");
    assert!(
        text.contains(&foreign) && text.contains(&rig.plain.host()),
        "it says what is denied and permitted: {text}"
    );
    for bad in ["https://a.example", "*.example.com", "a b", "a:0", ""] {
        client.tool("session_create", json!({"network": {"allow": [bad]}})).code("INVALID_ARGUMENT");
    }
    let made = client.tool("session_create", json!({}));
    let session = made.structured["session_id"].as_str().expect("a handle");
    let code = "import os, socket\nprint([n for n in os.environ if 'prox' in n.lower()])\ns = socket.socket()\n\
        try: s.connect(('127.0.0.1', 3128)); print('REACHED')\nexcept OSError as error: print('refused', error)\n";
    let text = python(&mut client, session, code);
    assert!(text.contains("[]") && text.contains("refused") && !text.contains("REACHED"), "{text}");
}

#[test]
fn the_list_of_a_session_holds_after_its_worker_and_server_were_killed() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let plain = rig.plain.host();
    let session = rig.session(&mut client, &[&plain]);
    let code = format!("{ASK}print(*ask('http://{plain}/x'), *ask('http://{}/'))", rig.foreign.host());
    for _ in 0..2 {
        let text = python(&mut client, &session, &code);
        assert!(text.contains("200 {\"method\": \"GET\", \"path\": \"/x\"") && text.contains("403"), "{text}");
        drop(client);
        rig.installation.kill_server();
        client = rig.client();
    }
}
