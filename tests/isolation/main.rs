//! The promises of SECURITY.md, attacked from inside a session through the whole product, as root and as an ordinary user.

mod levels;
mod matrix;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use e2e::{Client, Installation, User};
use serde_json::json;

/// Runs `code` in a new installation for every user as whom the tests can start one, and hands over what it printed.
fn inside(code: &str, mut check: impl FnMut(&str)) {
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        let answer = client.tool("run_python", json!({"code": code, "timeout_seconds": 30}));
        assert!(!answer.is_error, "{user:?}: {}", answer.text);
        check(&answer.text);
    }
}

#[test]
fn no_network_but_loopback() {
    let code = "import os, socket\nprint('interfaces:', [l.split(':')[0].strip() for l in open('/proc/net/dev').readlines()[2:]])\n\
        for family in (socket.AF_INET, socket.AF_INET6):\n    s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(2)\n    \
        try: s.connect(('192.0.2.1' if family == socket.AF_INET else '2001:db8::1', 80)); print('REACHED')\n    \
        except OSError as e: print('refused', e.errno)\n";
    inside(code, |text| {
        assert!(text.contains("interfaces: ['lo']"), "{text}");
        assert!(!text.contains("REACHED") && text.matches("refused").count() == 2, "{text}");
    });
}

#[test]
fn the_host_s_loopback_is_not_the_session_s() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let code = format!(
        "import socket\ns = socket.socket()\ntry: s.connect(('127.0.0.1', {port})); print('REACHED')\nexcept OSError: print('refused')"
    );
    inside(&code, |text| assert!(text.contains("refused") && !text.contains("REACHED"), "{text}"));
}

#[test]
fn no_process_of_the_host_is_seen() {
    inside(
        "import os; print('pids', len([p for p in os.listdir('/proc') if p.isdigit()]), os.getppid() < 100)",
        |text| {
            let count: usize = text
                .split("pids ")
                .nth(1)
                .and_then(|t| t.split_whitespace().next())
                .and_then(|n| n.parse().ok())
                .expect("a count");
            assert!(count <= 10, "{text}");
        },
    );
}

#[test]
fn no_file_of_the_host_is_seen_beyond_the_system_s_programs() {
    let code = "import os\nfor p in ('/root', '/home', '/etc/shadow', '/etc/ssh', '/var/log', '/run', '/sys', '/boot', '/mnt', '/srv', '/opt/wheels'):\n    \
        try:\n        if os.path.isdir(p): os.listdir(p) and print('SEES', p, os.listdir(p))\n        else: open(p) and print('SEES', p)\n    \
        except OSError: pass\nprint('looked')";
    inside(code, |text| {
        // An interpreter outside /usr is bound at its own place; nothing else of that directory is there.
        let seen: Vec<&str> = text.lines().filter(|l| l.contains("SEES") && !l.contains("/root ['.pyenv']")).collect();
        assert!(text.contains("looked") && seen.is_empty(), "{text}");
    });
}

#[test]
fn system_directories_cannot_be_written() {
    let code = "import os\nfor p in ('/', '/usr', '/usr/bin', '/etc', '/lib', '/dev', '/bin'):\n    \
        try: open(os.path.join(p, 'planted'), 'w'); print('WROTE', p)\n    except OSError: pass\nprint('tried')";
    inside(code, |text| assert!(text.contains("tried") && !text.contains("WROTE"), "{text}"));
}

#[test]
fn a_sibling_session_is_out_of_reach() {
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        let victim =
            client.tool("session_create", json!({})).structured["session_id"].as_str().expect("a handle").to_owned();
        client.tool("fs_write", json!({"session_id": victim, "path": "secret.txt", "contents": "sibling-secret"})).ok();
        let state = installation.state_dir();
        let code = format!(
            "import os\nfor root in ('{}', '/workspace/..', '/proc/1/root', '/proc/1/cwd'):\n    \
             for dir, _, files in os.walk(root):\n        for f in files:\n            try:\n                if 'sibling-secret' in open(os.path.join(dir, f), errors='replace').read(1 << 16): print('LEAK', dir, f)\n            \
             except OSError: pass\n        if dir.count('/') > 3: break\nprint('searched')",
            state.display()
        );
        let answer = client.tool("run_python", json!({"code": code, "timeout_seconds": 30}));
        assert!(answer.text.contains("searched") && !answer.text.contains("LEAK"), "{}", answer.text);
    }
}

