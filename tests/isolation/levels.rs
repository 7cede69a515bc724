//! Sessions below level full, through the whole product.

use e2e::{Client, Installation, User, poll_until};
use serde_json::{Value, json};

/// What the server keeps for itself, as it is called from a workspace.
const KEPT: [&str; 5] = [
    "../../state.db",
    "../../server.lock",
    "../../audit/keys/checkpoint.key",
    "../../audit/segment-00000000000000000001.jsonl",
    "../../audit/writer.lock",
];

/// Runs the product at each lower level, with room for two sessions where they share a user id.
fn at_each_level(mut check: impl FnMut(User, &Installation, &mut Client)) {
    for user in User::below_full() {
        let installation = Installation::for_user(user);
        let mut command = installation.command::<&str>([]);
        command.env("REDUCED_SESSIONS", "2");
        let mut client = Client::launch(command);
        client.initialize("2025-11-25");
        check(user, &installation, &mut client);
    }
}

fn new_session(client: &mut Client, user: User) -> String {
    let made = client.tool("session_create", json!({})).structured;
    assert_eq!(made["isolation"]["level"], user.level(), "{made}");
    made["session_id"].as_str().expect("a handle").to_owned()
}

#[test]
fn programs_kernels_and_files_work_below_full() {
    at_each_level(|user, _, client| {
        let session = new_session(client, user);
        let mut tool = |name: &str, mut arguments: Value| {
            arguments["session_id"] = json!(session);
            client.tool(name, arguments)
        };
        assert!(tool("run_python", json!({"code": "print(6 * 7)"})).ok().contains("42"), "{user:?}");
        let shell = tool("run_shell", json!({"command": "echo made > made.txt; echo $TMPDIR; test -w $TMPDIR && pwd"}));
        assert!(shell.ok().contains(".scratch-") && shell.ok().contains(&session), "{user:?}: {}", shell.text);
        assert!(shell.text.contains("created made.txt"), "paths are those of the workspace: {}", shell.text);
        assert!(tool("fs_read", json!({"path": "made.txt"})).ok().contains("made"));
        tool("fs_write", json!({"path": "a/b.py", "contents": "import sys; print(sys.argv[1:], __file__)"})).ok();
        assert!(tool("run_python", json!({"file": "a/b.py", "args": ["x"]})).ok().contains("['x']"), "{user:?}");
        tool("run_python", json!({"code": "n = 1", "kernel": "k"})).ok();
        assert!(tool("run_python", json!({"code": "n + 1", "kernel": "k"})).ok().contains('2'), "{user:?}");
        let tests = json!({"path": "a"});
        tool("fs_write", json!({"path": "a/test_x.py", "contents": "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): pass\n"})).ok();
        let ran = tool("test_run", tests);
        assert!(!ran.is_error, "{user:?}: {}", ran.text);
        tool("fs_delete", json!({"path": "a", "recursive": true})).ok();
    });
}

#[test]
fn a_sibling_session_is_out_of_reach_below_full() {
    at_each_level(|user, installation, client| {
        let (victim, attacker) = (new_session(client, user), new_session(client, user));
        let place = client.tool(
            "run_shell",
            json!({"session_id": victim, "command": "pwd; echo sibling-secret > secret.txt; chmod 644 secret.txt"}),
        );
        let place = place.ok().lines().find(|line| line.contains("ses_")).expect("a path").trim().to_owned();
        client
            .tool("run_python", json!({"session_id": victim, "code": "import os; print(os.getpid())", "kernel": "k"}))
            .ok();
        for name in KEPT {
            let kept = installation.state_dir().join("workspaces").join(&victim).join(name);
            assert!(kept.is_file(), "{user:?}: there is no {}", kept.display());
        }
        let code = format!(
            "import os, signal\nplace = {place:?}\nfor dir in (place, os.path.dirname(place), os.path.dirname(os.path.dirname(place))):\n    \
             try: print('LISTED', os.listdir(dir))\n    except OSError: pass\n\
             for name in ['secret.txt', *{KEPT:?}]:\n    \
             try: print('READ', name, open(os.path.join(place, name)).read(10))\n    except OSError: pass\n    \
             try: open(os.path.join(place, name), 'a'); print('OPENED', name)\n    except OSError: pass\n\
             seen = 0\nfor pid in (int(p) for p in os.listdir('/proc') if p.isdigit()):\n    \
             if pid in (os.getpid(), os.getppid()): continue\n    seen += 1\n    \
             try: os.kill(pid, signal.SIGKILL); print('KILLED', pid)\n    except OSError: pass\n    \
             for name in ('environ', 'mem', 'maps'):\n        \
             try: open(f'/proc/{{pid}}/{{name}}', 'rb').read(1) and print('MEMORY', pid)\n        except OSError: pass\n\
             print('tried', seen)"
        );
        let tried = client.tool("run_python", json!({"session_id": attacker, "code": code, "timeout_seconds": 30}));
        let text = tried.ok();
        assert!(text.contains("tried"), "{user:?}: {text}");
        for broken in ["LISTED", "READ", "OPENED", "KILLED", "MEMORY"] {
            assert!(!text.contains(broken), "{user:?}: {text}");
        }
        let alive = client
            .tool("run_python", json!({"session_id": victim, "code": "open('secret.txt').read()", "kernel": "k"}));
        assert!(alive.ok().contains("sibling-secret"), "{user:?}: {}", alive.text);
    });
}

