//! Programs in a fresh interpreter behave as `python FILE` and `python -c CODE` do.

use std::time::{Duration, Instant};

use codegen_types::{ErrorCode, EventBody, Program, TaskId};

use crate::bench::{Bench, exec, kill, line_of, poll, python};

#[tokio::test]
async fn it_prints_reads_its_input_and_sees_its_arguments_and_variables() {
    let bench = Bench::new().await;
    let code =
        "import os, sys\nprint(input(), sys.argv[1:], os.environ['X'], os.getcwd())\nprint('e', file=sys.stderr)";
    let program = Program::PythonCode { code: code.to_owned(), args: vec!["a".into(), "b c".into()] };
    let ran = bench.exec(program, "first line\nsecond", &[("X", "ä")]).await;
    assert_eq!(ran.stdout, "first line ['a', 'b c'] ä /workspace\n");
    assert_eq!(ran.stderr, "e\n");
    assert_eq!(ran.exit_code(), Some(0));
}

#[tokio::test]
async fn nothing_of_one_program_is_left_for_the_next() {
    let bench = Bench::new().await;
    bench.python("import sys, random\nx = 1\nsys.path.append('/x')\nprint(random.random())").await;
    let code = "import sys\nprint('x' in globals(), '/x' in sys.path, __name__, sys.modules['__main__'].__dict__ is globals())";
    assert_eq!(bench.python(code).await.stdout, "False False __main__ True\n");
    let code = "import random\nprint(random.random())";
    assert_ne!(bench.python(code).await.stdout, bench.python(code).await.stdout, "each program has its own seed");
}

#[tokio::test]
async fn an_exception_shows_the_users_own_lines_and_nothing_of_ours() {
    let bench = Bench::new().await;
    let ran = bench.python("def f(n):\n    return 1 // n\n\nf(0)\n").await;
    let expected = "Traceback (most recent call last):\n  File \"<code>\", line 4, in <module>\n    f(0)\n  File \"<code>\", \
                    line 2, in f\n    return 1 // n\n           ~~^^~~\nZeroDivisionError: integer division or modulo by zero\n";
    assert_eq!(ran.stderr, expected);
    assert_eq!(ran.exit_code(), Some(1));
    let ran = bench.python("x = = 1").await;
    assert_eq!(ran.stderr, "  File \"<code>\", line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n");
}

#[tokio::test]
async fn every_way_to_exit_gives_the_status_that_python_gives() {
    let bench = Bench::new().await;
    for (code, status) in [
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit(7)", 7),
        ("raise SystemExit(-1)", 255),
        ("import os; os._exit(9)", 9),
        ("import sys; sys.exit('why')", 1),
        ("raise ValueError", 1),
    ] {
        assert_eq!(bench.python(code).await.exit_code(), Some(status), "{code}");
    }
    assert_eq!(bench.python("import sys; sys.exit('why')").await.stderr, "why\n");
    assert_eq!(bench.python("import os; os.kill(os.getpid(), 11)").await.signal(), Some(11));
    assert_eq!(bench.python("raise KeyboardInterrupt").await.signal(), Some(2));
}

#[tokio::test]
async fn handlers_threads_and_open_files_are_finished_at_the_end() {
    let bench = Bench::new().await;
    let code = "import atexit, threading, time\natexit.register(print, 'atexit')\n\
                threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n\
                f = open('left-open.txt', 'w')\nf.write('text')\nprint('main', end='')";
    let ran = bench.python(code).await;
    assert_eq!(ran.stdout, "mainthread\natexit\n");
    assert_eq!(bench.shell("cat left-open.txt").await.stdout, "text");
    let changed: Vec<String> = ran.exit.unwrap().files_changed.iter().map(|file| file.path.to_string()).collect();
    assert_eq!(changed, ["left-open.txt"]);
}

#[tokio::test]
async fn logs_and_pools_are_finished_after_everything_else() {
    let bench = Bench::new().await;
    let code = "import atexit, concurrent.futures, logging.handlers, sys, time\n\
                logging.lastResort = None\n\
                kept = logging.handlers.MemoryHandler(1000, target=logging.StreamHandler(sys.stdout))\n\
                logging.getLogger().addHandler(kept)\n\
                atexit.register(logging.warning, 'at exit')\n\
                pool = concurrent.futures.ThreadPoolExecutor()\n\
                pool.submit(lambda: (time.sleep(0.1), print('pool')))\n\
                logging.warning('kept')";
    assert_eq!(bench.python(code).await.stdout, "pool\nkept\nat exit\n");
    // One that logs nothing by itself says at its end what its library kept.
    let code = "import logging.handlers, sys\n\
                kept = logging.handlers.MemoryHandler(1000, target=logging.StreamHandler(sys.stdout))\n\
                kept.handle(logging.makeLogRecord({'msg': 'alone'}))";
    assert_eq!(bench.python(code).await.stdout, "alone\n");
}

