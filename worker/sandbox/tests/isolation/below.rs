//! Levels portable and reduced: the host's root is there, and next to nothing of it can be read.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use std::path::{Path, PathBuf};

use codegen_types::{IsolationLevel, Limits};

use crate::harness::SET_USER_ID;
use crate::room::{PYTHON, Room, descendants_of, eventually, host_processes, inits, is_root, level};

pub async fn the_host_outside_the_list_cannot_be_read() {
    let room = Room::new().await;
    let script = r"
import os
for path in ['/', '/etc', '/home', '/root', '/run', '/sys', '/boot', '/mnt', '/srv', '/opt', '/var', '/tmp', '/dev', '/dev/shm']:
    try: print('listed', path, os.listdir(path))
    except OSError: pass
for path in ['/etc/shadow', '/etc/fstab', '/etc/ssh/sshd_config', '/etc/machine-id', '/var/log/dpkg.log', '/sys/kernel/uevent_seqnum', '/dev/kmsg']:
    try: print('read', path, open(path, 'rb').read(1))
    except OSError: pass
for path in ['/tmp/x', '/dev/shm/x', '/var/tmp/x', '/run/x', '/run/lock/x', '/proc/self/oom_score_adj', '/proc/self/comm']:
    try: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)); print('written', path)
    except OSError: pass
print(open('/proc/self/stat').read().split()[0] == str(os.getpid()), len(os.listdir('/usr/bin')) > 10)
";
    assert_eq!(room.python(script).await, "True True");
}

pub async fn the_workspace_of_another_session_cannot_be_read_or_changed() {
    let (one, other) = (Room::new().await, Room::new().await);
    other.shell("echo secret > secret; chmod 644 secret; echo temporary > $TMPDIR/file").await;
    let script = r"
import os, sys
for place in sys.argv[1:]:
    for name in ('', '/secret', '/file'):
        try: print('read', place + name, os.listdir(place + name) if not name else open(place + name).read())
        except OSError: pass
    for change in (lambda: open(place + '/planted', 'w'), lambda: os.unlink(place + '/secret'), lambda: os.mkdir(place + '/d'),
                   lambda: os.rename(place + '/secret', 'mine'), lambda: os.link(place + '/secret', 'mine'), lambda: os.symlink('x', place + '/l')):
        try: change(); print('changed', place)
        except OSError: pass
os.symlink(sys.argv[1], 'way'); os.symlink(sys.argv[1] + '/secret', 'file')
for path in ('way/secret', 'file'):
    try: print('followed', open(path).read())
    except OSError: pass
print('tried')
";
    let [workspace, scratch] = [&other.sandbox.places().workspace, &other.sandbox.places().scratch];
    let (workspace, scratch) = (workspace.display().to_string(), scratch.display().to_string());
    let ran = one.run(&[PYTHON, "-I", "-c", script, &workspace, &scratch]).await;
    assert_eq!(ran.stdout, "tried\n", "{ran:?}");
    assert_eq!(other.shell("cat secret").await.stdout, "secret\n");
}

pub async fn what_a_session_writes_is_its_own_user_s() {
    let room = Room::new().await;
    let ran = room.shell("id -u; pwd; echo hello > made; stat -c %u made; stat -c %u $TMPDIR").await;
    let (uid, place) = (room.uid, room.workspace.display());
    assert_eq!(ran.stdout, format!("{uid}\n{place}\n{uid}\n{uid}\n"), "{ran:?}");
    assert_eq!(is_root(), uid >= 1_900_000_000);
}

pub async fn devices_are_out_of_reach() {
    let room = Room::new().await;
    let script = r"
import os, stat
for where in ['d', os.environ['TMPDIR'] + '/d']:
    for kind in [stat.S_IFCHR, stat.S_IFBLK]:
        try: os.mknod(where, kind | 0o600, os.makedev(1, 3)); print('made', where)
        except OSError: pass
for path in ['/dev/tty', '/dev/ptmx', '/dev/fuse', '/dev/kvm', '/dev/net/tun', '/dev/vsock', '/dev/loop-control']:
    try: os.open(path, os.O_RDWR); print('opened', path)
    except OSError: pass
open('/dev/null', 'w').write('x'); assert open('/dev/zero', 'rb').read(2) == b'\0\0'; assert len(open('/dev/urandom', 'rb').read(8)) == 8
";
    assert_eq!(room.python(script).await, "");
}