#[test]
fn no_capability_and_no_way_to_one() {
    let code = "import ctypes, os\nstatus = open('/proc/self/status').read()\nprint([l for l in status.splitlines() if l.startswith(('Cap', 'NoNewPrivs', 'Seccomp:'))])\n\
        print('uid', os.getuid(), os.geteuid())\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        print('setuid', libc.setuid(0), 'unshare', libc.unshare(0x10000000), 'mount', libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))";
    inside(code, |text| {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(text.contains(&format!("{set}:\\t0000000000000000")), "{text}");
        }
        assert!(text.contains("NoNewPrivs:\\t1") && text.contains("Seccomp:\\t2"), "{text}");
        assert!(text.contains("setuid -1 unshare -1 mount -1"), "{text}");
        assert!(!text.contains("uid 0"), "{text}");
    });
}

#[test]
fn neither_environment_nor_descriptors_are_inherited() {
    let code = "import os\nprint('env', sorted(os.environ))\nprint('fds', sorted(int(f) for f in os.listdir('/proc/self/fd')))\n\
        try: print('PID1', open('/proc/1/environ', 'rb').read())\nexcept OSError as e: print('pid 1 refused')";
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut command = installation.command::<&str>([]);
        command.env("HOST_SECRET_TOKEN", "leak-me-not");
        let mut client = Client::launch(command);
        client.initialize("2025-11-25");
        let text = client.tool("run_python", json!({"code": code})).ok().to_owned();
        assert!(!text.contains("HOST_SECRET") && !text.contains("leak-me-not"), "{text}");
        let fds = text.split("fds [").nth(1).and_then(|t| t.split(']').next()).expect("descriptors");
        assert_eq!(
            fds, "0, 1, 2, 3, 1022, 1023",
            "the streams, the one that lists, and where jobs come from and things are shown: {text}"
        );
        assert!(text.contains("pid 1 refused") || text.contains("PID1 b''"), "{text}");
    }
}

#[test]
fn the_interpreter_s_own_guards_cannot_be_read_or_traced() {
    let code = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nfor pid in (1, os.getppid()):\n    \
        print('ptrace', libc.ptrace(16, pid, 0, 0))\n    \
        try: open(f'/proc/{pid}/mem', 'rb').read(1); print('READ')\n    except OSError: print('mem refused')";
    inside(code, |text| assert!(text.matches("ptrace -1").count() == 2 && !text.contains("READ"), "{text}"));
}

#[test]
fn the_interpreter_s_own_guards_cannot_be_stopped_or_killed() {
    let code = "import os, signal\nfor pid in (1, os.getppid()):\n    for number in (signal.SIGSTOP, signal.SIGKILL):\n        \
        try: os.kill(pid, number); print('SENT', pid)\n        except PermissionError: print('refused')\n\
        child = os.fork() or signal.pause()\nos.kill(child, signal.SIGKILL)\nprint('own child', os.waitpid(child, 0)[1])";
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        let info = client.tool("session_create", json!({})).structured;
        let layers = info["isolation"]["layers"].as_array().expect("layers");
        let landlock = layers.iter().find(|row| row["layer"] == "landlock").expect("landlock");
        let text = client.tool("run_python", json!({"code": code})).text;
        if landlock["state"] == "enforced" {
            assert!(text.matches("refused").count() == 4 && text.contains("own child 9"), "{user:?}: {text}");
        } else {
            eprintln!("skipped for {user:?}: the kernel has no scopes of signals: {landlock}");
        }
    }
}