#[tokio::test]
async fn a_thread_that_is_about_to_end_is_waited_for() {
    let bench = Bench::new().await;
    let code = "import threading, time\n\
                class Late:\n  def __del__(self): time.sleep(0.3); print('late')\n\
                local = threading.local()\n\
                threading.Thread(target=lambda: setattr(local, 'value', Late())).start()\n\
                time.sleep(0.1)";
    assert_eq!(bench.python(code).await.stdout, "late\n");
}

#[tokio::test]
async fn a_program_may_end_without_a_descriptor_to_spare() {
    let bench = Bench::new().await;
    let code =
        "import os\ntry:\n  while True: os.open('/dev/null', os.O_RDONLY)\nexcept OSError as error: print(error.errno)";
    let ran = bench.python(code).await;
    assert_eq!((ran.exit_code(), ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "24\n", ""));
}

/// What a session's path configuration files do is done in the spare, too, which must come to no harm by it.
#[tokio::test]
async fn path_configuration_files_of_a_session_may_fail_and_import() {
    let bench = Bench::new().await;
    let code = "import os, sys\n\
                place = '.codegen/python/lib/python%d.%d/site-packages/' % sys.version_info[:2]\n\
                os.makedirs(place)\n\
                open(place + 'bad.pth', 'w').write('import not_there')\n\
                open(place + 'kept.py', 'w').write('VALUE = 42')\n\
                open(place + 'good.pth', 'w').write('import concurrent.futures.thread, kept')";
    assert_eq!(bench.python(code).await.exit_code(), Some(0));
    let code = "import concurrent.futures, kept\n\
                print(concurrent.futures.ThreadPoolExecutor().submit(lambda: kept.VALUE).result())";
    for _ in 0..6 {
        assert_eq!(bench.python(code).await.stdout, "42\n");
        // The next one's spare has time to do all that it can.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn of_programs_that_follow_each_other_at_once_each_leaves_its_own_processes() {
    let bench = Bench::new().await;
    for n in 0..8 {
        let code = format!("import subprocess\nleft = subprocess.Popen(['sleep', '1000'])\nprint({n})");
        let ran = bench.python(&code).await;
        assert_eq!(ran.stdout, format!("{n}\n"));
        assert_eq!(ran.exit.unwrap().leftovers_killed, 1, "the one that waits for the next call is none of them");
        assert_eq!(bench.python("print('quick')").await.exit_code(), Some(0));
    }
}

#[tokio::test]
async fn output_arrives_while_the_program_runs() {
    let bench = Bench::new().await;
    let code = "import sys\nprint('first')\nsys.stdin.read()\nwhile True: pass";
    let task = TaskId::mint();
    let mut stream = bench.stream(bench.request(task, exec(python(code), "", &[]))).await;
    loop {
        let event = stream.message().await.unwrap().expect("the program runs for ever");
        if matches!(codegen_types::Event::try_from(event).unwrap().body, EventBody::Output { bytes, .. } if bytes == b"first\n")
        {
            break;
        }
    }
    assert!(bench.cancel(task, Duration::from_secs(5)).await);
    let ran = bench.attach(task, 1).await;
    assert_eq!(ran.code, Some(ErrorCode::TaskCancelled));
    assert!(ran.stderr.contains("KeyboardInterrupt"), "the interrupt shows where it was: {}", ran.stderr);
    drop(stream);
}

#[tokio::test]
async fn a_file_of_the_workspace_runs_as_a_script() {
    let bench = Bench::new().await;
    bench.write("pkg/tool.py", "import sys, helper\nprint(__name__, __file__, sys.argv, helper.VALUE)").await;
    bench.write("pkg/helper.py", "VALUE = 42").await;
    let file = |path: &str| Program::PythonFile { path: path.to_owned().try_into().unwrap(), args: vec!["x".into()] };
    let ran = bench.exec(file("pkg/tool.py"), "", &[]).await;
    assert_eq!(ran.stdout, "__main__ /workspace/pkg/tool.py ['pkg/tool.py', 'x'] 42\n", "{ran:?}");
    assert!(ran.exit.unwrap().files_changed.is_empty(), "no compiled files are left");
    assert_eq!(bench.exec(file("pkg/none.py"), "", &[]).await.code, Some(ErrorCode::NotFound));
    assert_eq!(bench.exec(file("pkg"), "", &[]).await.code, Some(ErrorCode::NotAFile));
}

#[tokio::test]
async fn multiprocessing_works_by_fork_and_by_spawn() {
    let bench = Bench::new().await;
    let code = "import multiprocessing\ndef square(x): return x * x\nif __name__ == '__main__':\n  for method in 'fork', \
                'spawn':\n    with multiprocessing.get_context(method).Pool(2) as pool: print(pool.map(square, [2, 3]))";
    assert_eq!(bench.python(code).await.stdout, "[4, 9]\n[4, 9]\n");
}

#[tokio::test]
async fn a_megabyte_of_source_and_of_input_is_no_trouble() {
    let bench = Bench::new().await;
    let code = format!("x = '{}'\nimport sys\nprint(len(x), len(sys.stdin.read()))", "y".repeat(1 << 20));
    let ran = bench.exec(python(&code), &"z".repeat(1 << 20), &[]).await;
    assert_eq!(ran.stdout, "1048576 1048576\n");
    let unread = bench.exec(python("print('done')"), &"z".repeat(1 << 20), &[]).await;
    assert_eq!(unread.stdout, "done\n", "a program need not read what it is given");
}

#[tokio::test]
async fn tasks_of_one_session_run_side_by_side() {
    let bench = Bench::new().await;
    let waits = "import os, time\nopen('here-{}'.format(os.environ['ME']), 'w').close()\n\
                 while not os.path.exists('here-{}'.format(os.environ['YOU'])): time.sleep(0.01)\nprint('met')";
    let (one, other) = tokio::join!(
        bench.exec(python(waits), "", &[("ME", "a"), ("YOU", "b")]),
        bench.exec(python(waits), "", &[("ME", "b"), ("YOU", "a")]),
    );
    assert_eq!((one.stdout.as_str(), other.stdout.as_str()), ("met\n", "met\n"));
}

#[tokio::test]
async fn a_prepared_interpreter_that_is_lost_is_made_anew() {
    let bench = Bench::new().await;
    let (task, line) = a_sleeper(&bench).await;
    bench.cancel(task, Duration::ZERO).await;
    assert_eq!(bench.attach(task, 1).await.code, Some(ErrorCode::TaskCancelled));
    let [_program, interpreter, ..] = line[..] else { panic!("{line:?}") };
    kill(interpreter);
    for _ in 0..5 {
        assert_eq!(bench.python("print('still here')").await.stdout, "still here\n");
    }
}

#[tokio::test]
async fn a_lost_lane_costs_the_sandbox_and_is_told() {
    let bench = Bench::new().await;
    bench.write("kept.txt", "kept").await;
    let (task, line) = a_sleeper(&bench).await;
    let [_program, lane, ..] = line[..] else { panic!("{line:?}") };
    kill(lane);
    let ran = bench.attach(task, 1).await;
    assert_eq!(ran.signal(), Some(9), "{ran:?}");
    assert!(ran.stderr.contains("the sandbox was restarted"), "{}", ran.stderr);
    let next = bench.python("print(open('kept.txt').read())").await;
    assert_eq!(next.stdout, "kept\n");
    let told = next.exit.as_ref().is_some_and(|exit| exit.notes.iter().any(|note| note.contains("replaced")));
    assert!(told, "{next:?}");
}

/// Starts a program that sleeps, and finds its processes: the program, the lane of the prepared interpreter and so
/// on up to the worker.
async fn a_sleeper(bench: &Bench) -> (TaskId, Vec<u32>) {
    let task = TaskId::mint();
    let nap = format!("86400.{}", task.to_string().bytes().map(u64::from).fold(7, |sum, b| sum * 31 % 1_000_003 + b));
    let code = format!("import subprocess\nsubprocess.run(['sleep', '{nap}'])");
    // The task runs on when nobody reads its events.
    drop(bench.stream(bench.request(task, exec(python(&code), "", &[]))).await);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut line = poll(deadline, "the sleeper runs", || line_of(&nap, bench.worker.id())).await;
    line.remove(0);
    (task, line)
}

#[tokio::test]
async fn a_program_cannot_reach_into_the_prepared_interpreter() {
    let bench = Bench::new().await;
    let code = "import os\nfor what in ('mem', 'environ', 'maps', 'fd'):\n  path = f'/proc/{os.getppid()}/{what}'\n  try:\n    \
                os.listdir(path) if what == 'fd' else open(path, 'rb').read(1)\n    print('reached', what)\n  except OSError as error:\n    print(what, error.errno)";
    assert_eq!(bench.python(code).await.stdout, "mem 13\nenviron 13\nmaps 13\nfd 13\n");
    let own = bench.python("print(len(open('/proc/self/maps').read()) > 0)").await;
    assert_eq!(own.stdout, "True\n", "its own process is its own");
}

#[tokio::test]
async fn what_a_program_prints_is_never_taken_for_our_protocol() {
    let bench = Bench::new().await;
    let code = "print('{\"exited\":{\"code\":0,\"signal\":null,\"cpu_ms\":0,\"memory_peak_bytes\":0,\"leftovers_killed\":0}}', \
                flush=True)\nimport os\nprint(sorted(os.listdir('/proc/self/fd')))\nraise SystemExit(3)";
    let ran = bench.python(code).await;
    assert_eq!(ran.exit_code(), Some(3));
    assert!(
        ran.stdout.contains("['0', '1', '1022', '1023', '2', '3']"),
        "the standard streams, where things are shown, the listing: {ran:?}"
    );
    let closed = bench.python("import os\nos.closerange(0, 100)\nos._exit(4)").await;
    assert_eq!(closed.exit_code(), Some(4), "closing them changes nothing for us");
}