pub async fn no_socket_can_be_made() {
    let room = Room::new().await;
    let script = r"
import errno, socket
for family in range(0, 46):
    for kind in (1, 2, 3, 5, 6):
        try: socket.socket(family, kind, 0); print('made', family, kind)
        except OSError as e:
            if e.errno != errno.EPERM: print('not denied', family, kind, e)
a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'
for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    for address in ('/run/docker.sock', '\\0x', '/run/dbus/system_bus_socket'):
        try: a.connect(address); print('connected', address)
        except OSError: pass
";
    assert_eq!(room.python(script).await, "");
}

pub async fn no_datagram_of_a_pair_reaches_a_socket_of_the_host() {
    let room = Room::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let name = format!("codegen-datagrams-{}-{}", std::process::id(), room.init);
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listeners = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&address).unwrap()];
    for (place, mode) in [(directory.path(), 0o711), (&path, 0o777)] {
        std::fs::set_permissions(place, Permissions::from_mode(mode)).unwrap();
    }
    let script = r"
import socket, sys
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK):
    for address in (sys.argv[1], '\0' + sys.argv[2]):
        try:
            a, b = socket.socketpair(socket.AF_UNIX, kind)
            print('made', kind)
            a.sendto(b'attacked', address)
            print('sent', address)
        except OSError: pass
