//! Kernels: interpreters that keep variables between calls.

use std::time::Duration;

use codegen_types::event::KernelInfo;
use codegen_types::operation::Kernels;
use codegen_types::{Epoch, ErrorCode, EventBody, Exec, KernelName, Limits, Operation, OperationResult, TaskId};

use crate::bench::{Bench, Ran, collect, python};

fn name(name: &str) -> KernelName {
    name.to_owned().try_into().expect("a kernel's name")
}

fn call(kernel: &str, code: &str) -> Operation {
    Operation::Exec(Exec { kernel: Some(name(kernel)), ..Exec::of(python(code)) })
}

async fn run(bench: &Bench, kernel: &str, code: &str) -> Ran {
    bench.run(bench.request(TaskId::mint(), call(kernel, code))).await
}

async fn run_for(bench: &Bench, kernel: &str, code: &str, timeout: Duration) -> Ran {
    let mut request = bench.request(TaskId::mint(), call(kernel, code));
    request.timeout = timeout;
    bench.run(request).await
}

fn notes(ran: &Ran) -> String {
    ran.exit.as_ref().map(|exit| exit.notes.join(" ")).unwrap_or_default()
}

async fn kernels(bench: &Bench, asked: Kernels) -> Result<Vec<KernelInfo>, ErrorCode> {
    let ran = bench.run(bench.request(TaskId::mint(), Operation::Kernels(asked))).await;
    match &ran.events.last().expect("an end").body {
        EventBody::Finished(OperationResult::Kernels { kernels }) => Ok(kernels.clone()),
        EventBody::Failed { failure, .. } => Err(failure.code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn variables_imports_and_functions_last_from_call_to_call() {
    let bench = Bench::new().await;
    let first = run(&bench, "k", "import math\nx = 41\ndef f(n):\n    return n + x\n").await;
    assert_eq!((first.exit_code(), first.stdout.as_str()), (Some(0), ""), "{first:?}");
    assert!(notes(&first).contains("was started"), "{first:?}");
    let second = run(&bench, "k", "print(f(1), math.pi > 3)").await;
    assert_eq!(second.stdout, "42 True\n", "{second:?}");
    assert_eq!(notes(&second), "");
    let other = run(&bench, "other", "print('x' in globals())").await;
    assert_eq!(other.stdout, "False\n", "each kernel has its own");
}

#[tokio::test]
async fn the_value_of_the_last_expression_is_shown() {
    let bench = Bench::new().await;
    for (code, value) in [("x = 6\nx * 7", Some("42")), ("_ + 1", Some("43")), ("None", None), ("x = 1", None)] {
        let ran = run(&bench, "k", code).await;
        let shown = ran.events.iter().find_map(|event| match &event.body {
            EventBody::Display(display) => Some((display.mime.clone(), display.data.clone())),
            _ => None,
        });
        assert_eq!(shown, value.map(|text| ("text/plain".to_owned(), text.as_bytes().to_vec())), "{code}");
    }
}

#[tokio::test]
async fn an_exception_shows_the_users_lines_of_every_call_and_keeps_the_kernel() {
    let bench = Bench::new().await;
    run(&bench, "k", "x = 5\ndef g():\n    return 1 / 0  # here\n").await;
    let ran = run(&bench, "k", "g()").await;
    assert_eq!(ran.exit_code(), Some(1));
    assert!(ran.stderr.contains("<call 2>") && ran.stderr.contains("return 1 / 0  # here"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("run_call"), "nothing of ours: {}", ran.stderr);
    assert_eq!(run(&bench, "k", "print(x)").await.stdout, "5\n");
    let syntax = run(&bench, "k", "x = = 1").await;
    assert!(syntax.stderr.contains("SyntaxError") && !syntax.stderr.contains("ast.py"), "{}", syntax.stderr);
    let exit = run(&bench, "k", "import sys; sys.exit(7)").await;
    assert_eq!(exit.exit_code(), Some(7));
    assert_eq!(run(&bench, "k", "print(x)").await.stdout, "5\n", "leaving a call does not end the kernel");
}

#[tokio::test]
async fn an_interrupt_keeps_the_state_and_a_kill_does_not() {
    let bench = Bench::new().await;
    run(&bench, "k", "x = 5").await;
    let ran = run_for(&bench, "k", "while True: pass", Duration::from_millis(300)).await;
    assert_eq!(ran.code, Some(ErrorCode::TaskTimeout), "{ran:?}");
    assert!(ran.stderr.contains("KeyboardInterrupt") && notes(&ran).contains("keeps its variables"), "{ran:?}");
    assert!(!ran.stderr.contains("<template>"), "the traceback ends where the code was: {}", ran.stderr);
    assert_eq!(run(&bench, "k", "print(x)").await.stdout, "5\n");
    let stubborn =
        "while True:\n    try:\n        y = 0\n        while True: x = 1\n    except KeyboardInterrupt: pass\n";
    let ran = run_for(&bench, "k", stubborn, Duration::from_millis(300)).await;
    assert_eq!(ran.code, Some(ErrorCode::TaskTimeout), "{ran:?}");
    assert!(notes(&ran).contains("is gone"), "{ran:?}");
    let ran = run(&bench, "k", "print('x' in globals())").await;
    assert_eq!(ran.stdout, "False\n");
    assert!(notes(&ran).contains("started anew") && notes(&ran).contains("did not react to the interrupt"), "{ran:?}");
}

#[tokio::test]
async fn calls_on_one_kernel_run_in_order_and_hold_up_nobody_else() {
    let bench = Bench::new().await;
    run(&bench, "k", "import os, time; order = []").await;
    let first = "while not os.path.exists('go'): time.sleep(0.01)";
    let mut streams = vec![bench.stream(bench.request(TaskId::mint(), call("k", first))).await];
    for n in 0..12 {
        let request = bench.request(TaskId::mint(), call("k", &format!("order.append({n})")));
        streams.push(bench.stream(request).await);
    }
    // All of them wait until this is written.
    assert_eq!(bench.python("print('free')").await.stdout, "free\n");
    bench.write("go", "").await;
    for stream in streams {
        assert_eq!(collect(stream).await.exit_code(), Some(0));
    }
    let ran = run(&bench, "k", "print(order == sorted(order), len(order))").await;
    assert_eq!(ran.stdout, "True 12\n");
}

#[tokio::test]
async fn a_call_whose_time_passes_while_it_waits_says_that_nothing_was_run() {
    let bench = Bench::new().await;
    let first = "import os, time; x = 1\nwhile not os.path.exists('go'): time.sleep(0.01)";
    let stream = bench.stream(bench.request(TaskId::mint(), call("k", first))).await;
    while kernels(&bench, Kernels::List).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let ran = run_for(&bench, "k", "x = 2", Duration::from_millis(100)).await;
    let Some(EventBody::Failed { failure, exit: None }) = ran.events.last().map(|event| &event.body) else {
        panic!("{ran:?}")
    };
    assert_eq!(failure.code, ErrorCode::TaskTimeout);
    assert_eq!(
        failure.message,
        "it waited 0.1 s, the time it was given, for earlier calls on kernel `k`; nothing was run"
    );
    bench.write("go", "").await;
    collect(stream).await;
    assert_eq!(run(&bench, "k", "print(x)").await.stdout, "1\n");
}

#[tokio::test]
async fn kernels_are_listed_and_restarted_also_while_they_run() {
    let bench = Bench::new().await;
    assert_eq!(kernels(&bench, Kernels::List).await, Ok(vec![]));
    assert_eq!(kernels(&bench, Kernels::Restart { name: name("k") }).await, Err(ErrorCode::NotFound));
    run(&bench, "k", "x = 1").await;
    let listed = kernels(&bench, Kernels::List).await.unwrap();
    assert_eq!((listed[0].name.as_str(), listed[0].busy, listed[0].calls), ("k", false, 1));
    assert!(listed[0].memory_bytes > 1 << 20 && listed[0].started_ms > 0);
    assert_eq!(kernels(&bench, Kernels::Restart { name: name("k") }).await, Ok(vec![]));
    let ran = run(&bench, "k", "print('x' in globals())").await;
    assert!(ran.stdout == "False\n" && notes(&ran).contains("restarted"), "{ran:?}");
    let mut request = bench.request(TaskId::mint(), call("k", "print('on', flush=True)\nwhile True: pass"));
    request.timeout = Duration::from_secs(60);
    let stream = bench.stream(request).await;
    let busy = || async { kernels(&bench, Kernels::List).await.unwrap().first().is_some_and(|k| k.busy) };
    while !busy().await {
        tokio::task::yield_now().await;
    }
    assert_eq!(kernels(&bench, Kernels::Restart { name: name("k") }).await, Ok(vec![]));
    let ended = collect(stream).await;
    assert_eq!(ended.code, Some(ErrorCode::TaskCancelled), "{ended:?}");
    let ran = run(&bench, "k", "print(1)").await;
    assert!(ran.stdout == "1\n" && notes(&ran).contains("it was restarted"), "{ran:?}");
}

#[tokio::test]
async fn the_peak_of_a_call_is_its_own() {
    let bench = Bench::new().await;
    let peak = |ran: &Ran| ran.exit.as_ref().map(|exit| exit.used.memory_peak_bytes >> 20).expect("an exit");
    let large = "x = bytearray(200 << 20)\nfor n in range(0, len(x), 4096): x[n] = 1\ndel x";
    let large = run(&bench, "k", large).await;
    assert!(large.exit_code() == Some(0) && peak(&large) >= 200, "what it let go of counts: {large:?}");
    let small = run(&bench, "k", "1").await;
    assert!((1..100).contains(&peak(&small)), "the call before is forgotten: {small:?}");
    let child =
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x = b\"x\" * (200 << 20)'], check=True)";
    let child = run(&bench, "k", child).await;
    assert!(child.exit_code() == Some(0) && peak(&child) >= 200, "{child:?}");
    assert!((1..100).contains(&peak(&run(&bench, "k", "1").await)), "a child's, too");
    assert!(kernels(&bench, Kernels::List).await.unwrap()[0].memory_bytes >> 20 < 100);
}

#[tokio::test]
async fn a_restart_that_comes_when_the_call_is_over_is_obeyed() {
    let bench = Bench::new().await;
    // Its pictures are still being drawn when the kernel has let go of the call's streams.
    let show = "import os, threading, time\nx = 1\nclass S:\n    def _repr_svg_(self):\n        return \
                \"<svg xmlns='http://www.w3.org/2000/svg' width='1500' height='1500'/>\"\n\
                def tell():\n    while os.readlink('/proc/self/fd/1') != '/dev/null': time.sleep(0.01)\n    \
                time.sleep(0.1); open('over', 'w')\nthreading.Thread(target=tell).start()\nfor _ in range(4): display(S())";
    let stream = bench.stream(bench.request(TaskId::mint(), call("k", show))).await;
    while bench.shell("test -e over").await.exit_code() != Some(0) {}
    assert_eq!(kernels(&bench, Kernels::Restart { name: name("k") }).await, Ok(vec![]));
    collect(stream).await;
    let ran = run(&bench, "k", "print('x' in globals())").await;
    assert!(ran.stdout == "False\n" && notes(&ran).contains("it was restarted"), "{ran:?}");
}

#[tokio::test]
async fn a_kernel_that_writes_without_end_where_it_gets_its_calls_is_ended_and_holds_up_nobody() {
    let bench = Bench::new().await;
    let number = "import resource, socket\ns = socket.socket(fileno=resource.getrlimit(7)[0] - 1)\n";
    for flood in [
        "while True: s.send(b'x')",
        "while True: s.send(b'{\"call\":0,\"code\":0,\"cpu_ms\":0,\"memory_peak_bytes\":0,\"memory_bytes\":0}')",
    ] {
        let stream = bench.stream(bench.request(TaskId::mint(), call("k", &format!("{number}{flood}")))).await;
        assert_eq!(bench.python("print('free')").await.stdout, "free\n");
        let ran = collect(stream).await;
        assert!(ran.signal() == Some(9) && notes(&ran).contains("through which it gets its calls"), "{ran:?}");
    }
    let ran = run(&bench, "k", "print(1)").await;
    assert!(ran.stdout == "1\n" && notes(&ran).contains("through which it gets its calls"), "{ran:?}");
}

#[tokio::test]
async fn the_first_call_in_a_session_that_was_opened_again_says_what_is_lost() {
    let mut bench = Bench::new().await;
    let first = run(&bench, "k", "x = 1").await;
    assert!(!notes(&first).contains("reopened"), "{first:?}");
    bench.lease.epoch = Epoch(2);
    bench.open(Limits::default()).await;
    let ran = run(&bench, "k", "print('x' in globals())").await;
    assert!(ran.stdout == "False\n" && notes(&ran).contains("reopened"), "{ran:?}");
    assert_eq!(notes(&run(&bench, "k", "1").await), "");
}

#[tokio::test]
async fn a_kernel_that_dies_says_why_and_the_next_call_starts_another() {
    let limits = Limits { memory_bytes: 192 << 20, ..Limits::default() };
    let bench = Bench::with_limits(limits).await;
    for (code, why) in [
        ("import os; os._exit(3)", "exit code 3"),
        ("import ctypes; ctypes.string_at(0)", "signal 11"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("import os; os.closerange(0, 65536)", "exit code 1"),
    ] {
        let ran = run(&bench, "k", code).await;
        assert!(notes(&ran).contains(why) && notes(&ran).contains("is gone"), "{code}: {ran:?}");
        let next = run(&bench, "k", "print(1)").await;
        assert!(next.stdout == "1\n" && notes(&next).contains(why), "{code}: {next:?}");
    }
    let ran = run(&bench, "k", "x = bytearray(1 << 30)\nfor n in range(0, len(x), 4096): x[n] = 1").await;
    assert_eq!(ran.code, Some(ErrorCode::MemoryLimit), "{ran:?}");
    assert_eq!(run(&bench, "k", "print(1)").await.stdout, "1\n");
    // One that ends between two calls is noticed at the next.
    run(&bench, "k", "import threading, os; threading.Timer(0.05, lambda: os._exit(4)).start()").await;
    while !kernels(&bench, Kernels::List).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let ran = run(&bench, "k", "print(1)").await;
    assert!(ran.stdout == "1\n" && notes(&ran).contains("exit code 4"), "{ran:?}");
}

#[tokio::test]
async fn nothing_that_a_call_does_to_its_streams_or_processes_reaches_the_next() {
    let bench = Bench::new().await;
    run(&bench, "k", "import io, sys, os; sys.stdout = io.StringIO(); print('lost')").await;
    assert_eq!(run(&bench, "k", "print('seen')").await.stdout, "seen\n");
    run(&bench, "k", "os.close(1); os.close(2)").await;
    assert_eq!(run(&bench, "k", "print('again')").await.stdout, "again\n");
    for replaced in [
        "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8'); print('own')",
        "print('own'); sys.stdout.close(); sys.stderr.close()",
        "print('own'); kept = sys.stdout.detach(), sys.stderr.detach()",
        "import builtins; print('own'); del sys.stdout, sys.stderr",
        "kept = sys.stdout; kept.write('own\\n'); sys.stdout = None",
        "class Odd:\n    def write(self, text): pass\n    def flush(self): raise SystemExit\nprint('own'); sys.stdout = Odd()",
    ] {
        let ran = run(&bench, "k", replaced).await;
        assert!(ran.exit_code() == Some(0) && ran.stdout == "own\n", "{replaced}: {ran:?}");
        let next = run(&bench, "k", "import gc; gc.collect(); print('next'); print('told', file=sys.stderr)").await;
        assert_eq!((next.stdout.as_str(), next.stderr.as_str()), ("next\n", "told\n"), "{replaced}");
    }
    run(&bench, "k", "early = sys.stdout").await;
    assert_eq!(run(&bench, "k", "early.write('no line')").await.stdout, "no line", "written out in its own call");
    // The child says nothing: it may come to that only when the call, and with it the pipe, is over.
    let forked = run(&bench, "k", "pid = os.fork()\nif pid: print('parent')").await;
    assert!(forked.stdout.contains("parent") && forked.exit_code() == Some(0), "{forked:?}");
    assert_eq!(run(&bench, "k", "print(os.waitpid(pid, 0)[1])").await.stdout, "0\n");
    run(&bench, "k", "import threading, time\ndef late():\n    time.sleep(0.1); print('late')\nthreading.Thread(target=late).start()").await;
    let next = run(&bench, "k", "time.sleep(0.3)").await;
    assert_eq!(next.exit_code(), Some(0), "{next:?}");
    let read = "import sys; print(repr(sys.stdin.read()))";
    let mut exec = Exec { kernel: Some(name("k")), ..Exec::of(python(read)) };
    exec.stdin = b"first\nsecond".to_vec();
    let ran = bench.run(bench.request(TaskId::mint(), Operation::Exec(exec))).await;
    assert_eq!(ran.stdout, "'first\\nsecond'\n");
    assert_eq!(run(&bench, "k", read).await.stdout, "''\n");
}

#[tokio::test]
async fn a_kernel_that_writes_without_end_is_interrupted_and_kept() {
    let bench = Bench::with_limits(Limits { output_bytes: 1 << 20, ..Limits::default() }).await;
    run(&bench, "k", "x = 5").await;
    let ran = run(&bench, "k", "while True: print('x' * 65536)").await;
    assert_eq!(ran.code, Some(ErrorCode::OutputLimit), "{:?}", ran.exit);
    assert_eq!(ran.stdout.len(), 1 << 20);
    // A gigabyte without the end of a line.
    let line = "import sys\npart = 'x' * (1 << 20)\nfor _ in range(1024): sys.stdout.write(part)";
    let ran = run(&bench, "k", line).await;
    assert_eq!((ran.code, ran.stdout.len()), (Some(ErrorCode::OutputLimit), 1 << 20), "{:?}", ran.exit);
    let ran = run(&bench, "k", "print(x)").await;
    assert_eq!(ran.stdout, "5\n", "{ran:?}");
}

#[tokio::test]
async fn values_whose_text_loops_raises_or_recurses_are_the_sessions_own_trouble() {
    let bench = Bench::new().await;
    let class = |body: &str| format!("class C:\n    def __repr__(self):\n        {body}\nC()");
    let ran = run(&bench, "k", &class("raise ValueError('no text')")).await;
    assert!(ran.exit_code() == Some(1) && ran.stderr.contains("no text"), "{ran:?}");
    let ran = run(&bench, "k", &class("return repr(self)")).await;
    assert!(ran.exit_code() == Some(1) && ran.stderr.contains("RecursionError"), "{:?}", ran.exit);
    let ran = run_for(&bench, "k", &class("while True: pass"), Duration::from_millis(300)).await;
    assert_eq!(ran.code, Some(ErrorCode::TaskTimeout));
    let ran = run(&bench, "k", &class("return 'x' * (50 << 20)")).await;
    assert_eq!(ran.exit_code(), Some(0), "{:?}", ran.exit);
    assert_eq!(run(&bench, "k", "print(1)").await.stdout, "1\n");
}

#[tokio::test]
async fn what_a_failed_call_had_at_hand_is_not_kept() {
    let bench = Bench::new().await;
    let fail = "import weakref\nclass Large: pass\nheld = []\ndef f():\n    large = Large(); held.append(weakref.ref(large))\n    \
                try: 1 / 0\n    except ZeroDivisionError: raise ValueError('no')\nf()";
    let ran = run(&bench, "k", fail).await;
    assert!(ran.exit_code() == Some(1) && ran.stderr.contains("ValueError: no"), "{ran:?}");
    assert_eq!(run(&bench, "k", "print(held[0]() is None)").await.stdout, "True\n");
}

#[tokio::test]
async fn an_interrupt_that_is_not_heard_is_repeated() {
    let bench = Bench::new().await;
    // A finaliser swallows what is raised in it.
    let deaf = "import time\nx = 5\nclass Deaf:\n    def __del__(self):\n        until = time.monotonic() + 0.9\n        \
                while time.monotonic() < until: pass\nDeaf()\nwhile True: pass";
    run(&bench, "k", "x = 5").await;
    let ran = run_for(&bench, "k", deaf, Duration::from_millis(300)).await;
    assert_eq!(ran.code, Some(ErrorCode::TaskTimeout), "{ran:?}");
    assert_eq!(run(&bench, "k", "print(x)").await.stdout, "5\n");
}

#[tokio::test]
async fn an_interrupt_at_any_moment_keeps_the_kernel_and_reaches_no_other_call() {
    let bench = Bench::new().await;
    let pid = run(&bench, "k", "import os, time; print(os.getpid())").await.stdout;
    for n in 0..40 {
        // It ends at about the moment when its time does.
        let code = "until = time.monotonic() + 0.006\nwhile time.monotonic() < until: pass";
        let ran = run_for(&bench, "k", code, Duration::from_micros(4_000 + 200 * n)).await;
        assert!(matches!(ran.code, None | Some(ErrorCode::TaskTimeout)), "{ran:?}");
        let ran = run(&bench, "k", "print(os.getpid())").await;
        assert_eq!((ran.exit_code(), &ran.stdout), (Some(0), &pid), "{n}: {ran:?}");
    }
}

#[tokio::test]
async fn there_is_a_limit_to_kernels() {
    let bench = Bench::new().await;
    for n in 0..8 {
        assert_eq!(run(&bench, &format!("k{n}"), "").await.exit_code(), Some(0));
    }
    assert_eq!(run(&bench, "k8", "").await.code, Some(ErrorCode::ProcessLimit));
    kernels(&bench, Kernels::Restart { name: name("k0") }).await.unwrap();
    assert_eq!(run(&bench, "k8", "").await.exit_code(), Some(0));
}
