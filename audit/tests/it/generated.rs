//! Random ways to change generated logs.

use codegen_audit::{Audit, Entry, EventKind, Options, Outcome, Verdict, verify};
use codegen_types::{Principal, TaskId};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use crate::forger::{Line, SKILLS, begins_with, lines_of, rechained, runtime, write};
use crate::stored::{self, Stored};

/// One event, of which every part that others decide is anything at all.
fn any_entry() -> impl Strategy<Value = Entry> {
    let kind = (0..EventKind::ALL.len()).prop_map(|index| EventKind::ALL[index]);
    let text = || proptest::option::of(".{0,40}");
    (kind, text(), text(), text(), any::<Option<u64>>(), any::<bool>()).prop_map(
        |(kind, tool, path, deep, bytes, ok)| Entry {
            kind,
            principal: Some(Principal::os_user("ann")),
            task: ok.then(TaskId::mint),
            args: deep.clone().map(|text| json!({ text.clone(): [text], "hash": "\",\"hash\":\"" })),
            detail: deep.map(serde_json::Value::String),
            outcome: Some(if ok { Outcome::Ok } else { Outcome::Failed }),
            tool,
            path,
            bytes,
            ..Entry::default()
        },
    )
}

/// A log of these entries, closed or as `kill -9` leaves it.
fn generated(entries: Vec<Entry>, segment_bytes_max: u64, checkpoint_records: u64, is_closed: bool) -> Stored {
    runtime().block_on(async {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let options = Options { checkpoint_records, ..stored::options(dir.path(), segment_bytes_max) };
        let (audit, _) = Audit::open(options).await.unwrap();
        for entry in entries {
            audit.append(entry).await.unwrap();
        }
        if is_closed {
            audit.close().await;
        }
        // A writer that still runs may add a checkpoint meanwhile, and its files are looked at one after the other.
        let stored = Stored::copy_of(dir.path());
        audit.close().await;
        stored
    })
}

#[test]
fn whatever_is_done_to_a_generated_log_before_its_last_checkpoint_is_found() {
    let log = (proptest::collection::vec(any_entry(), 1..12), 600_u64..4_000, 1_u64..7, any::<bool>());
    let change =
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5, 0..3_usize);
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let found = runner.run(&(log, change), |((entries, segment, checkpoint, is_closed), change)| {
        let stored = generated(entries, segment, checkpoint, is_closed);
        let verified = verify(stored.dir(), None);
        let covered = usize::try_from(verified.covered.0).unwrap();
        prop_assume!(covered > 0);
        prop_assert!(
            matches!(verified.verdict, Verdict::Whole | Verdict::TornTail { torn_bytes: 0, .. }),
            "{verified:?}"
        );
        let before = lines_of(&stored);
        let (one, two, bit, kind, skill) = change;
        let (one, two) = (one.index(covered), two.index(covered));
        let mut after = before.clone();
        match kind {
            0 => {
                let place = bit.index(before[one].bytes.len() * 8);
                after[one].bytes[place / 8] ^= 1 << (place % 8);
            }
            1 => drop(after.remove(one)),
            2 => (after[one].bytes, after[two].bytes) = (before[two].bytes.clone(), before[one].bytes.clone()),
            3 => after.insert(two, Line { segment: before[two].segment, bytes: before[one].bytes.clone() }),
            _ => {
                let text = String::from_utf8_lossy(&before[one].bytes).replacen("\"outcome\":", "\"Outcome\":", 1);
                after.insert(two, Line { segment: before[two].segment, bytes: text.into_bytes() });
            }
        }
        let after = rechained(&after, SKILLS[skill]);
        prop_assume!(!begins_with(&after, &before[..covered]));
        write(&stored, &after, SKILLS[skill]);
        let verdict = verify(stored.dir(), None).verdict;
        prop_assert!(matches!(verdict, Verdict::Tampered { .. } | Verdict::CutAfterCheckpoint { .. }), "{verdict:?}");
        if kind == 0 && skill == 0 && after[one].bytes.ends_with(b"\n") {
            let Verdict::Tampered { at, .. } = &verdict else { panic!("{verdict:?}") };
            prop_assert_eq!(at.seq.0, one as u64 + 1, "the first bad record is named");
        }
        Ok(())
    });
    found.unwrap();
}
