//! Files: a sandbox sees its own small root and nothing of the host's.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use codegen_types::Limits;
use sandbox::SandboxError;

use crate::room::{Room, is_root};

pub async fn the_host_outside_the_list_cannot_be_seen() {
    let room = Room::new().await;
    let root = room.python("import os; print(sorted(os.listdir('/')))").await;
    let known =
        ["bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr", "var", "workspace"];
    for name in root.trim_matches(['[', ']']).split(", ").map(|name| name.trim_matches('\'')) {
        assert!(known.contains(&name), "{name} is in the root");
    }
    let hidden = "import os; print([p for p in ['/home', '/root', '/sys', '/run', '/boot', '/mnt', '/srv', '/opt', '/etc/shadow', '/etc/ssh', '/etc/ssl/private'] if os.path.lexists(p)])";
    assert_eq!(room.python(hidden).await, "[]");
    let state = room.workspace.parent().unwrap().display().to_string();
    assert_eq!(room.python(&format!("import os; print(os.path.lexists({state:?}))")).await, "False");
}

pub async fn system_directories_cannot_be_written() {
    let room = Room::new().await;
    let script = r"
import os
for path in ['/x', '/usr/x', '/usr/bin/x', '/etc/x', '/etc/passwd', '/bin/sh', '/dev/x', '/proc/sys/kernel/hostname', '/var/x', '/usr/lib/x']:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        print('written', path)
    except OSError:
        pass
for path in ['/usr/bin/env', '/etc/passwd']:
    for change in (lambda: os.unlink(path), lambda: os.chmod(path, 0o777), lambda: os.rename(path, path + '2')):
        try:
            change()
            print('changed', path)
        except OSError:
            pass
";
    assert_eq!(room.python(script).await, "");
}

pub async fn the_workspace_of_another_session_cannot_be_reached() {
    let (one, other) = (Room::new().await, Room::new().await);
    std::fs::write(other.workspace.join("secret"), "secret").unwrap();
    let path = other.workspace.display().to_string();
    let script = format!(
        "import os, glob\nfound = glob.glob('/workspace/**', recursive=True) + glob.glob('/tmp/**', recursive=True)\n\
         print(found, os.path.lexists({path:?}), os.path.lexists('/proc/1/root/' + {path:?}), os.path.lexists('/workspace/../../' + {path:?}))"
    );
    assert_eq!(one.python(&script).await, "['/workspace/', '/tmp/'] False False False");
    one.shell("echo mine > /tmp/left; echo mine > /dev/shm/left").await;
    assert_eq!(other.python("import os; print(os.listdir('/tmp'), os.listdir('/dev/shm'))").await, "[] []");
}

pub async fn the_workspace_is_shared_with_the_host_and_owned_by_the_session() {
    let room = Room::new().await;
    let ran = room.shell("id -u; pwd; echo hello > made; mkdir -p a/b; mv made a/b/; cat a/b/made").await;
    assert_eq!(ran.stdout, "1000\n/workspace\nhello\n", "{ran:?}");
    let made = room.workspace.join("a/b/made");
    assert_eq!(std::fs::read_to_string(&made).unwrap(), "hello\n");
    assert_eq!(std::fs::metadata(&made).unwrap().uid(), room.uid);
    if is_root() {
        assert!(room.uid >= 1_900_000_000);
    }
}

pub async fn an_interpreter_outside_the_system_directories_runs() {
    let home = home_tree();
    std::fs::create_dir_all(home.path().join("bin")).unwrap();
    std::fs::copy("/bin/true", home.path().join("bin/interpreter")).unwrap();
    let room = Room::with(Limits::default(), &[home.path()]).await;
    let program = home.path().join("bin/interpreter").display().to_string();
    let ran = room.run(&[&program]).await;
    assert_eq!(ran.end.code, Some(0), "{ran:?}");
    let ran = room.shell(&format!("echo > {program}; echo > {}/new", home.path().display())).await;
    assert!(!home.path().join("new").exists(), "{ran:?}");
}

/// A directory that anybody can read below the user's home, which is no part of a sandbox by itself.
fn home_tree() -> tempfile::TempDir {
    let home = std::env::var_os("HOME").expect("HOME names a directory");
    let directory = tempfile::Builder::new().prefix("interpreter").tempdir_in(home).unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

pub async fn a_tree_that_holds_the_workspace_is_refused() {
    for path in ["/", "/proc", "/etc/ssh", "relative"] {
        let refused = Room::try_with(Limits::default(), &[Path::new(path)]).await;
        assert!(matches!(refused, Err(SandboxError::Unavailable { .. })), "{path}");
    }
}

pub async fn the_host_tells_neither_its_name_nor_its_users() {
    let room = Room::new().await;
    let ran = room.shell("hostname 2>/dev/null || cat /proc/sys/kernel/hostname; cat /etc/hostname; cut -d: -f1 /etc/passwd; cat /proc/self/cgroup").await;
    let mut lines = ran.stdout.lines();
    assert_eq!((lines.next(), lines.next()), (Some("sandbox"), Some("sandbox")));
    assert_eq!(lines.by_ref().take(3).collect::<Vec<_>>(), ["root", "sandbox", "nobody"]);
    for line in lines {
        let path = line.splitn(3, ':').nth(2).unwrap();
        assert!(!path.contains("codegen"), "the control group shows: {line}");
    }
}

pub async fn devices_cannot_be_made_and_only_harmless_ones_are_there() {
    let room = Room::new().await;
    let devices = room.python("import os; print(sorted(os.listdir('/dev')))").await;
    assert_eq!(devices, "['fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'urandom', 'zero']");
    let script = r"
import os, stat
for where in ['/workspace/d', '/tmp/d', '/dev/shm/d']:
    for kind in [stat.S_IFCHR, stat.S_IFBLK]:
        try:
            os.mknod(where, kind | 0o600, os.makedev(1, 3))
            print('made', where)
        except OSError:
            pass
open('/dev/null', 'w').write('x'); assert open('/dev/zero', 'rb').read(2) == b'\0\0'; assert len(open('/dev/urandom', 'rb').read(8)) == 8
";
    assert_eq!(room.python(script).await, "");
}