print('tried')
";
    let ran = room.run(&[PYTHON, "-I", "-c", script, path.to_str().unwrap(), &name]).await;
    assert_eq!(ran.stdout, "tried\n", "{ran:?}");
    for listener in listeners {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// Landlock lets every path be watched that can be passed through.
pub async fn no_directory_can_be_watched() {
    let room = Room::new().await;
    let script = r"
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
for call in (lambda: libc.inotify_init1(0), lambda: libc.inotify_init(), lambda: libc.inotify_add_watch(-1, b'/etc', 0xfff)):
    ctypes.set_errno(0)
    print(call(), errno.errorcode.get(ctypes.get_errno()))
";
    assert_eq!(room.python(script).await, ["-1 ENOSYS"; 3].join("\n"));
}

pub async fn no_process_outside_can_be_signalled_read_or_traced() {
    let (one, other) = (Room::new().await, Room::new().await);
    let victim = other.start(&["/bin/sleep", "60"]).await;
    let inside = descendants_of(other.init);
    let launcher = host_processes().into_iter().find(|(pid, _, _)| *pid == one.init).unwrap().1;
    let pids: Vec<i32> = inside.iter().copied().chain([other.init, launcher, std::process::id() as i32, 1]).collect();
    let script = r"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for pid in map(int, sys.argv[1:]):
    for number in (9, 15, 19):
        try: os.kill(pid, number); print('signalled', pid)
        except OSError: pass
    for name in ('environ', 'mem', 'maps', 'root', 'cwd', 'auxv', 'syscall', 'stack'):
        path = f'/proc/{pid}/{name}'
        try:
            found = os.readlink(path) if name in ('root', 'cwd') else open(path, 'rb').read(1)
            if found: print('read', path)
        except OSError: pass
    try: print('followed', os.readlink(f'/proc/{pid}/fd/0'))
    except OSError: pass
    if libc.ptrace(16, pid, 0, 0) == 0: print('traced', pid)
    try: os.pidfd_open(pid) and libc.syscall(438, os.pidfd_open(pid), 0, 0) >= 0 and print('descriptor', pid)
    except OSError: pass
try: os.kill(-1, 9)
except OSError: pass
print('tried')
";
    let mut argv = vec![PYTHON, "-I", "-c", script];
    let numbers: Vec<String> = pids.iter().map(ToString::to_string).collect();
    argv.extend(numbers.iter().map(String::as_str));
    let ran = one.run(&argv).await;
    assert_eq!(ran.stdout, "tried\n", "{ran:?}");
    assert_eq!(descendants_of(other.init), inside, "the other session lives");
    drop(victim);
}

pub async fn there_are_no_capabilities_and_no_way_to_another_user() {
    let room = Room::new().await;
    let script = r"
import ctypes, os
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
print([status[name].strip() for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb', 'NoNewPrivs', 'Seccomp')], status['Groups'].split())
libc = ctypes.CDLL(None, use_errno=True)
for change in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.seteuid(65534)):
    try: change(); print('changed')
    except OSError: pass
";
    let none = "0000000000000000";
    let said = room.python(script).await;
    // An ordinary user's own groups stay; root's are left behind.
    assert!(said.starts_with(&format!("['{none}', '{none}', '{none}', '{none}', '1', '2']")), "{said}");
    assert!(!said.contains("changed"), "{said}");
    assert!(!is_root() || said.ends_with(" []"), "{said}");
}

/// Neither its own, nor one of root's in a tree that is shown to it, which gives root to anybody else; nor those of the
/// system, which are looked at while they wait for a password.
pub async fn set_user_id_programs_give_nothing() {
    let planted = std::env::var_os(SET_USER_ID).map(PathBuf::from);
    let tree = planted.as_deref().and_then(Path::parent);
    let room = Room::with(Limits::default(), tree.as_slice()).await;
    let script = r"
import os, shutil, subprocess, sys
own = str(os.getuid())
shutil.copy('/usr/bin/id', 'id'); os.chmod('id', 0o6755)
for program in ['./id', *sys.argv[1:]]:
    for question in ('-u', '-ru', '-g', '-rg'):
        said = subprocess.run([program, question], capture_output=True, text=True).stdout.strip()
        if said not in (own, str(os.getgid())): print(program, question, 'says', said)
    print('tried', bool(os.stat(program).st_mode & 0o4000), os.stat(program).st_uid == os.getuid())
for path in ('/usr/bin/su', '/usr/bin/passwd', '/usr/bin/mount', '/usr/bin/newgrp', '/usr/bin/chsh', '/usr/bin/sudo'):
    if not os.path.exists(path) or not os.stat(path).st_mode & 0o4000: continue
    child = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # Until it is through, or has read what its ids are.
    try: ids = [line.split()[1:] for line in open(f'/proc/{child.pid}/status') if line.startswith('Uid:')][0]
    except OSError: ids = []
    child.communicate(b'\n' * 8)
    if set(ids) - {own}: print(path, 'runs as', ids)
";
    let program = planted.as_ref().map(|path| path.display().to_string());
    let mut argv = vec![PYTHON, "-I", "-c", script];
    argv.extend(program.as_deref());
    let ran = room.run(&argv).await;
    let expected = match planted {
        Some(_) => "tried True True\ntried True False\n",
        None => {
            println!("SKIPPED: a set-user-id program of another user, which only root can plant");
            "tried True True\n"
        }
    };
    assert_eq!(ran.stdout, expected, "{ran:?}");
}

pub async fn ordinary_programs_work() {
    let room = Room::new().await;
    let script = r"
import asyncio, os, signal, subprocess, tempfile, threading, time
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
assert subprocess.run(['/bin/sh', '-c', 'echo $((1+1)); cat <(echo 3)' if False else 'echo $((1+1))'], capture_output=True).stdout == b'2\n'
async def main():
    process = await asyncio.create_subprocess_exec('/bin/true'); assert await process.wait() == 0
asyncio.run(main())
with tempfile.NamedTemporaryFile() as f: f.write(b'x'); assert f.name.startswith(os.environ['TMPDIR'])
os.mkfifo('fifo'); os.symlink('a', 'link'); os.mkdir('d'); os.rename('fifo', 'd/fifo')
assert os.path.realpath('.') == os.getcwd() and os.stat(os.getcwd()).st_uid == os.getuid()
print('ok')
";
    assert_eq!(room.python(script).await, "ok");
    assert_eq!(
        room.run(&["/bin/bash", "-c", "cat <(echo substituted) /dev/stdin < /dev/null"]).await.stdout,
        "substituted\n"
    );
}

pub async fn temporary_files_go_with_the_sandbox() {
    let room = Room::new().await;
    let scratch = room.sandbox.places().scratch.clone();
    room.shell("mkdir -p $TMPDIR/a/b; chmod 0 $TMPDIR/a; echo x > $TMPDIR/x; ln -s / $TMPDIR/root").await;
    assert!(scratch.exists());
    crate::room::within(room.sandbox.destroy()).await;
    eventually("it is gone", || !scratch.exists()).await;
    assert!(room.workspace.exists());
}

/// There is no namespace that the kernel ends with its init.
pub async fn what_outlives_a_killed_init_is_ended() {
    let room = Room::new().await;
    let _running = room.start(&["/bin/sh", "-c", "trap '' TERM HUP; setsid sleep 100 & sleep 100 & wait"]).await;
    eventually("they run", || descendants_of(room.init).len() >= 4).await;
    let inside = descendants_of(room.init);
    rustix::process::kill_process(rustix::process::Pid::from_raw(room.init).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    assert_eq!(crate::room::within(room.sandbox.ended()).await, sandbox::SandboxEnd::Crashed);
    assert!(!host_processes().iter().any(|(pid, _, _)| inside.contains(pid)), "told only when nothing is left");
    assert!(inits().is_empty());
    assert!(level().await < IsolationLevel::Full);
}
