//! Privileges: none, and no way to any.

use crate::room::{PYTHON, Room};

pub async fn there_are_no_capabilities_and_none_can_be_gained() {
    let room = Room::new().await;
    let script =
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('Cap', 'NoNewPrivs', 'Seccomp:'))])";
    let none = "0000000000000000";
    assert_eq!(room.python(script).await, format!("['{none}', '{none}', '{none}', '{none}', '{none}', '1', '2']"));
    let script = r"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
PR_CAP_AMBIENT, PR_SET_SECUREBITS = 47, 28
print(libc.prctl(PR_CAP_AMBIENT, 2, 21, 0, 0), libc.prctl(PR_SET_SECUREBITS, 0, 0, 0, 0))
for change in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.seteuid(65534)):
    try: change(); print('changed')
    except OSError: pass
";
    assert_eq!(room.python(script).await, "-1 -1");
}

pub async fn set_user_id_programs_give_nothing() {
    let room = Room::new().await;
    let script = r"
import os, shutil, subprocess
shutil.copy('/usr/bin/id', '/tmp/id'); os.chmod('/tmp/id', 0o6755)
print(subprocess.run(['/tmp/id', '-u'], capture_output=True, text=True).stdout.strip())
suid = [p for p in ('/usr/bin/su', '/usr/bin/passwd', '/bin/mount', '/usr/bin/sudo') if os.path.exists(p) and os.stat(p).st_mode & 0o4000]
for line in open('/proc/self/mountinfo'):
    target, options = line.split()[4:6]
    if target.startswith(('/usr', '/workspace', '/tmp', '/dev/shm')) and 'nosuid' not in options: print('suid counts on', target)
    if target.startswith(('/workspace', '/tmp', '/dev/shm', '/usr')) and 'nodev' not in options: print('devices count on', target)
";
    assert_eq!(room.python(script).await, "1000");
}

pub async fn dangerous_system_calls_are_denied() {
    let room = Room::new().await;
    let script = r"
import ctypes, errno, platform
libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == 'x86_64'
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    return 0 if result >= 0 else ctypes.get_errno()
def number(x86, arm): return x86 if X86 else arm
denied = {
    'ptrace': (number(101, 117), 0), 'unshare': (number(272, 97), 0x10000000), 'setns': (number(308, 268), 0, 0),
    'mount': (number(165, 40), 0, 0, 0, 0, 0), 'umount2': (number(166, 39), 0, 0), 'pivot_root': (number(155, 41), 0, 0),
    'chroot': (number(161, 51), 0), 'process_vm_readv': (number(310, 270), 1, 0, 0, 0, 0, 0),
    'process_vm_writev': (number(311, 271), 1, 0, 0, 0, 0, 0), 'pidfd_getfd': (438, 0, 0, 0),
    'keyctl': (number(250, 219), 0), 'add_key': (number(248, 217), 0, 0, 0, 0, 0), 'bpf': (number(321, 280), 0, 0, 0),
    'userfaultfd': (number(323, 282), 0), 'perf_event_open': (number(298, 241), 0, 0, 0, 0, 0),
    'io_uring_setup': (425, 1, 0), 'io_uring_enter': (426, 0, 0, 0, 0), 'io_uring_register': (427, 0, 0, 0, 0),
    'kexec_load': (number(246, 104), 0, 0, 0, 0), 'init_module': (number(175, 105), 0, 0, 0),
    'reboot': (number(169, 142), 0, 0, 0, 0), 'swapon': (number(167, 224), 0, 0),
    'name_to_handle_at': (number(303, 264), 0, 0, 0, 0, 0), 'open_by_handle_at': (number(304, 265), 0, 0, 0),
    'open_tree': (428, -100, 0, 0), 'move_mount': (429, 0, 0, 0, 0, 0), 'fsopen': (430, 0, 0), 'mount_setattr': (442, 0, 0, 0, 0, 0),
    'open_tree_attr': (467, 0, 0, 0, 0, 0), 'kcmp': (number(312, 272), 1, 1, 0, 0, 0), 'syslog': (number(103, 116), 3, 0, 0),
    'sethostname': (number(170, 161), 0, 0), 'clone new user': (number(56, 220), 0x10000000 | 17, 0, 0, 0, 0),
    'clone new net': (number(56, 220), 0x40000000 | 17, 0, 0, 0, 0), 'prlimit of init': (number(302, 261), 1, 7, 0, 0),
    'setpriority of init': (number(141, 140), 0, 1, 5), 'TIOCSTI': (number(16, 29), 0, 0x5412, 0), 'TIOCLINUX': (number(16, 29), 0, 0x541C, 0),
    'TIOCSTI with high bits': (number(16, 29), 0, 0x1_0000_5412, 0),
    'personality': (number(135, 92), 0x0040000), 'fanotify_init': (number(300, 262), 0, 0),
}
for name, (nr, *arguments) in denied.items():
    error = call(nr, *arguments)
    if error != errno.EPERM: print(name, errno.errorcode.get(error, error))
for name, nr in {'clone3': 435, 'a call of the future': 700, 'x32 getpid': 0x40000000 + 39}.items():
    error = call(nr, 0, 0)
    if error != errno.ENOSYS: print(name, errno.errorcode.get(error, error))
";
    assert_eq!(room.python(script).await, "");
}

pub async fn calls_of_foreign_architectures_end_the_process() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: this processor runs no foreign calls");
        return;
    }
    let room = Room::new().await;
    // mov eax, 20 (getpid of i386); int 0x80; ret
    let script = r"
import ctypes, mmap
code = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
";
    let ran = room.run(&[PYTHON, "-I", "-c", script]).await;
    // A kernel without 32-bit support ends it by SIGSEGV instead.
    assert!(matches!(ran.end.signal, Some(libc::SIGSYS | libc::SIGSEGV)), "{ran:?}");
    assert_eq!(ran.stdout, "");
}

pub async fn ordinary_programs_work_under_the_filters() {
    let room = Room::new().await;
    let script = r"
import asyncio, concurrent.futures, multiprocessing, os, resource, signal, subprocess, tempfile, threading, time
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
assert subprocess.run(['/bin/sh', '-c', 'echo $((1+1))'], capture_output=True).stdout == b'2\n'
with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork')) as pool: assert list(pool.map(abs, [-1, -2])) == [1, 2]
async def main():
    process = await asyncio.create_subprocess_exec('/bin/true'); assert await process.wait() == 0
asyncio.run(main())
with tempfile.NamedTemporaryFile() as f: f.write(b'x')
os.nice(1); resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)); signal.alarm(0)
os.mkfifo('/tmp/fifo'); os.symlink('a', '/tmp/link'); os.link('/tmp/link', '/tmp/link2', follow_symlinks=False)
assert os.cpu_count() >= 1 and time.tzname and os.getpid() > 1
print('ok')
";
    assert_eq!(room.python(script).await, "ok");
}
