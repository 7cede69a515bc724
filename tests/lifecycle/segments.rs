//! Files of the log that somebody removes, or puts older copies in the place of: between two servers, and under one.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::{Client, Installation, poll_until, signal};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::clock::{Clock, HOUR};
use super::disk::{PATIENCE, Server, of_kind, segments, session, verified_records};

// What `audit verify` exits with.
const WHOLE: i32 = 0;
const TAMPERED: i32 = 10;
const CUT: i32 = 11;

/// A server whose log has three segments: a clock that is set back begins one.
struct Segmented {
    installation: Installation,
    clock: Clock,
    server: Server,
    client: Client,
    session: Value,
}

impl Segmented {
    fn start() -> Self {
        let installation = Installation::new();
        let clock = Clock::of(&installation);
        let server = clock.server(&installation, &[]);
        let mut client = installation.client();
        let session = session(&mut client);
        let mut segmented = Self { installation, clock, server, client, session };
        for hours in 1..=2 {
            segmented.run("before").ok();
            segmented.clock.set(-hours * HOUR);
        }
        segmented.run("before").ok();
        assert_eq!(segments(&segmented.installation).len(), 3);
        segmented
    }

    fn run(&mut self, word: &str) -> e2e::Answer {
        let run = json!({"session_id": self.session, "command": format!("echo {word} >> ran.txt")});
        self.client.tool("run_shell", run)
    }

    fn segment(&self, index: usize) -> PathBuf {
        segments(&self.installation).swap_remove(index)
    }

    /// Writes over the beginning of the last segment, in place.
    fn write_over(&self, bytes: &[u8]) {
        let last = segments(&self.installation).pop().expect("a segment");
        let file = fs::File::options().write(true).open(last).expect("the segment");
        file.write_all_at(bytes, 0).expect("writing over it");
    }

    /// Ends the server in good order.
    fn stop(mut self) -> Installation {
        self.client.close();
        self.server.stop();
        self.installation
    }
}

fn log(installation: &Installation) -> PathBuf {
    installation.state_dir().join("audit")
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("cp").success());
}

fn verdict(installation: &Installation) -> (i32, String) {
    let verify = installation.run(["audit", "verify"]);
    (verify.status.code().expect("an exit"), String::from_utf8_lossy(&verify.stdout).into_owned())
}

/// What a server says that does not start.
fn refused(installation: &Installation) -> String {
    let mut child = Server::command(installation).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut said = String::new();
    stderr.read_line(&mut said).expect("it says something");
    if said.contains("serving MCP") {
        signal(child.id(), Signal::TERM);
    }
    stderr.read_to_string(&mut said).expect("it says no more");
    let status = poll_until("it ends", PATIENCE, || child.try_wait().expect("waiting for a child"));
    assert!(!status.success(), "no server starts: {said}");
    said
}

/// Starts a server, looks that what was done is still there, and ends it.
fn goes_on(installation: &Installation, session: &Value) {
    let mut server = Server::start(installation);
    let mut client = installation.client();
    client.tool("run_shell", json!({"session_id": session, "command": "grep before ran.txt"})).ok();
    client.close();
    server.stop();
}

fn remove(segment: &Path) {
    fs::remove_file(segment).expect("a segment");
}

/// Cuts a file behind its first line, as it was once.
fn make_older(segment: &Path) {
    let contents = fs::read(segment).expect("a segment");
    let first = contents.iter().position(|byte| *byte == b'\n').expect("a record") + 1;
    let older = segment.with_extension("older");
    fs::write(&older, &contents[..first]).expect("a file");
    fs::rename(older, segment).expect("in its place");
}

#[test]
fn between_two_servers_a_segment_that_is_missing_or_an_older_copy_is_found() {
    let segmented = Segmented::start();
    let session = segmented.session.clone();
    let installation = segmented.stop();
    let (log, kept) = (log(&installation), installation.outside().join("kept"));
    copy(&log, &kept);
    let put_back = || {
        fs::remove_dir_all(&log).expect("a directory");
        copy(&kept, &log);
    };
    let all = segments(&installation);
    for (index, found) in [(1, TAMPERED), (2, CUT)] {
        remove(&all[index]);
        assert_eq!(verdict(&installation).0, found, "segment {index} is missing");
        assert!(refused(&installation).contains("audit repair"), "segment {index} is missing");
        put_back();
    }
    make_older(&all[2]);
    assert_eq!(verdict(&installation).0, CUT, "the last one is older");
    assert!(refused(&installation).contains("audit repair"));
    put_back();
    make_older(&all[1]);
    assert_eq!(verdict(&installation).0, TAMPERED, "one amid them is older");
    put_back();
    all.iter().for_each(|segment| remove(segment));
    assert_eq!(verdict(&installation).0, CUT, "none is left");
    assert!(refused(&installation).contains("audit repair"));
    put_back();
    // As it is when the oldest are archived elsewhere.
    remove(&all[0]);
    let (found, said) = verdict(&installation);
    assert!(found == WHOLE && said.contains("are archived elsewhere"), "{said}");
    goes_on(&installation, &session);
}

