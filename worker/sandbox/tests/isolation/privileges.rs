//! Privileges: none, and no way to any.

use codegen_types::{IsolationLevel, Layer};

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

/// The rules of this architecture, and how each is tried.
#[cfg(target_arch = "x86_64")]
const POLICY: &str = include_str!("../../src/layers/seccomp/policy/x86_64.toml");
#[cfg(target_arch = "aarch64")]
const POLICY: &str = include_str!("../../src/layers/seccomp/policy/aarch64.toml");
const ATTEMPTS: &str = include_str!("../../src/layers/seccomp/policy/attempts.toml");

/// Makes calls, and prints of each by what error it was stopped.
const ATTEMPT: &str = r"
import ctypes, errno, json, sys
libc = ctypes.CDLL(None, use_errno=True)
def stopped(number, arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    return errno.errorcode.get(ctypes.get_errno(), 'unknown') if result == -1 else 'not'
print(json.dumps([stopped(*attempt) for attempt in json.loads(sys.argv[1])]))
";

pub async fn every_denied_system_call_is_stopped_as_the_policy_says() {
    let room = Room::new().await;
    let (policy, attempts): (toml::Table, toml::Table) = (POLICY.parse().unwrap(), ATTEMPTS.parse().unwrap());
    let mut sections = vec!["always"];
    if !crate::limits::is_enforced(Layer::MemoryLimit).await {
        sections.push("sampled");
    }
    if crate::room::level().await < IsolationLevel::Full {
        sections.push("below_full");
    }
    let (mut expected, mut tried) = (Vec::new(), Vec::new());
    for section in sections {
        let rules = policy[section].as_array().unwrap();
        for (index, rule) in rules.iter().enumerate() {
            let call = rule["call"].as_str().unwrap();
            let way = rules[..index].iter().filter(|earlier| earlier["call"].as_str() == Some(call)).count();
            let attempts = attempts[section].as_array().unwrap().iter();
            let attempt = attempts.filter(|attempt| attempt["call"].as_str() == Some(call)).nth(way).unwrap();
            let arguments: Vec<i64> =
                attempt["with"].as_array().unwrap().iter().map(|n| n.as_integer().unwrap()).collect();
            let answer = rule.get("answer").and_then(|text| text.as_str()).unwrap_or("EPERM");
            // Of two rules that deny the same, the later one answers.
            let same = |(earlier, with, _): &&mut (&str, Vec<i64>, &str)| *earlier == call && *with == arguments;
            expected.iter_mut().filter(|earlier| same(earlier)).for_each(|earlier| earlier.2 = answer);
            expected.push((call, arguments.clone(), answer));
            tried.push(serde_json::json!([rule["number"].as_integer().unwrap(), arguments]));
        }
    }
    // Beyond the rules: a number of the future, one of x32, and a request whose high bits the kernel ignores.
    expected.extend([
        ("a call of the future", Vec::new(), "ENOSYS"),
        ("x32 getpid", Vec::new(), "ENOSYS"),
        ("TIOCSTI with high bits", Vec::new(), "EPERM"),
    ]);
    let ioctl =
        policy["always"].as_array().unwrap().iter().find(|rule| rule["call"].as_str() == Some("ioctl")).unwrap();
    let ioctl = ioctl["number"].as_integer().unwrap();
    tried.extend(
        [(700, [0_i64, 0, 0]), (0x4000_0000 + 39, [0, 0, 0]), (ioctl, [0_i64, 0x1_0000_5412, 0])]
            .map(|a| serde_json::json!(a)),
    );
    let stopped = room.run(&[PYTHON, "-I", "-c", ATTEMPT, &serde_json::to_string(&tried).unwrap()]).await;
    let stopped: Vec<String> = serde_json::from_str(&stopped.stdout).unwrap_or_else(|_| panic!("{stopped:?}"));
    for ((call, _, answer), stopped) in expected.iter().zip(&stopped) {
        println!("{call:<24} {stopped}");
        assert_eq!(stopped, answer, "{call}");
    }
    assert_eq!(expected.len(), stopped.len());
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