#[test]
fn there_is_no_network_at_all_below_full() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let code = format!(
        "import socket\nfor family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, 16, 17, 38, 40):\n    \
         for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):\n        \
         try: socket.socket(family, kind); print('MADE', family, kind)\n        except OSError: pass\n\
         try: socket.create_connection(('127.0.0.1', {port}), 1); print('REACHED')\nexcept OSError: print('refused')\n\
         try: socket.getaddrinfo('localhost', 80); print('resolved')\nexcept OSError: pass"
    );
    at_each_level(|user, _, client| {
        let session = new_session(client, user);
        let text = client.tool("run_python", json!({"session_id": session, "code": code})).ok().to_owned();
        assert!(text.contains("refused") && !text.contains("MADE") && !text.contains("REACHED"), "{user:?}: {text}");
    });
}

#[test]
fn nothing_of_a_closed_session_is_left_below_full() {
    for user in User::below_full() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        let session = new_session(&mut client, user);
        let leave = "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n        \
                     if os.fork() == 0:\n            open('pids', 'a').write(f'{os.getpid()}\\n')\n            time.sleep(600)\n        os._exit(0)\n\
                     while len(open('pids').readlines() if os.path.exists('pids') else []) < 3: time.sleep(0.01)\n\
                     print(open('pids').read(), os.environ['TMPDIR'])";
        let running = client.tool("run_python", json!({"session_id": session, "code": leave, "kernel": "k"}));
        let pids: Vec<u32> =
            running.ok().split_whitespace().filter_map(|word| word.parse().ok()).filter(|pid| *pid > 100).collect();
        assert!(pids.len() >= 3, "{user:?}: {}", running.text);
        client.tool("session_close", json!({"session_id": session})).ok();
        assert!(pids.iter().all(|pid| !e2e::is_running(*pid)), "{user:?}: gone before the answer: {pids:?}");
        let workspaces = installation.state_dir().join("workspaces");
        poll_until("its files are gone", std::time::Duration::from_secs(60), || {
            std::fs::read_dir(&workspaces).ok()?.next().is_none().then_some(())
        });
        client.close();
    }
}

#[test]
fn temporary_files_that_grow_too_large_are_noticed_below_full() {
    at_each_level(|user, _, client| {
        let session = new_session(client, user);
        let code = "import os, time\nf = open(os.environ['TMPDIR'] + '/big', 'wb')\nwhile True:\n    f.write(b'x' * (8 << 20)); f.flush()\n    time.sleep(0.01)";
        let answer = client.tool("run_python", json!({"session_id": session, "code": code, "timeout_seconds": 60}));
        assert!(answer.code("DISK_LIMIT").contains("temporary files"), "{user:?}: {}", answer.text);
        let again = client.tool(
            "run_python",
            json!({"session_id": session, "code": "import os; print(os.listdir(os.environ['TMPDIR']))"}),
        );
        assert!(again.ok().contains("[]"), "{user:?}: {}", again.text);
    });
}

