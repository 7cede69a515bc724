//! The process tree: started on demand, ended promptly, nothing left behind.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Duration;

use e2e::{Installation, User, descendants, is_running, poll_until, signal};
use rustix::process::Signal;
use serde_json::json;

const SOON: Duration = Duration::from_secs(15);

#[test]
fn the_front_ends_when_its_client_closes_stdin() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("run_python", json!({"code": "print(1)"})).ok();
    assert!(client.close().success());
}

#[test]
fn programs_may_have_huge_pages_where_the_host_gives_them() {
    let may = |status: &str| status.lines().find(|line| line.starts_with("THP_enabled")).map(str::to_owned);
    let host = may(&std::fs::read_to_string("/proc/self/status").expect("a file"));
    let installation = Installation::new();
    let answer = installation.client().tool("run_shell", json!({"command": "grep THP_enabled /proc/self/status"}));
    assert_eq!(may(answer.ok()), host, "the server's own allocator does without them");
}

#[test]
fn the_front_ends_at_sigterm_and_sigint() {
    let installation = Installation::new();
    for stop in [Signal::TERM, Signal::INT] {
        let mut client = installation.client();
        client.tool("echo", json!({"message": "hello"})).ok();
        client.signal(stop);
        client.wait();
    }
}

#[test]
fn two_fronts_share_one_server_and_see_nothing_of_each_other() {
    let installation = Installation::new();
    let mut one = installation.client();
    let mut other = installation.client();
    one.tool("fs_write", json!({"path": "mine.txt", "contents": "secret"})).ok();
    let server = installation.server_pid();
    other.tool("fs_read", json!({"path": "mine.txt"})).code("NOT_FOUND");
    assert_eq!(installation.server_pid(), server);
    assert!(one.close().success());
    other.tool("run_python", json!({"code": "print('still here')"})).ok();
}

#[test]
fn the_loss_of_the_server_is_the_front_s_end() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("echo", json!({"message": "hello"})).ok();
    installation.kill_server();
    assert!(!client.wait().success());
}

#[test]
fn a_stopped_server_leaves_no_process_and_no_socket() {
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        client.tool("run_shell", json!({"command": "sleep 600 & setsid sleep 601 & echo started"})).ok();
        let server = installation.server_pid().expect("a server runs");
        let below = descendants(server);
        assert!(!below.is_empty());
        installation.stop_server();
        poll_until("all its processes are gone", SOON, || below.iter().all(|pid| !is_running(*pid)).then_some(()));
        let sockets: Vec<_> = std::fs::read_dir(installation.state_dir())
            .expect("the state directory")
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
            .collect();
        assert!(sockets.is_empty(), "{sockets:?}");
    }
}

#[test]
fn a_client_that_vanishes_in_a_call_takes_its_task_with_it() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.start_tool("run_python", json!({"code": "print('on')\nwhile True: pass", "timeout_seconds": 300}));
    client.progress();
    client.signal(Signal::KILL);
    let mut witness = installation.client();
    poll_until("the task is gone", SOON, || {
        let sessions = witness.tool("session_list", json!({})).structured;
        let running =
            sessions["sessions"].as_array()?.iter().any(|s| s["running"].as_array().is_some_and(|r| !r.is_empty()));
        (!running).then_some(())
    });
}

#[test]
fn killing_the_worker_does_not_end_the_server() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("fs_write", json!({"path": "kept.txt", "contents": "kept"})).ok();
    let session = client.tool("session_info", json!({})).structured["session_id"].clone();
    let server = installation.server_pid().expect("a server runs");
    let worker = descendants(server).into_iter().next().expect("an embedded worker");
    signal(worker, Signal::KILL);
    let read = poll_until("the session works again", Duration::from_secs(20), || {
        let answer = client.tool("fs_read", json!({"session_id": session, "path": "kept.txt"}));
        (!answer.is_error).then_some(answer)
    });
    assert!(read.text.contains("kept"));
    assert_eq!(installation.server_pid(), Some(server));
}

