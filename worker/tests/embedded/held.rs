//! Tasks that are held until a word comes: got ready for, and begun by the word alone.

use std::time::{Duration, Instant};

use codegen_proto::ExecuteTask;
use codegen_proto::v1::{TaskEvent, TaskRequest};
use codegen_types::operation::Kernels;
use codegen_types::{ErrorCode, Exec, KernelName, Operation, TaskId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tonic::{Response, Status, Streaming};

use crate::bench::{Bench, Ran, collect, poll, python};

/// Long enough for all that can be done ahead, and short enough that it still waits.
const SOON: Duration = Duration::from_millis(8);
/// After this what was got ready is dropped.
const LATE: Duration = Duration::from_millis(200);

/// A task at its worker that waits for the word.
struct Held {
    words: mpsc::Sender<TaskRequest>,
    answer: BoxFuture<'static, Result<Response<Streaming<TaskEvent>>, Status>>,
}

impl Held {
    /// Sends a task to be held, and gives its worker so much time to get ready.
    async fn new(bench: &Bench, operation: Operation, time: Duration) -> Self {
        Self::of(bench, bench.request(TaskId::mint(), operation), time).await
    }

    async fn of(bench: &Bench, request: ExecuteTask, time: Duration) -> Self {
        let (words, mut sent) = mpsc::channel(2);
        let held = TaskRequest { held: true, ..request.into() };
        words.try_send(held).expect("there is room");
        let mut client = bench.client.clone();
        let sent = futures::stream::poll_fn(move |cx| sent.poll_recv(cx));
        let mut answer = async move { client.execute_task(sent).await }.boxed();
        assert!(tokio::time::timeout(time, &mut answer).await.is_err(), "it is not answered before the word");
        Self { words, answer }
    }

    /// Ends the request without the word.
    async fn end(self) {
        drop(self.words);
        assert!(self.answer.await.is_err(), "nothing began");
    }

    async fn begin(self) -> Ran {
        self.words.try_send(TaskRequest::default()).expect("there is room");
        collect(self.answer.await.expect("the task is taken").into_inner()).await
    }
}

fn code(kernel: Option<&str>, code: &str) -> Operation {
    let kernel = kernel.map(|name| KernelName::try_from(name.to_owned()).expect("a kernel's name"));
    Operation::Exec(Exec { kernel, ..Exec::of(python(code)) })
}

#[tokio::test]
async fn what_is_held_runs_once_after_the_word_and_never_before_it() {
    let bench = Bench::new().await;
    bench.run(bench.request(TaskId::mint(), code(Some("k"), "print('there is a kernel')"))).await;
    for kernel in [None, Some("k"), Some("new")] {
        for (time, word) in [(SOON, "soon"), (LATE, "late")] {
            let name = format!("{}-{word}", kernel.unwrap_or("fresh"));
            let program = format!("open('{name}', 'a').write('x')\nprint(open('{name}').read())\n6 * 7");
            let held = Held::new(&bench, code(kernel, &program), time).await;
            let seen = bench.python(&format!("import os\nprint(os.path.exists('{name}'))")).await;
            assert_eq!(seen.stdout, "False\n", "{name}");
            let ran = held.begin().await;
            assert_eq!((ran.exit_code(), ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "x\n", ""), "{name}");
            let changed: Vec<_> = ran.exit.iter().flat_map(|exit| &exit.files_changed).collect();
            assert_eq!(changed.len(), 1, "{name}: {changed:?}");
        }
    }
}

async fn run(bench: &Bench, kernel: Option<&str>, text: &str) -> Ran {
    bench.run(bench.request(TaskId::mint(), code(kernel, text))).await
}

#[tokio::test]
async fn what_is_given_up_has_left_nothing() {
    let bench = Bench::new().await;
    run(&bench, Some("k"), "x = 1").await;
    let count = "import os\nprint(sum(entry.isdigit() for entry in os.listdir('/proc')))";
    let processes = async || bench.python(count).await.stdout.trim().parse::<u32>().expect("a number");
    let before = processes().await;
    let given_up = "open('mark', 'w')\nx = 2\nimport os\nos.environ['MARK'] = '1'";
    // More than there may be programs at once.
    for round in 0..10 {
        for kernel in [None, Some("k")] {
            let held = Held::new(&bench, code(kernel, given_up), SOON).await;
            if round % 2 == 0 { drop(held) } else { held.end().await }
        }
        let ran = run(&bench, Some("k"), "import os\nprint(x, os.environ.get('MARK'))").await;
        assert_eq!((ran.stdout.as_str(), ran.exit_code()), ("1 None\n", Some(0)), "round {round}: {ran:?}");
        assert_eq!(ran.exit.map(|exit| exit.notes), Some(Vec::new()), "the kernel is the same");
    }
    assert_eq!(bench.python("import os\nprint(os.path.exists('mark'))").await.stdout, "False\n");
    let until = Instant::now() + Duration::from_secs(10);
    // A second lane with its spare may have come to stay.
    while processes().await > before + 2 {
        assert!(Instant::now() < until, "processes are left");
        tokio::time::sleep(LATE).await;
    }
    let ran = run(&bench, Some("k"), "1 / 0").await;
    assert!(ran.stderr.contains("<call 12>"), "calls that were forgotten are none: {}", ran.stderr);
}

/// Counts in a thread of kernel `k`, each millisecond, how many descriptors it has.
const LOOK: &str = "import collections, os, threading, time
seen = collections.Counter()
def look():
    while True:
        seen[len(os.listdir('/proc/self/fd'))] += 1
        time.sleep(0.001)
        print('a word', flush=True)
looking = threading.Thread(target=look, daemon=True)
looking.start()";

#[tokio::test]
async fn a_kernel_has_a_call_that_it_holds_and_its_threads_see_nothing_of_it() {
    let bench = Bench::new().await;
    assert_eq!(run(&bench, Some("k"), LOOK).await.exit_code(), Some(0));
    // To compile this takes a while.
    let long = "x = [1, 2, 3]\n".repeat(2_000);
    let mut seen = false;
    for _ in 0..50 {
        run(&bench, Some("k"), "seen.clear()").await;
        drop(Held::new(&bench, code(Some("k"), "pass"), SOON).await);
        drop(Held::new(&bench, code(Some("k"), &long), SOON / 8).await);
        tokio::time::sleep(LATE / 4).await;
        let ran = run(&bench, Some("k"), "print(looking.is_alive(), sum(n > 1 for n in seen.values()) > 1)").await;
        let said: Vec<&str> = ran.stdout.lines().filter(|line| *line != "a word").collect();
        // The descriptors of the call that was held came beside its own, and went.
        seen = match said.as_slice() {
            ["True True"] => true,
            ["True False"] => false,
            _ => panic!("{ran:?}"),
        };
        if seen {
            break;
        }
    }
    assert!(seen, "no call was with its kernel before the word");
}

#[tokio::test]
async fn a_source_that_is_wrong_or_doubtful_is_told_once_and_after_the_word() {
    let bench = Bench::new().await;
    run(&bench, Some("k"), "x = 1").await;
    for kernel in [None, Some("k")] {
        let ran = Held::new(&bench, code(kernel, "def f():\n    return 1 is 1\nreturn 5"), SOON).await.begin().await;
        assert_eq!(ran.exit_code(), Some(1), "{ran:?}");
        assert_eq!(ran.stderr.matches("SyntaxError").count(), 1, "{ran:?}");
        assert_eq!(ran.stderr.matches("SyntaxWarning").count(), 1, "{ran:?}");
        let ran = Held::new(&bench, code(kernel, "1 is 1\nx = 1\nprint(x)"), SOON).await.begin().await;
        assert_eq!((ran.stdout.as_str(), ran.exit_code()), ("1\n", Some(0)), "{ran:?}");
        assert_eq!(ran.stderr.matches("SyntaxWarning").count(), 1, "{ran:?}");
    }
}

#[tokio::test]
async fn what_an_earlier_call_left_to_say_is_said_in_the_next_one_and_once() {
    let bench = Bench::new().await;
    let leave = "import gc\nclass Left:\n    def __init__(self):\n        self.me = self\n    def __del__(self):\n        \
                 print('left')\ngc.collect()\nLeft()\nNone";
    // To compile this makes so much that the collector runs.
    let long = "x = [1, [2, [3, {4: 5}]]]\n".repeat(500);
    run(&bench, Some("k"), leave).await;
    let ran = Held::new(&bench, code(Some("k"), &(long + "import gc\ngc.collect()\nNone")), SOON).await.begin().await;
    assert_eq!((ran.stdout.as_str(), ran.exit_code()), ("left\n", Some(0)), "{ran:?}");
    run(&bench, Some("k"), "import warnings\nwarnings.simplefilter('once')").await;
    drop(Held::new(&bench, code(Some("k"), "1 is 1"), SOON).await);
    let ran = Held::new(&bench, code(Some("k"), "1 is 1"), SOON).await.begin().await;
    assert_eq!(ran.stderr.matches("SyntaxWarning").count(), 1, "{ran:?}");
}

#[tokio::test]
async fn a_kernel_that_may_have_few_descriptors_or_closed_all_goes_on() {
    let bench = Bench::new().await;
    let limit = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\nx = 1";
    let close = "import os\nfor fd in map(int, os.listdir('/proc/self/fd')):\n    try:\n        if os.readlink(f'/proc/self/fd/{fd}') \
                 == '/dev/null':\n            os.close(fd)\n    except OSError:\n        pass\nx = 1";
    for (kernel, text) in [("few", limit), ("closed", close)] {
        run(&bench, Some(kernel), text).await;
        for _ in 0..2 {
            let ran = run(&bench, Some(kernel), "print(x)").await;
            assert_eq!((ran.stdout.as_str(), ran.exit_code()), ("1\n", Some(0)), "{kernel}: {ran:?}");
        }
    }
}

#[tokio::test]
async fn calls_that_are_held_on_one_kernel_run_in_the_order_in_which_they_came() {
    let bench = Bench::new().await;
    run(&bench, Some("k"), "seen = []").await;
    let calls =
        ["first", "given up", "second"].map(|name| code(Some("k"), &format!("seen.append('{name}')\nprint(seen)")));
    let [first, given_up, second] = calls;
    let first = Held::new(&bench, first, SOON / 4).await;
    let given_up = Held::new(&bench, given_up, SOON / 4).await;
    let second = Held::new(&bench, second, SOON / 4).await;
    drop(given_up);
    let (first, second) = tokio::join!(first.begin(), second.begin());
    assert_eq!((first.stdout.as_str(), second.stdout.as_str()), ("['first']\n", "['first', 'second']\n"));
}

#[tokio::test]
async fn a_call_whose_kernel_is_restarted_while_it_is_held_runs_in_the_next_one() {
    let bench = Bench::new().await;
    run(&bench, Some("k"), "x = 1").await;
    for _ in 0..5 {
        let held = Held::new(&bench, code(Some("k"), "print('x' in globals())"), SOON / 2).await;
        let restart = Operation::Kernels(Kernels::Restart { name: "k".to_owned().try_into().expect("a name") });
        let (ran, restarted) = tokio::join!(
            async {
                tokio::time::sleep(SOON / 2).await;
                held.begin().await
            },
            bench.run(bench.request(TaskId::mint(), restart)),
        );
        assert_eq!((ran.stdout.as_str(), ran.code, restarted.code), ("False\n", None, None), "{ran:?}");
    }
}

#[tokio::test]
async fn a_task_whose_sandbox_is_lost_while_it_is_held_runs_in_the_next_one() {
    let bench = Bench::new().await;
    run(&bench, Some("k"), "x = 1").await;
    for kernel in [None, Some("k")] {
        let held = Held::new(&bench, code(kernel, "print('runs')"), SOON / 4).await;
        // Whoever watches over the session's programs is killed by one of them, or they with it.
        let killing = bench.python("import os\nos.kill(1, 9)\nos.kill(-1, 9)").await;
        let ran = held.begin().await;
        assert_eq!((ran.stdout.as_str(), ran.code), ("runs\n", None), "{ran:?} after {killing:?}");
    }
}

#[tokio::test]
async fn a_task_that_was_held_is_cancelled_and_times_out_like_any_other() {
    let bench = Bench::new().await;
    run(&bench, Some("k"), "x = 1").await;
    let text = "import time\nopen('runs', 'w').close()\ntime.sleep(60)";
    for kernel in [None, Some("k")] {
        let mut request = bench.request(TaskId::mint(), code(kernel, text));
        request.timeout = Duration::from_secs(1);
        let ran = Held::of(&bench, request, SOON).await.begin().await;
        assert_eq!(ran.code, Some(ErrorCode::TaskTimeout), "{ran:?}");

        let request =
            bench.request(TaskId::mint(), code(kernel, "open('again', 'w').close()\nimport time\ntime.sleep(60)"));
        let task = request.task;
        let begun = tokio::spawn(Held::of(&bench, request, SOON).await.begin());
        let again = bench.workspaces().join(bench.session.to_string()).join("again");
        poll(Instant::now() + Duration::from_secs(10), "it runs", || again.exists().then_some(())).await;
        std::fs::remove_file(&again).expect("it is there");
        assert!(bench.cancel(task, Duration::from_secs(5)).await);
        let ran = begun.await.expect("no panic");
        assert_eq!(ran.code, Some(ErrorCode::TaskCancelled), "{ran:?}");
    }
    assert_eq!(run(&bench, Some("k"), "print(x)").await.stdout, "1\n");
}
