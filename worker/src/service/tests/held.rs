//! Tasks that are held until another word comes.

use futures::FutureExt as _;
use tokio::sync::mpsc;

use super::*;

/// Messages of one request as they are sent, and the request.
fn request() -> (mpsc::UnboundedSender<Result<v1::TaskRequest, Status>>, impl Requests) {
    let (messages, mut sent) = mpsc::unbounded_channel();
    (messages, futures::stream::poll_fn(move |cx| sent.poll_recv(cx)))
}

fn held(task: ExecuteTask) -> Result<v1::TaskRequest, Status> {
    Ok(v1::TaskRequest { held: true, ..task.into() })
}

fn word() -> Result<v1::TaskRequest, Status> {
    Ok(v1::TaskRequest::default())
}

#[tokio::test]
async fn a_task_that_is_held_is_none_before_the_word_and_runs_once_after_it() {
    let bench = Bench::new(prints("hello")).await;
    let task = TaskId::mint();
    let (messages, request) = request();
    messages.send(held(bench.request(task, 2))).unwrap();
    let mut taking = std::pin::pin!(bench.service.take(None, request));
    assert!((&mut taking).now_or_never().is_none());
    assert_eq!(bench.attach(task, 1).await.err(), Some(ErrorCode::NotFound));
    messages.send(word()).unwrap();
    let first = collect(taking.await.unwrap()).await;
    assert!(matches!(&first[2].body, EventBody::Finished(OperationResult::Exec(exit)) if exit.code == Some(0)));
    let again = collect(bench.execute(bench.request(task, 2)).await.unwrap()).await;
    assert_eq!((first, bench.starts.load(Ordering::SeqCst)), (again, 1));
}

#[tokio::test]
async fn a_request_that_ends_breaks_or_is_dropped_before_the_word_has_left_nothing() {
    let bench = Bench::new(prints("hello")).await;
    let task = TaskId::mint();
    for end in ["ends", "breaks", "is dropped"] {
        let (messages, request) = request();
        messages.send(held(bench.request(task, 2))).unwrap();
        let mut taking = Box::pin(bench.service.take(None, request));
        assert!((&mut taking).now_or_never().is_none());
        match end {
            "ends" => drop(messages),
            "breaks" => messages.send(Err(Status::unavailable("the link is gone"))).unwrap(),
            _ => {
                drop(taking);
                continue;
            }
        }
        assert!(taking.await.is_err(), "{end}");
    }
    assert_eq!(bench.attach(task, 1).await.err(), Some(ErrorCode::NotFound));
    assert_eq!(bench.starts.load(Ordering::SeqCst), 0);
    // It may still be asked for.
    assert!(failure_code(&collect(bench.execute(bench.request(task, 2)).await.unwrap()).await).is_none());
}

#[tokio::test]
async fn what_is_refused_is_refused_when_it_begins() {
    let bench = Bench::new(prints("hello")).await;
    let (messages, request) = request();
    messages.send(held(bench.request(TaskId::mint(), 2))).unwrap();
    let mut taking = std::pin::pin!(bench.service.take(None, request));
    assert!((&mut taking).now_or_never().is_none());
    bench.close(2, false).await.unwrap();
    messages.send(word()).unwrap();
    assert_eq!(taking.await.map_err(code).err(), Some(ErrorCode::PermissionDenied));
}
