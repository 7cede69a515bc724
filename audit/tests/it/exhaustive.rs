//! Every way to change a small log at or before its last checkpoint is tried, and every one to change its checkpoints and
//! keys.

use codegen_audit::{Audit, OpenError, Verdict};

use crate::forger::{Line, is_found, is_found_by_any_skill, is_whole, lines_of, notes, runtime, small};
use crate::stored;

#[test]
fn every_bit_of_every_record_is_covered() {
    let stored = small(2, 700);
    let segments = stored.segments();
    assert!(segments.len() > 1 && is_whole(&stored));
    for (name, whole) in &segments {
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[place] ^= 1 << bit;
                stored.write(name, &changed);
                assert!(is_found(&stored), "{name:?}, byte {place}, bit {bit}");
            }
        }
        stored.write(name, whole);
    }
}

#[test]
fn every_deletion_swap_and_duplicate_of_records_is_found_also_with_all_hashes_made_anew() {
    let stored = small(5, 1_000);
    let before = lines_of(&stored);
    assert!(before.len() == 7 && before.last().unwrap().segment > 1 && is_whole(&stored));
    for one in 0..before.len() {
        let mut deleted = before.clone();
        deleted.remove(one);
        is_found_by_any_skill(&stored, &before, &deleted, &format!("record {} deleted", one + 1));
        for two in 0..before.len() {
            if one < two {
                let other = &before[two];
                let mut swapped = before.clone();
                (swapped[one].bytes, swapped[two].bytes) = (other.bytes.clone(), before[one].bytes.clone());
                is_found_by_any_skill(
                    &stored,
                    &before,
                    &swapped,
                    &format!("records {} and {} swapped", one + 1, two + 1),
                );
            }
            let mut doubled = before.clone();
            doubled.insert(two, Line { segment: before[two].segment, bytes: before[one].bytes.clone() });
            is_found_by_any_skill(&stored, &before, &doubled, &format!("record {} again before {}", one + 1, two + 1));
        }
    }
}

#[test]
fn every_insertion_before_a_checkpointed_record_is_found_also_with_all_hashes_made_anew() {
    let stored = small(3, 1_000);
    let before = lines_of(&stored);
    let stranger = lines_of(&small(4, 1 << 20));
    let forged = String::from_utf8(before[1].bytes.clone()).unwrap().replacen("call.served", "task.outcome", 1);
    for place in 0..before.len() {
        let insertions: [(&str, Vec<u8>); 7] = [
            ("an empty line", b"\n".to_vec()),
            ("a space", b" ".to_vec()),
            ("NUL bytes", vec![0; 9]),
            ("an empty object", b"{}\n".to_vec()),
            ("text", b"not a record\n".to_vec()),
            ("a record of another log", stranger[place].bytes.clone()),
            ("a forged record", forged.clone().into_bytes()),
        ];
        for (what, bytes) in insertions {
            let mut after = before.clone();
            after.insert(place, Line { segment: before[place].segment, bytes });
            is_found_by_any_skill(&stored, &before, &after, &format!("{what} before record {}", place + 1));
        }
    }
}

#[test]
fn every_bit_of_every_stored_checkpoint_is_covered_and_keeps_the_log_closed() {
    let stored = small(2, 700);
    let runtime = runtime();
    let notes = notes(&stored);
    assert!(notes.len() > 1);
    for (path, whole) in &notes {
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[place] ^= 1 << bit;
                std::fs::write(path, &changed).unwrap();
                assert!(is_found(&stored), "{path:?}, byte {place}, bit {bit}");
                // Opening takes longer; the bit that it looks at goes round.
                if bit == place % 8 {
                    let error = runtime.block_on(Audit::open(stored::options(stored.dir(), 700))).err();
                    assert!(matches!(error, Some(OpenError::Checkpoint(_))), "{path:?}, byte {place}: {error:?}");
                }
            }
        }
        for cut in 0..whole.len() {
            std::fs::write(path, &whole[..cut]).unwrap();
            assert!(is_found(&stored), "{path:?} cut at byte {cut}");
        }
        let error = runtime.block_on(Audit::open(stored::options(stored.dir(), 700))).err();
        assert!(matches!(error, Some(OpenError::Checkpoint(_))), "{path:?} cut: {error:?}");
        std::fs::write(path, whole).unwrap();
    }
    assert!(is_whole(&stored), "everything is as it was");
}

/// A key that is not the log's would sign checkpoints that nobody can verify.
#[test]
fn a_changed_or_cut_key_is_refused_or_makes_no_difference() {
    let stored = small(1, 1 << 20);
    let runtime = runtime();
    let kept_key = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(stored.dir().join("keys/checkpoint.vkey"), kept_key.path()).unwrap();
    let options = codegen_audit::VerifyOptions { checkpoint: None, key: Some(kept_key.path().to_owned()) };
    let mut refused = 0;
    let mut check = |what: String| {
        match runtime.block_on(Audit::open(stored::options(stored.dir(), 1 << 20))) {
            Err(OpenError::Key(_) | OpenError::Checkpoint(_)) => refused += 1,
            Err(error) => panic!("{what}: {error}"),
            Ok((audit, _)) => runtime.block_on(audit.close()),
        }
        assert_eq!(codegen_audit::verify_with(stored.dir(), &options).verdict, Verdict::Whole, "{what}");
        stored.restore();
    };
    for name in ["checkpoint.key", "checkpoint.vkey", "redaction.key"] {
        let path = stored.dir().join("keys").join(name);
        let whole = std::fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1 << (place % 8);
            std::fs::write(&path, &changed).unwrap();
            check(format!("{name}, byte {place}"));
            std::fs::write(&path, &whole[..place]).unwrap();
            check(format!("{name} cut at byte {place}"));
        }
    }
    assert!(refused > 500, "{refused}");
}
