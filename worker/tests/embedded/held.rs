//! Tasks that are held until a word comes: got ready for, and begun by the word alone.

use std::time::Duration;

use codegen_proto::v1::{TaskEvent, TaskRequest};
use codegen_types::{ErrorCode, Exec, KernelName, Operation, TaskId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tonic::{Response, Status, Streaming};

use crate::bench::{Bench, Ran, collect, python};

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
        let (words, mut sent) = mpsc::channel(2);
        let held = TaskRequest { held: true, ..bench.request(TaskId::mint(), operation).into() };
        words.try_send(held).expect("there is room");
        let mut client = bench.client.clone();
        let sent = futures::stream::poll_fn(move |cx| sent.poll_recv(cx));
        let mut answer = async move { client.execute_task(sent).await }.boxed();
        assert!(tokio::time::timeout(time, &mut answer).await.is_err(), "it is not answered before the word");
        Self { words, answer }
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

#[tokio::test]
async fn what_is_given_up_has_left_nothing() {
    let bench = Bench::new().await;
    bench.run(bench.request(TaskId::mint(), code(Some("k"), "x = 1"))).await;
    let count = "import os\nprint(sum(entry.isdigit() for entry in os.listdir('/proc')))";
    let before = bench.python(count).await.stdout;
    // More than there may be programs at once.
    for round in 0..10 {
        for kernel in [None, Some("k")] {
            let held =
                Held::new(&bench, code(kernel, "open('mark', 'w')\nx = 2\nimport os\nos.environ['MARK'] = '1'"), SOON)
                    .await;
            drop(held);
        }
        let ran = bench
            .run(bench.request(TaskId::mint(), code(Some("k"), "import os\nprint(x, os.environ.get('MARK'))")))
            .await;
        assert_eq!((ran.stdout.as_str(), ran.exit_code()), ("1 None\n", Some(0)), "round {round}: {ran:?}");
        assert_eq!(ran.exit.map(|exit| exit.notes), Some(Vec::new()), "the kernel is the same");
    }
    assert_eq!(bench.python("import os\nprint(os.path.exists('mark'))").await.stdout, "False\n");
    assert_eq!(bench.python(count).await.stdout, before, "no process is left");
}

#[tokio::test]
async fn what_threads_of_a_kernel_write_while_a_call_is_held_is_in_no_later_call() {
    let bench = Bench::new().await;
    let talk = "import threading, time\ndef talk():\n    while True:\n        print('talk', flush=True)\n        time.sleep(0.001)\n\
                threading.Thread(target=talk, daemon=True).start()";
    bench.run(bench.request(TaskId::mint(), code(Some("k"), talk))).await;
    drop(Held::new(&bench, code(Some("k"), "pass"), SOON).await);
    let stop = "talk = None\nimport sys\nprint('still here')";
    let ran = bench.run(bench.request(TaskId::mint(), code(Some("k"), stop))).await;
    assert!(ran.stdout.contains("still here") && ran.exit_code() == Some(0), "{ran:?}");
}

#[tokio::test]
async fn a_source_that_is_wrong_is_told_once_and_after_the_word() {
    let bench = Bench::new().await;
    bench.run(bench.request(TaskId::mint(), code(Some("k"), "x = 1"))).await;
    for kernel in [None, Some("k")] {
        let ran = Held::new(&bench, code(kernel, "x = = 1"), SOON).await.begin().await;
        assert_eq!(ran.exit_code(), Some(1), "{ran:?}");
        assert_eq!(ran.stderr.matches("SyntaxError").count(), 1, "{ran:?}");
    }
    let ran = Held::new(&bench, code(Some("k"), "'\\d'\nprint(x)"), SOON).await.begin().await;
    assert_eq!((ran.stdout.as_str(), ran.exit_code()), ("1\n", Some(0)), "{ran:?}");
    assert!(ran.stderr.matches("invalid escape").count() <= 1, "{ran:?}");
}

#[tokio::test]
async fn calls_that_are_held_on_one_kernel_run_in_the_order_in_which_they_came() {
    let bench = Bench::new().await;
    bench.run(bench.request(TaskId::mint(), code(Some("k"), "seen = []"))).await;
    let calls =
        ["first", "given up", "second"].map(|name| code(Some("k"), &format!("seen.append('{name}')\nprint(seen)")));
    let [first, given_up, second] = calls;
    let first = Held::new(&bench, first, SOON / 4).await;
    let given_up = Held::new(&bench, given_up, SOON / 4).await;
    let second = Held::new(&bench, second, SOON / 4).await;
    drop(given_up);
    let (second, first) = tokio::join!(second.begin(), first.begin());
    assert_eq!((first.stdout.as_str(), second.stdout.as_str()), ("['first']\n", "['first', 'second']\n"));
}

#[tokio::test]
async fn a_task_that_is_held_can_be_cancelled_once_it_has_begun_and_times_out_from_then_on() {
    let bench = Bench::new().await;
    bench.run(bench.request(TaskId::mint(), code(Some("k"), "x = 1"))).await;
    for kernel in [None, Some("k")] {
        let mut request =
            bench.request(TaskId::mint(), code(kernel, "import time\nprint('runs', flush=True)\ntime.sleep(60)"));
        request.timeout = Duration::from_secs(1);
        let (words, mut sent) = mpsc::channel(2);
        words.try_send(TaskRequest { held: true, ..request.into() }).expect("there is room");
        words.try_send(TaskRequest::default()).expect("there is room");
        let sent = futures::stream::poll_fn(move |cx| sent.poll_recv(cx));
        let answer = bench.client.clone().execute_task(sent).await.expect("the task is taken");
        let ran = collect(answer.into_inner()).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(ErrorCode::TaskTimeout), "runs\n"), "{ran:?}");
    }
    let ran = bench.run(bench.request(TaskId::mint(), code(Some("k"), "print(x)"))).await;
    assert_eq!(ran.stdout, "1\n", "{ran:?}");
}

#[tokio::test]
async fn a_kernel_has_the_streams_of_a_call_that_it_holds_until_it_forgets_it() {
    let bench = Bench::new().await;
    let look = "import collections, os, threading, time\nseen = collections.Counter()\ndef look():\n    while True:\n        \
                seen[os.readlink('/proc/self/fd/1')] += 1\n        time.sleep(0.001)\n\
                threading.Thread(target=look, daemon=True).start()";
    let run = async |text: &str| bench.run(bench.request(TaskId::mint(), code(Some("k"), text))).await;
    assert_eq!(run(look).await.exit_code(), Some(0));
    run("seen.clear()").await;
    drop(Held::new(&bench, code(Some("k"), "pass"), SOON).await);
    tokio::time::sleep(LATE).await;
    // Its own streams are there for a moment; those of the call that was held were there for longer.
    let seen =
        run("print([seen['/dev/null'] > 10, any(link[:4] == 'pipe' and seen[link] > 2 for link in seen)])").await;
    assert_eq!(seen.stdout, "[True, True]\n", "{seen:?}");
}
