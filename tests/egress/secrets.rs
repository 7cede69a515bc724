//! Secrets that the proxy puts into requests, and that nothing inside ever has.

use std::path::Path;

use e2e::{User, descendants};
use serde_json::json;

use crate::rig::{Rig, python};

pub const VALUE: &str = "correct-horse-battery-staple";
const PAGE_BYTES: usize = 4096;
static EMPTY: [u8; 2 * PAGE_BYTES] = [0; 2 * PAGE_BYTES];
/// Asks with what the environment says that is to be trusted.
const TRUSTING: &str = "import json, os, ssl, urllib.request, urllib.error\n\
    def ask(url, headers={}):\n    \
        try:\n        \
            answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20)\n        \
            return answer.status, answer.read().decode()\n    \
        except urllib.error.HTTPError as error: return error.code, error.read().decode()\n    \
        except OSError as error: return 0, str(error)\n";
/// Looks wherever a program of the session can look, its own code but for this text in two halves.
const LOOK: &str = "import os\nwanted = b'correct-horse-' + b'battery-staple'\nfound = []\n\
    if wanted in b''.join(os.environb.values()): found.append('environment')\n\
    for pid in filter(str.isdigit, os.listdir('/proc')):\n    \
        for name in ('environ', 'cmdline', 'maps'):\n        \
            try:\n            \
                if wanted in open(f'/proc/{pid}/{name}', 'rb').read(): found.append(f'{pid}/{name}')\n        \
            except OSError: pass\n\
    for top in ('/workspace', '/tmp', '/etc', '/dev/shm'):\n    \
        for directory, _, files in os.walk(top):\n        \
            for name in files:\n            \
                try:\n                \
                    if wanted in open(os.path.join(directory, name), 'rb').read(): found.append(name)\n            \
                except OSError: pass\n\
    print('found', found)\n";

#[test]
fn a_secret_reaches_its_host_and_is_nowhere_inside_nor_in_any_file_or_record() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let host = rig.encrypted.host();
    rig.keep("token", &host, VALUE);
    let network = json!({"network": {"allow": [host], "secrets": ["token"]}});
    let made = client.tool("session_create", network);
    made.ok();
    let session = made.structured["session_id"].as_str().expect("a handle").to_owned();
    // The host says what it got: whether the header was right is all that is printed.
    let asked = format!(
        "{TRUSTING}status, text = ask('https://{host}/a', {{'X-Token': 'forged'}})\n\
         got = {{n.lower(): v for n, v in json.loads(text)['headers']}} if status == 200 else text\n\
         print(status, got.get('x-token') == 'correct-horse-' + 'battery-staple' if status == 200 else got)\n\
         del text, got\n{LOOK}"
    );
    let text = python(&mut client, &session, &asked);
    assert!(text.contains("200 True") && text.contains("found []"), "{text}");
    let server = rig.installation.server_pid().expect("a server runs");
    let (inside, outside): (Vec<_>, Vec<_>) = descendants(server).into_iter().partition(|pid| is_inside(*pid, server));
    assert!(inside.len() >= 2, "the sandboxes of the session and of spares: {inside:?}");
    for pid in inside {
        assert_ne!(memory_has(pid, VALUE.as_bytes()), Some(true), "process {pid} of a sandbox has it in its memory");
    }
    // The worker, which shows that it would be found; and not its launcher.
    let has = |pid: &u32| memory_has(*pid, VALUE.as_bytes()) == Some(true);
    let (having, without): (Vec<_>, Vec<_>) = outside.into_iter().partition(has);
    assert!(having.len() == 1 && !without.is_empty(), "{having:?} has it, {without:?} have not");
    assert!(descendants(having[0]).iter().any(|pid| without.contains(pid)), "the launcher is the worker's");
    drop(client);
    rig.installation.kill_server();
    assert_eq!(files_with(&rig.installation.state_dir(), VALUE.as_bytes()), [""; 0], "no file has it in plain");
    let set = rig.records("secret.set");
    assert!(set[0]["detail"]["name"] == "token" && !set[0].to_string().contains(VALUE), "{set:?}");
}

