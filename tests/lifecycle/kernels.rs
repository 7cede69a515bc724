//! Kernels that die: the call says why, and the next one starts another and says so.

use e2e::{Answer, Client, Installation, User};
use serde_json::json;

fn call(client: &mut Client, code: &str) -> Answer {
    client.tool("run_python", json!({"code": code, "kernel": "k", "timeout_seconds": 60}))
}

/// That the kernel is gone for this reason, and that the next call is told so and has another.
fn is_gone(client: &mut Client, ended: &Answer, why: &str) {
    let gone = format!("Kernel `k` is gone and its variables with it: {why}. The next call starts a new one.");
    assert!(ended.text.contains(&gone), "{}", ended.text);
    let next = call(client, "print('x' in globals())");
    let anew = format!("Kernel `k` was started anew, so earlier variables are gone: {why}.");
    assert!(next.ok().contains(&anew) && next.text.contains("stdout:\nFalse"), "{}", next.text);
    let later = call(client, "x = 1\nprint('on')");
    assert!(later.ok().contains("stdout:\non") && !later.text.contains("Kernel"), "it is said once: {}", later.text);
}

#[test]
fn a_kernel_that_ends_itself_says_by_which_signal_or_code() {
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        assert!(call(&mut client, "x = 1").ok().contains("Kernel `k` was started."));
        for (code, status, why) in [
            ("import os; os._exit(3)", "exit 3 in ", "it ended with exit code 3"),
            ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV in ", "it was killed by signal 11"),
            ("import os; os.abort()", "killed by SIGABRT in ", "it was killed by signal 6"),
            ("import os; os.closerange(0, 65536)", "exit 1 in ", "it ended with exit code 1"),
        ] {
            let ended = call(&mut client, code);
            assert!(ended.failed().starts_with(status), "{code}: {}", ended.text);
            is_gone(&mut client, &ended, why);
        }
    }
}

/// Another process of the kernel goes on when it forks and leaves.
#[test]
fn a_kernel_that_forks_and_leaves_is_gone_with_the_process_that_it_left_behind() {
    for user in User::all() {
        let installation = Installation::for_user(user);
        let mut client = installation.client();
        let forks = "import os, time\nx = 1\nready, tell = os.pipe()\nif os.fork() == 0:\n    \
                     os.write(tell, b'x')\n    while True:\n        \
                     with open('beat', 'w') as f: f.write(str(time.monotonic_ns()))\n\
                     os.read(ready, 1)\nos._exit(5)";
        let ended = call(&mut client, forks);
        assert!(ended.failed().starts_with("exit 5 in "), "{}", ended.text);
        assert!(ended.text.contains("; 1 process it left running was ended"), "{}", ended.text);
        is_gone(&mut client, &ended, "it ended with exit code 5");
        let passes_on = call(&mut client, "import os\nif os.fork(): os._exit(0)\nprint('in the child')");
        assert!(passes_on.ok().starts_with("exit 0 in "), "it did as it was told: {}", passes_on.text);
        is_gone(&mut client, &passes_on, "it ended with exit code 0");
        let looks = "import os, time\ntimes = []\nfor _ in range(2):\n    \
                     times.append(os.stat('beat').st_mtime_ns if os.path.exists('beat') else 0)\n    time.sleep(0.2)\n\
                     print(times[0] == times[1])";
        assert!(call(&mut client, looks).ok().contains("stdout:\nTrue"), "nothing of it goes on");
    }
}

#[test]
fn a_kernel_that_takes_more_memory_than_its_session_may_says_so() {
    let installation = Installation::new();
    let config = installation.outside().join("little.toml");
    std::fs::write(&config, "[limits]\nmemory_bytes = 268435456\n").expect("a configuration file");
    let mut client = installation.client_with(["--config", config.to_str().expect("a path")]);
    let info = client.tool("session_info", json!({}));
    let layers = info.structured["isolation"]["layers"].as_array().expect("layers").clone();
    if !layers.iter().any(|layer| layer["layer"] == "memory_limit" && layer["state"] == "enforced") {
        println!("SKIPPED: without control groups a kernel is refused memory rather than ended");
        return;
    }
    call(&mut client, "x = 1").ok();
    let ended = call(&mut client, "large = bytearray(1 << 30)\nfor n in range(0, len(large), 4096): large[n] = 1");
    ended.code("MEMORY_LIMIT");
    is_gone(&mut client, &ended, "it was killed for using more memory than the session may");
}