#[test]
fn records_without_a_checkpoint_that_are_lost_under_a_killed_server_are_missed_by_the_store_and_that_is_on_record() {
    for damage in [remove as fn(&Path), make_older] {
        let segmented = Segmented::start();
        let (installation, last) = (&segmented.installation, segmented.segment(2));
        installation.kill_server();
        damage(&last);
        let of_loss = |records: &[Value]| {
            let recovered = of_kind(records, "log.recovered").into_iter().map(|record| record["detail"].clone());
            recovered.filter(|detail| detail["after"] == "loss").collect::<Vec<_>>()
        };
        for start in 1..=2 {
            goes_on(installation, &segmented.session);
            let records = verified_records(installation);
            let losses = of_loss(&records);
            assert_eq!(losses.len(), 1, "start {start}: {losses:?}");
            assert!(losses[0]["known_to"].as_u64() >= losses[0]["lost_from"].as_u64(), "{losses:?}");
        }
        // What came into the log since counts.
        let mut client = installation.client();
        client.tool("session_close", json!({"session_id": segmented.session})).ok();
        installation.kill_server();
        let closed = installation.client().tool("fs_list", json!({"session_id": segmented.session}));
        closed.code("SESSION_CLOSED");
    }
}

#[test]
fn under_a_server_that_runs_the_loss_of_its_segment_is_noticed_and_that_of_another_is_found() {
    let mut segmented = Segmented::start();
    let (aside, last) = (segmented.installation.outside().join("aside"), segmented.segment(2));
    fs::rename(&last, &aside).expect("moving it away");
    segmented.run("unrecorded").code("AUDIT_UNAVAILABLE");
    assert_eq!(segmented.server.until_ready(false)["checks"]["log"], "failing");
    let refused = segmented.run("unrecorded");
    refused.code("AUDIT_UNAVAILABLE");
    fs::rename(&aside, &last).expect("putting it back");
    segmented.server.until_ready(true);
    segmented.run("after").ok();
    verified_records(&segmented.installation);

    let (middle, aside) = (segmented.segment(1), segmented.installation.outside().join("middle"));
    fs::rename(&middle, &aside).expect("moving it away");
    segmented.run("after").ok();
    assert_eq!(verdict(&segmented.installation).0, TAMPERED);
    let session = segmented.session.clone();
    let installation = segmented.stop();
    assert!(self::refused(&installation).contains("audit repair"));
    fs::rename(&aside, &middle).expect("putting it back");
    goes_on(&installation, &session);
    let ran = of_kind(&verified_records(&installation), "task.attempt");
    let runs =
        |word: &str| ran.iter().filter(|record| record["args"].to_string().contains(&format!("echo {word}"))).count();
    assert_eq!((runs("after"), runs("unrecorded")), (2, 0), "what was done is there");
}

#[test]
fn under_a_server_that_runs_a_copy_of_the_log_s_directory_is_gone_on_with_and_an_older_one_is_not() {
    let mut segmented = Segmented::start();
    let log = log(&segmented.installation);
    let aside = |name: &str| segmented.installation.outside().join(name);
    let (older, newest, original) = (aside("older"), aside("newest"), aside("original"));
    let swap = |aside: &Path, new: &Path| {
        fs::rename(&log, aside).expect("moving it away");
        copy(new, &log);
    };
    copy(&log, &older);
    segmented.run("acknowledged").ok();

    swap(&newest, &older);
    segmented.run("unrecorded").code("AUDIT_UNAVAILABLE");
    assert_eq!(segmented.server.until_ready(false)["checks"]["log"], "failing");
    fs::remove_dir_all(&log).expect("the older one");
    fs::rename(&newest, &log).expect("putting it back");
    segmented.server.until_ready(true);
    segmented.run("acknowledged").ok();

    swap(&original, &original);
    // Whoever is first finds it out, and tries.
    poll_until("the log goes on in the copy", PATIENCE, || (!segmented.run("tried").is_error).then_some(()));
    segmented.server.until_ready(true);
    segmented.run("acknowledged").ok();
    let repair = segmented.installation.run(["audit", "repair"]);
    let said = String::from_utf8_lossy(&repair.stderr).into_owned();
    let holder = segmented.server.child.id();
    assert!(!repair.status.success() && said.contains(&format!("process {holder}")), "it is held: {said}");
    let ran = of_kind(&verified_records(&segmented.installation), "task.attempt");
    let runs =
        |word: &str| ran.iter().filter(|record| record["args"].to_string().contains(&format!("echo {word}"))).count();
    assert_eq!((runs("acknowledged"), runs("unrecorded")), (3, 0), "nothing that was acknowledged is lost");
    let session = segmented.session.clone();
    goes_on(&segmented.stop(), &session);
}

#[test]
fn under_a_server_that_runs_an_older_copy_of_its_segment_and_a_cut_are_noticed_and_what_is_written_over_it_is_found() {
    let mut segmented = Segmented::start();
    let (aside, last) = (segmented.installation.outside().join("aside"), segmented.segment(2));
    copy(&last, &aside);
    make_older(&last);
    segmented.run("unrecorded").code("AUDIT_UNAVAILABLE");
    assert_eq!(segmented.server.until_ready(false)["checks"]["log"], "failing");
    fs::rename(&aside, &last).expect("putting it back");
    segmented.server.until_ready(true);

    segmented.run("before").ok();
    let current = segments(&segmented.installation).pop().expect("a segment");
    let contents = fs::read(&current).expect("a segment");
    segmented.write_over(b"#");
    assert_eq!(verdict(&segmented.installation).0, TAMPERED);
    segmented.write_over(&contents[..1]);
    fs::write(&current, b"").expect("cutting it");
    segmented.run("unrecorded").code("AUDIT_UNAVAILABLE");
    fs::write(&current, contents).expect("putting it back");
    segmented.server.until_ready(true);
    verified_records(&segmented.installation);

    // What follows is written behind it, as behind an older copy.
    segmented.write_over(&[0; 100]);
    segmented.run("before").ok();
    let installation = segmented.stop();
    assert_eq!(verdict(&installation).0, TAMPERED);
    assert!(refused(&installation).contains("audit repair"));
}