#[test]
fn another_user_of_the_machine_gets_neither_into_the_state_directory_nor_an_answer_on_its_socket() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    // The server waits for the first word of a front that it may talk to, and closes on anybody else.
    let ask = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(2)\ns.connect(sys.argv[1])\n\
        try: s.recv(1); print('turned away')\nexcept TimeoutError: print('listened to')";
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        client.tool("fs_write", json!({"path": "secret.txt", "contents": "x"})).ok();
        let socket = installation.state_dir().join("server.sock");
        let ask_as = |uid: u32| {
            let mut command = std::process::Command::new("/usr/bin/python3");
            command.args(["-I", "-c", ask]).arg(&socket).uid(uid).gid(uid);
            let output = command.output().expect("python3 of the system");
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        };
        assert!(ask_as(1_001).contains("PermissionError"), "{user:?}");
        for entry in walk(&installation.state_dir()) {
            let mode = std::fs::symlink_metadata(&entry).expect("there").permissions().mode();
            let in_workspace = entry.components().any(|part| part.as_os_str().to_string_lossy().starts_with("ses_"));
            assert!(in_workspace || mode & 0o077 == 0, "{user:?}: {} has mode {mode:o}", entry.display());
        }
        // Should the operator open the directory, the server still looks at who connects.
        for path in [&installation.state_dir(), &socket] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("chmod");
        }
        assert!(ask_as(1_001).contains("turned away"), "{user:?}");
        let own = user.other_id().unwrap_or(0);
        assert!(ask_as(own).contains("listened to"), "{user:?}");
        client.tool("echo", json!({"message": "still served"})).ok();
    }
}

/// Everything below a directory, links not followed, workspaces of sessions not entered.
fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        if entry.file_type().expect("a type").is_dir() && !entry.file_name().to_string_lossy().starts_with("ses_") {
            found.extend(walk(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

#[test]
fn dangerous_system_calls_are_denied() {
    let code = "import ctypes, platform\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        calls = {'bpf': 321, 'userfaultfd': 323, 'io_uring_setup': 425, 'keyctl': 250, 'add_key': 248, 'perf_event_open': 298, 'process_vm_readv': 310, 'pidfd_getfd': 438, 'kexec_load': 246, 'init_module': 175, 'mount': 165, 'setns': 308, 'open_by_handle_at': 304}\n\
        if platform.machine() == 'x86_64':\n    for name, number in calls.items():\n        ctypes.set_errno(0)\n        r = libc.syscall(number, 0, 0, 0, 0, 0)\n        print(name, 'DENIED' if r == -1 and ctypes.get_errno() in (1, 38) else ('got', r, ctypes.get_errno()))\n\
        import socket\nfor name, f in (('vsock', 40), ('netlink', 16), ('packet', 17), ('alg', 38)):\n    \
        try: socket.socket(f, socket.SOCK_RAW if f == 16 else socket.SOCK_STREAM); print(name, 'MADE')\n    except OSError: print(name, 'DENIED')";
    inside(code, |text| assert!(!text.contains("got") && !text.contains("MADE") && text.contains("DENIED"), "{text}"));
}

#[test]
fn links_in_the_workspace_lead_nowhere_for_the_file_tools() {
    for user in User::all() {
        let installation = Installation::for_user(user);
        let outside = installation.outside().join("outside.txt");
        std::fs::write(&outside, "outside-secret").expect("a file");
        let mut client = installation.client();
        let code = format!(
            "import os\nos.symlink('{}', 'out')\nos.symlink('/etc', 'etc')\nos.symlink('..', 'up')\nos.mkfifo('fifo')",
            outside.display()
        );
        client.tool("run_python", json!({"code": code})).ok();
        for path in ["out", "etc/passwd", "up/x", "fifo"] {
            let read = client.tool("fs_read", json!({"path": path}));
            assert!(
                read.is_error && !read.text.contains("outside-secret") && !read.text.contains("root:"),
                "{path}: {}",
                read.text
            );
            let write = client.tool("fs_write", json!({"path": format!("{path}/x"), "contents": "planted"}));
            assert!(write.is_error, "{path}: {}", write.text);
        }
        client.tool("fs_delete", json!({"path": "etc"})).ok();
        assert_eq!(std::fs::read_to_string(&outside).expect("the file"), "outside-secret");
        assert!(std::path::Path::new("/etc/passwd").exists());
    }
}

#[test]
fn doctor_and_session_report_the_same_layers() {
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        let session = client.tool("session_create", json!({})).structured;
        let doctor = installation.run(["doctor", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("doctor prints JSON");
        assert_eq!(report["isolation"]["level"], session["isolation"]["level"]);
        let states = |layers: &serde_json::Value| -> Vec<(String, String)> {
            layers
                .as_array()
                .expect("layers")
                .iter()
                .map(|l| (l["layer"].to_string(), l["state"].to_string()))
                .collect()
        };
        assert_eq!(states(&report["isolation"]["layers"]), states(&session["isolation"]["layers"]));
    }
}
