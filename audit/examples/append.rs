//! Appends one record to a log for each line of its input, and says of each what became of it: something small to
//! watch the log's system calls with, or to put faults under.
//!
//! `append DIR [SEGMENT_BYTES_MAX [CHECKPOINT_RECORDS [PATIENCE_MS]]]` prints `opened N` (the last record that was there),
//! then for each line `ack LINE` once it is durable or `refused LINE`, and `closed` at the end of its input. After a refusal
//! it waits so long for the log to recover, and ends when that takes longer.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use codegen_audit::{Audit, Entry, EventKind, Health, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: append DIR [SEGMENT_BYTES_MAX [CHECKPOINT_RECORDS [PATIENCE_MS]]]")?;
    let mut options = Options::new(dir);
    if let Some(bytes) = arguments.next() {
        options.segment_bytes_max = bytes.parse()?;
    }
    if let Some(records) = arguments.next() {
        options.checkpoint_records = records.parse()?;
    }
    let patience =
        arguments.next().map(|ms| ms.parse()).transpose()?.map_or(Duration::from_secs(2), Duration::from_millis);
    let (audit, opened) = Audit::open(options).await?;
    say(&format!("opened {}", opened.last_seq))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let path = Some(line.clone());
        let appended = audit.append(Entry { kind: EventKind::CallServed, path, ..Entry::default() }).await;
        say(&format!("{} {line}", if appended.is_ok() { "ack" } else { "refused" }))?;
        let mut health = audit.health();
        let writable = health.wait_for(|health| *health == Health::Writable);
        if appended.is_err() && tokio::time::timeout(patience, writable).await.is_err() {
            break;
        }
    }
    audit.close().await;
    say("closed")?;
    Ok(())
}

fn say(what: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()
}