#[test]
fn temporary_files_that_grow_too_large_between_calls_are_noticed_below_full() {
    at_each_level(|user, _, client| {
        let session = new_session(client, user);
        let mut tool = |name: &str, mut arguments: Value| {
            arguments["session_id"] = json!(session);
            client.tool(name, arguments)
        };
        let code = "import os, threading, time\ndef fill():\n    while not os.path.exists('go'): time.sleep(0.01)\n    \
            with open(os.environ['TMPDIR'] + '/big', 'wb') as f:\n        \
            for _ in range(100): f.write(b'x' * (8 << 20)); f.flush(); time.sleep(0.01)\n\
            threading.Thread(target=fill).start()";
        tool("run_python", json!({"code": code, "kernel": "k"})).ok();
        tool("fs_write", json!({"path": "go", "contents": ""})).ok();
        poll_until("the kernel is ended", std::time::Duration::from_secs(120), || {
            let kernels = tool("kernel_list", json!({})).structured["kernels"].as_array().expect("kernels").len();
            (kernels == 0).then_some(())
        });
        let next =
            tool("run_python", json!({"code": "import os; print(os.listdir(os.environ['TMPDIR']))", "kernel": "k"}));
        assert!(next.ok().contains("[]") && next.text.contains("temporary files were more"), "{user:?}: {}", next.text);
    });
}

#[test]
fn where_sessions_share_a_user_id_there_is_one_unless_the_operator_says_otherwise() {
    let installation = Installation::for_user(User::Reduced);
    let mut client = installation.client();
    let first = new_session(&mut client, User::Reduced);
    let second = client.tool("session_create", json!({}));
    second.code("NO_CAPACITY");
    client.tool("session_close", json!({"session_id": first})).ok();
    new_session(&mut client, User::Reduced);
}

#[test]
fn less_isolation_than_the_operator_permits_is_refused_and_the_way_to_permit_it_is_said() {
    for user in User::below_full() {
        let installation = Installation::for_user(user);
        let mut command = installation.command::<&str>([]);
        command.env_remove("ISOLATION_MINIMUM");
        let mut client = Client::launch(command);
        client.initialize("2025-11-25");
        let refused = client.tool("run_python", json!({"code": "print(1)"}));
        let said = refused.code("ISOLATION_UNAVAILABLE");
        assert!(said.contains("systempaths=unconfined"), "{user:?}: {said}");
        assert!(said.contains(&format!("ISOLATION_MINIMUM={}", user.level())), "{user:?}: {said}");
    }
}

#[test]
fn the_state_directory_can_be_passed_only_where_sessions_must_and_is_closed_again() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root gives sessions user ids of their own");
        return;
    }
    let mode_after = |user: User, minimum: &str, before: u32| {
        let installation = Installation::for_user(user);
        let state = installation.state_dir();
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(before);
        std::fs::set_permissions(&state, permissions).expect("chmod");
        let mut command = installation.command::<&str>([]);
        command.env("ISOLATION_MINIMUM", minimum);
        let mut client = Client::launch(command);
        client.initialize("2025-11-25");
        let made = client.tool("run_python", json!({"code": "print(6 * 7)"}));
        assert_eq!(made.is_error, user.level() == "portable" && minimum == "full", "{}", made.text);
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&state).expect("there")) & 0o777
    };
    assert_eq!(mode_after(User::Portable, "portable", 0o700), 0o711);
    assert_eq!(mode_after(User::Portable, "full", 0o711), 0o700, "its sessions are refused");
    assert_eq!(mode_after(User::Myself, "portable", 0o711), 0o700, "isolation is full after all");
    assert_eq!(mode_after(User::Myself, "portable", 0o700), 0o700);
}

#[test]
fn a_wheel_of_the_workspace_is_installed_below_full() {
    at_each_level(|user, _, client| {
        let session = new_session(client, user);
        let wheel = e2e::wheel("local_one", "0.1", "");
        let hex: String = wheel.iter().map(|byte| format!("{byte:02x}")).collect();
        let put = format!("open('local_one-0.1-py3-none-any.whl', 'wb').write(bytes.fromhex('{hex}'))");
        client.tool("run_python", json!({"session_id": session, "code": put})).ok();
        let packages = json!({"session_id": session, "packages": ["local_one-0.1-py3-none-any.whl"]});
        let installed = client.tool("pkg_install", packages);
        if installed.is_error && installed.text.contains("no pip") {
            println!("SKIPPED for {user:?}: the python that is found has no pip: {}", installed.text);
            return;
        }
        assert!(installed.ok().contains("installed local-one 0.1"), "{user:?}: {}", installed.text);
        let used = json!({"session_id": session, "code": "import local_one; print(local_one.VERSION)"});
        assert!(client.tool("run_python", used).ok().contains("0.1"), "{user:?}");
    });
}
