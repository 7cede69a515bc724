//! The verifier that shares no code with this crate agrees with it.

use std::path::Path;
use std::process::Command;

use codegen_audit::{Verdict, latest_note, verify};

use crate::stored;

/// Its exit code, and what it said.
fn python(dir: &Path, more: &[&str]) -> (i32, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("verify.py");
    let output = Command::new("python3").arg(script).arg(dir).args(more).output().expect("python3 is installed");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

const fn exit_code(verdict: &Verdict) -> i32 {
    match verdict {
        Verdict::Whole => 0,
        Verdict::Tampered { .. } => 10,
        Verdict::CutAfterCheckpoint { .. } => 11,
        Verdict::TornTail { .. } => 12,
        Verdict::Unreadable { .. } => 13,
    }
}

#[tokio::test]
async fn python_verifies_a_log_of_several_segments_and_their_checkpoints() {
    let stored = stored::closed(30, 3_000).await;
    let (code, said) = python(stored.dir(), &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("32 records"), "{said}");
}

#[tokio::test]
async fn python_gives_the_same_verdict_on_damage() {
    let stored = stored::closed(8, 3_000).await;
    let kept = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(kept.path(), latest_note(stored.dir()).unwrap().unwrap()).unwrap();
    let segments = stored.segments();
    let (name, whole) = segments.last().unwrap();
    let flipped: Vec<u8> =
        whole.iter().enumerate().map(|(at, byte)| if at == 100 { byte ^ 1 } else { *byte }).collect();
    let damages: [(&str, &[u8]); 5] = [
        ("changed", &flipped),
        ("cut inside", &whole[..whole.len() - 7]),
        ("torn behind", &[&whole[..], b"{\"v\":1,", &[0; 99]].concat()),
        ("hole behind", &[&whole[..], b"{\"v\"\0\0x"].concat()),
        ("emptied", b""),
    ];
    for (what, contents) in damages {
        stored.write(name, contents);
        let ours = verify(stored.dir(), Some(kept.path())).verdict;
        let (code, said) = python(stored.dir(), &["--checkpoint", kept.path().to_str().unwrap()]);
        assert_eq!(code, exit_code(&ours), "{what}: {said} against {ours:?}");
        assert_ne!(code, 0, "{what}");
    }
    stored.restore();
    std::fs::remove_file(stored.dir().join(&segments[0].0)).unwrap();
    assert_eq!(python(stored.dir(), &[]).0, 0, "an archived beginning is no damage");
    let text = std::fs::read_to_string(kept.path()).unwrap();
    std::fs::write(kept.path(), text.replacen("head ", "Head ", 1)).unwrap();
    assert_eq!(
        python(stored.dir(), &["--checkpoint", kept.path().to_str().unwrap()]).0,
        13,
        "a forged note says nothing"
    );
}