#[test]
fn a_secret_is_for_its_own_host_inside_tls_and_for_whom_it_was_kept() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let (host, plain) = (rig.encrypted.host(), rig.plain.host());
    rig.keep("token", &host, VALUE);
    for network in [
        json!({"allow": [host.clone()], "secrets": ["other"]}),
        json!({"allow": [plain.clone()], "secrets": ["token"]}),
        json!({"allow": [], "secrets": ["token"]}),
    ] {
        client.tool("session_create", json!({"network": network})).code("PERMISSION_DENIED");
    }
    let made = client.tool("session_create", json!({"network": {"allow": [host, plain], "secrets": ["token"]}}));
    let session = made.structured["session_id"].as_str().expect("a handle").to_owned();
    let code = format!(
        "{TRUSTING}print('plain', *ask('http://{plain}/'))\nprint('open', *ask('http://{host}/'))\n\
         print('other', *ask('https://{host}/', {{'Host': '{plain}'}}))\n"
    );
    let text = python(&mut client, &session, &code);
    assert!(text.contains("plain 200") && !text.contains(VALUE), "{text}");
    assert!(text.contains("open 403") && text.contains("inside TLS alone"), "{text}");
    assert!(text.contains("other 421"), "{text}");
    let trace = format!(
        "{TRUSTING}import http.client, urllib.parse\n\
         def trace(method, tls):\n    \
             proxy = urllib.parse.urlsplit(os.environ['HTTPS_PROXY'])\n    \
             if tls:\n        \
                 line = http.client.HTTPSConnection(proxy.hostname, proxy.port, timeout=20)\n        \
                 line.set_tunnel('{host}')\n        \
                 line.request(method, '/')\n    \
             else:\n        \
                 line = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=20)\n        \
                 line.request(method, 'http://{plain}/')\n    \
             return line.getresponse().status\n\
         for method in ('TRACE', 'TRACK', 'trace'): print(method, trace(method, True))\n\
         print('control', trace('TRACE', False))\n"
    );
    let text = python(&mut client, &session, &trace);
    assert!(text.contains("TRACE 405") && text.contains("TRACK 405") && text.contains("trace 405"), "{text}");
    assert!(text.contains("control 200"), "the host answers it where nothing is put in: {text}");
    assert!(
        !rig.encrypted.log().iter().any(|line| line.to_ascii_uppercase().contains("TRAC")),
        "{:?}",
        rig.encrypted.log()
    );
}

/// Whether a process lives in a network of its own, as those of sandboxes do.
fn is_inside(pid: u32, server: u32) -> bool {
    let network = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    network(pid).is_some_and(|inside| Some(inside) != network(server))
}

/// Whether a process has these bytes in memory that it can write; nothing for one that is gone.
pub fn memory_has(pid: u32, wanted: &[u8]) -> Option<bool> {
    use std::os::unix::fs::FileExt as _;
    let is_there = || std::fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"));
    let (Ok(maps), Ok(memory)) = (maps, std::fs::File::open(format!("/proc/{pid}/mem"))) else {
        assert!(!is_there(), "the memory of process {pid} cannot be read");
        return None;
    };
    let (mut read, mut has) = (0_u64, false);
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let number = |text: &str| u64::from_str_radix(text, 16).expect("an address");
        let (mut from, to) = (number(range.0), number(range.1));
        while from < to {
            let mut bytes = vec![0; usize::try_from(to - from).expect("it fits").min(16 << 20)];
            // What was given back meanwhile cannot be read.
            let Ok(length) = memory.read_at(&mut bytes, from) else { break };
            // Pages overlap by what is wanted; most were never written, and are passed over at once.
            has |= (0..length).step_by(PAGE_BYTES).any(|at| {
                let page = &bytes[at..length.min(at + PAGE_BYTES + wanted.len())];
                page != &EMPTY[..page.len()] && page.windows(wanted.len()).any(|window| window == wanted)
            });
            read += length as u64;
            // Pieces overlap, so that nothing lies between two.
            from += length.saturating_sub(wanted.len()).max(1) as u64;
            if length < wanted.len() || from + wanted.len() as u64 >= to {
                break;
            }
        }
    }
    assert!(read > 0 || !is_there(), "nothing of the memory of process {pid} could be read");
    is_there().then_some(has)
}

/// The files below a directory that have these bytes.
fn files_with(directory: &Path, wanted: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, wanted));
        } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted)) {
            found.push(path.display().to_string());
        }
    }
    found
}