#[test]
fn killing_the_launcher_costs_the_running_task_and_nothing_else() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("fs_write", json!({"path": "kept.txt", "contents": "kept"})).ok();
    let server = installation.server_pid().expect("a server runs");
    let call = client.start_tool("run_python", json!({"code": "print('on')\nwhile True: pass"}));
    client.progress();
    // From the top: the worker, then the launcher below it.
    let launcher = descendants(server)[1];
    signal(launcher, Signal::KILL);
    client.tool_answer(call).failed();
    let read = poll_until("the session works again", Duration::from_secs(20), || {
        let answer = client.tool("run_python", json!({"code": "print(open('kept.txt').read())"}));
        (!answer.is_error).then_some(answer)
    });
    assert!(read.text.contains("kept"));
    assert_eq!(installation.server_pid(), Some(server));
}

#[test]
fn killing_prepared_interpreters_costs_nothing() {
    let installation = Installation::new();
    let mut client = installation.client();
    // The one that ran it, and those that wait for other sessions.
    client.tool("run_python", json!({"code": "open('kept.txt', 'w').write('kept')"})).ok();
    let server = installation.server_pid().expect("a server runs");
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let is_python = |pid: u32| name(pid).starts_with("python");
    let lanes = poll_until("interpreters are prepared", SOON, || {
        // Each has a program waiting in it.
        let has_one = |pid: &u32| is_python(*pid) && descendants(*pid).into_iter().any(is_python);
        let found: Vec<u32> = descendants(server).into_iter().filter(has_one).collect();
        (found.len() > 1).then_some(found)
    });
    lanes.iter().for_each(|lane| signal(*lane, Signal::KILL));
    poll_until("they are gone", SOON, || (!lanes.iter().any(|lane| is_running(*lane))).then_some(()));
    let answer = client.tool("run_python", json!({"code": "print(open('kept.txt').read())"}));
    assert!(answer.ok().contains("kept") && !answer.text.contains("restarted"), "{}", answer.text);
    for _ in 0..lanes.len() {
        let answer = installation.client().tool("run_python", json!({"code": "print('in another')"}));
        assert!(answer.ok().contains("in another"), "{}", answer.text);
    }
}

#[test]
fn an_idle_kernel_ends_with_the_interpreter_that_it_was_forked_from_and_nothing_that_it_started_is_left() {
    let installation = Installation::new();
    let mut client = installation.client();
    let code = "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\nx = 1";
    client.tool("run_python", json!({"code": code, "kernel": "k"})).ok();
    let server = installation.server_pid().expect("a server runs");
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let sleeps = |pid: &u32| name(*pid).trim() == "sleep";
    let has_it = |pid: &u32| name(*pid).starts_with("python") && descendants(*pid).iter().any(sleeps);
    // From the top: the interpreter, then the kernel below it.
    let those: Vec<u32> = descendants(server).into_iter().filter(has_it).collect();
    let child = descendants(server).into_iter().find(sleeps).expect("the kernel has a child");
    assert_eq!(those.len(), 2);
    signal(those[0], Signal::KILL);
    poll_until("the kernel ends", SOON, || (!is_running(those[1])).then_some(()));
    let answer = client.tool("run_python", json!({"code": "print('x' in globals())", "kernel": "k"}));
    assert!(answer.ok().contains("its processes were killed") && answer.text.contains("False"), "{}", answer.text);
    assert!(!is_running(child));
}

#[test]
fn the_state_directory_is_its_owner_s_alone() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("run_python", json!({"code": "open('f', 'w').write('x')"})).ok();
    let mut looked_at = 0;
    let mut dirs = vec![installation.state_dir()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
            let metadata = entry.metadata().expect("metadata");
            if entry.path().starts_with(installation.state_dir().join("workspaces")) && dir != installation.state_dir()
            {
                continue;
            }
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{} is open to others", entry.path().display());
            looked_at += 1;
            if metadata.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    assert!(looked_at > 5);
}

#[test]
fn standalone_is_one_process_tree_that_ends_with_its_client() {
    let installation = Installation::new();
    let mut client = installation.client_with(["--standalone"]);
    client.tool("run_python", json!({"code": "print(6 * 7)"})).ok();
    let below = descendants(client.pid());
    assert!(!below.is_empty(), "the embedded worker is a child");
    assert!(client.close().success());
    poll_until("all its processes are gone", SOON, || below.iter().all(|pid| !is_running(*pid)).then_some(()));
}
