//! Workspace files as resources, over the real binary: what is listed, read, told and completed.

use e2e::{Client, Installation};
use serde_json::{Value, json};

fn session_of(client: &mut Client) -> String {
    let made = client.tool("session_create", json!({}));
    made.structured["session_id"].as_str().expect("a handle").to_owned()
}

fn write(client: &mut Client, session: &str, path: &str, contents: &str) {
    client.tool("fs_write", json!({"session_id": session, "path": path, "contents": contents})).ok();
}

fn read(client: &mut Client, uri: &str) -> Value {
    client.request("resources/read", json!({"uri": uri}))
}

fn complete(client: &mut Client, session: &str, begun: &str) -> Value {
    let params = json!({
        "ref": {"type": "ref/resource", "uri": "workspace://{session}/{+path}"},
        "argument": {"name": "path", "value": begun},
        "context": {"arguments": {"session": session}},
    });
    client.request("completion/complete", params)["result"]["completion"].clone()
}

#[test]
fn files_are_listed_page_by_page_and_read_by_their_addresses() {
    let installation = Installation::new();
    let mut client = installation.client();
    let session = session_of(&mut client);
    let make = "for n in range(300): open(f'{n:03}.csv', 'w').write('é,1\\n')\n\
                import os\nos.makedirs('a b/.git'); os.mkdir('.hidden')\n\
                open('.hidden/x', 'w'); open('a b/.git/x', 'w'); open('a b/#.bin', 'wb').write(b'\\xff\\x00')\n\
                open('big', 'w').truncate(5 << 20); os.symlink('/etc/passwd', 'passwd')";
    client.tool("run_python", json!({"session_id": session, "code": make})).ok();
    let mut listed = Vec::new();
    let mut params = json!({});
    loop {
        let page = client.request("resources/list", params.clone())["result"].clone();
        listed.extend(page["resources"].as_array().expect("resources").clone());
        match page.get("nextCursor") {
            Some(cursor) => params = json!({"cursor": cursor}),
            None => break,
        }
    }
    let names: Vec<&str> = listed.iter().filter_map(|resource| resource["name"].as_str()).collect();
    assert_eq!((names.len(), names[0], names[300], names[301]), (302, "000.csv", "a b/#.bin", "big"), "{names:?}");
    assert_eq!((&listed[0]["mimeType"], &listed[0]["size"]), (&json!("text/csv"), &json!(5)));
    assert!(listed[0]["annotations"]["lastModified"].is_string(), "{}", listed[0]);
    let text = read(&mut client, listed[0]["uri"].as_str().unwrap());
    assert_eq!(text["result"]["contents"][0]["text"], "é,1\n", "{text}");
    assert_eq!(listed[300]["uri"], format!("workspace://{session}/a%20b/%23.bin"));
    let blob = read(&mut client, listed[300]["uri"].as_str().unwrap());
    assert_eq!(blob["result"]["contents"][0]["blob"], "/wA=", "{blob}");
    let directory = read(&mut client, &format!("workspace://{session}/a%20b"));
    assert_eq!(directory["result"]["contents"][0]["text"], "a b/#.bin (2 B)\na b/.git/\n", "{directory}");
    let large = read(&mut client, &format!("workspace://{session}/big"));
    assert!(large["error"]["message"].as_str().is_some_and(|text| text.contains("fs_read")), "{large}");
    for (path, code) in [("none", "NOT_FOUND"), ("passwd", "PATH_VIOLATION"), ("../x", "PATH_VIOLATION")] {
        let refused = read(&mut client, &format!("workspace://{session}/{path}"));
        assert_eq!(refused["error"]["data"]["code"], code, "{refused}");
    }
}

#[test]
fn paths_are_completed_as_they_are_written() {
    let installation = Installation::new();
    let mut client = installation.client();
    let session = session_of(&mut client);
    for path in ["data/in.csv", "data/[x],{y}*.csv", "data/.hidden", "dates.txt", "other"] {
        write(&mut client, &session, path, "");
    }
    let values = |client: &mut Client, begun: &str| complete(client, &session, begun)["values"].clone();
    let below = ["data/", "data/[x],{y}*.csv", "data/in.csv", "dates.txt"];
    assert_eq!(values(&mut client, "dat"), json!(below));
    assert_eq!(values(&mut client, "data/["), json!(["data/[x],{y}*.csv"]));
    assert_eq!(values(&mut client, "data/[x],{"), json!(["data/[x],{y}*.csv"]));
    assert_eq!(values(&mut client, "data/."), json!(["data/.hidden"]));
    for nothing in ["no", "../", "*", "data/in.csv/x", "a\0", &"x/".repeat(50_000)] {
        assert_eq!(values(&mut client, nothing), json!([]), "{nothing:.20}");
    }
    let many = "for n in range(150): open(f'many{n:03}', 'w')";
    client.tool("run_python", json!({"session_id": session, "code": many})).ok();
    let found = complete(&mut client, &session, "many");
    assert_eq!((found["values"].as_array().map(Vec::len), &found["hasMore"]), (Some(100), &json!(true)));
}

#[test]
fn a_subscriber_is_told_after_a_write_and_while_a_program_runs() {
    let installation = Installation::new();
    let mut client = installation.client();
    let session = session_of(&mut client);
    let uri = format!("workspace://{session}/run.log");
    assert_eq!(client.request("resources/subscribe", json!({"uri": uri}))["result"], json!({}));
    write(&mut client, &session, "run.log", "begun");
    let update = client.notification("notifications/resources/updated");
    assert_eq!(update["params"]["uri"], uri);
    client.notification("notifications/resources/list_changed");
    let code = "import os, time\nopen('run.log', 'a').write('.')\nwhile not os.path.exists('go'): time.sleep(0.02)";
    let id = client.start_tool("run_python", json!({"session_id": session, "code": code, "timeout_seconds": 60}));
    client.notification("notifications/resources/updated");
    assert_eq!(read(&mut client, &uri)["result"]["contents"][0]["text"], "begun.", "it is told while it runs");
    write(&mut client, &session, "go", "");
    client.tool_answer(id).ok();
    assert_eq!(client.request("resources/unsubscribe", json!({"uri": uri}))["result"], json!({}));
    client.tool("session_close", json!({"session_id": session})).ok();
    let gone = read(&mut client, &uri);
    assert_eq!(gone["error"]["code"], -32002, "{gone}");
}

#[test]
fn a_read_is_in_the_log_with_its_path() {
    let installation = Installation::new();
    let mut client = installation.client();
    let session = session_of(&mut client);
    write(&mut client, &session, "a.txt", "x");
    read(&mut client, &format!("workspace://{session}/a.txt"));
    read(&mut client, "workspace://ses_x/../../etc/passwd");
    let query = installation.run(["audit", "query", "--json"]);
    let said = String::from_utf8_lossy(&query.stdout);
    let records: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let of_reads: Vec<&Value> = records.iter().filter(|record| record["tool"] == "resources/read").collect();
    let types: Vec<&str> = of_reads.iter().filter_map(|record| record["type"].as_str()).collect();
    assert_eq!(types, ["task.attempt", "task.outcome", "call.refused"], "{of_reads:?}");
    assert_eq!((&of_reads[1]["path"], &of_reads[1]["outcome"]), (&json!("a.txt"), &json!("ok")));
}
