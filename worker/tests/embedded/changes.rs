//! Changes of files are told while a program still runs.

use std::collections::BTreeMap;
use std::time::Duration;

use codegen_types::event::ChangeKind;
use codegen_types::{Event, EventBody, TaskId};

use crate::bench::{Bench, exec, python};

/// Goes on when it is told to, so that what it did before was seen before its end.
const LONG: &str = "
import os, time
open('made', 'w').write('1')
while not os.path.exists('go'): time.sleep(0.01)
open('made', 'w').write('22')
";

#[tokio::test]
async fn a_long_program_tells_what_it_changes_while_it_runs() {
    let bench = Bench::new().await;
    let mut stream = bench.stream(bench.request(TaskId::mint(), exec(python(LONG), "", &[]))).await;
    let mut told = BTreeMap::new();
    let mut named_at_the_end = Vec::new();
    let all = async {
        while let Some(event) = stream.message().await.expect("the link holds") {
            match Event::try_from(event).expect("a well-formed event").body {
                EventBody::FilesChanged(changes) => {
                    told.extend(changes.into_iter().map(|change| (change.path.to_string(), change.change)));
                    bench.write("go", "").await;
                }
                EventBody::Finished(codegen_types::OperationResult::Exec(exit)) => {
                    named_at_the_end = exit.files_changed
                }
                EventBody::Failed { failure, .. } => panic!("{failure}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("it is told, and ends");
    assert_eq!(told.get("made"), Some(&ChangeKind::Created), "{told:?}");
    let named: Vec<_> = named_at_the_end.iter().map(|change| (change.path.as_str(), change.size)).collect();
    assert_eq!(named, [("go", 0), ("made", 2)], "the end tells all of it");
}

#[tokio::test]
async fn a_short_program_tells_only_at_its_end() {
    let bench = Bench::new().await;
    let ran = bench.python("open('made', 'w').write('1')").await;
    assert!(!ran.events.iter().any(|event| matches!(event.body, EventBody::FilesChanged(_))), "{ran:?}");
    assert_eq!(ran.exit.map(|exit| exit.files_changed.len()), Some(1));
}
