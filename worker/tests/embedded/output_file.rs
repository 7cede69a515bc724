//! All that a program wrote is kept in the workspace, when it is too much for a result.

use codegen_types::{EventBody, Exit};

use crate::bench::Bench;

const LONG: &str = "
import sys
for n in range(40_000):
    print('out', n, flush=n % 1000 == 0)
    if n % 1000 == 0: print('err', n, file=sys.stderr, flush=True)
";

fn written(body: &EventBody) -> Option<&Vec<u8>> {
    match body {
        EventBody::Output { bytes, .. } => Some(bytes),
        _ => None,
    }
}

#[tokio::test]
async fn long_output_is_whole_in_a_file_and_in_the_order_in_which_it_was_told() {
    let bench = Bench::new().await;
    let ran = bench.python(LONG).await;
    let told: Vec<u8> = ran.events.iter().filter_map(|event| written(&event.body)).flatten().copied().collect();
    let exit = ran.exit.expect("it ended");
    let path = exit.output_file.expect("a file");
    assert!(path.as_str().starts_with(".codegen/output/tsk_"), "{path}");
    let kept = std::fs::read(bench.workspaces().join(bench.session.to_string()).join(path.as_str())).expect("it reads");
    assert!(kept == told, "{} bytes are kept, {} were told", kept.len(), told.len());
    assert_eq!((exit.files_changed, exit.notes), (vec![], Vec::<String>::new()));
}

#[tokio::test]
async fn short_output_needs_no_file() {
    let bench = Bench::new().await;
    let Exit { output_file, .. } = bench.python("print('x' * 30_000)").await.exit.expect("it ended");
    assert_eq!(output_file, None);
}

#[tokio::test]
async fn what_session_code_puts_in_its_place_is_not_followed_and_the_program_goes_on() {
    let bench = Bench::new().await;
    for trap in [
        "os.makedirs('target', exist_ok=True); os.symlink('../target', '.codegen/output')",
        "os.symlink('/tmp', '.codegen/output')",
        "os.mkfifo('.codegen/output')",
        "open('.codegen/output', 'w').close()",
    ] {
        let code = format!(
            "import os, shutil\nshutil.rmtree('.codegen', True)\nos.mkdir('.codegen')\n{trap}\nprint('x' * 100_000)"
        );
        let exit = bench.python(&code).await.exit.expect("it ended");
        assert_eq!((exit.code, &exit.output_file), (Some(0), &None), "{trap}");
        assert!(exit.notes.iter().any(|note| note.contains("could not be kept")), "{trap}: {:?}", exit.notes);
        bench.python("import os\nassert not os.path.exists('target') or os.listdir('target') == []").await;
    }
}
