//! Every target, on its corpus and on so many changes of it that `make test` stays quick. The changes are the same each time.

use std::path::Path;

use codegen_fuzz_targets::{TARGETS, Target, corpus};

/// Words of the formats, which chance would not find.
const WORDS: [&[u8]; 14] = [
    b"..",
    b"/",
    b"\0",
    b"\n",
    b"\r\n",
    b"\x1b[2J",
    b"\"",
    b"{}",
    b"null",
    b"\xff\xff\xff\xff\x0f",
    b"\x0a\x04",
    b"tools/call",
    b"-1",
    b"1e999",
];

/// Numbers that look random (xorshift).
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below.max(1) as u64).expect("it is below a usize")
    }

    fn change(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut data = seeds[self.next(seeds.len())].clone();
        for _ in 0..=self.next(6) {
            let place = self.next(data.len() + 1);
            match self.next(6) {
                0 if place < data.len() => data[place] ^= 1 << self.next(8),
                1 => data.insert(place, u8::try_from(self.next(256)).expect("it is below 256")),
                2 => drop(data.drain(place..(place + self.next(8)).min(data.len()))),
                3 => drop(data.splice(place..place, WORDS[self.next(WORDS.len())].iter().copied())),
                4 => {
                    let other = &seeds[self.next(seeds.len())];
                    let from = self.next(other.len());
                    data.truncate(place);
                    data.extend_from_slice(&other[from..]);
                }
                _ => {
                    let again = data[place.saturating_sub(self.next(64))..place].to_vec();
                    drop(data.splice(place..place, again));
                }
            }
        }
        data
    }
}

fn seeds(directory: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).expect("a corpus").map(|entry| entry.expect("a seed").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{directory:?} holds no seed");
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

fn run(name: &str, changes: usize) {
    let target: Target = TARGETS.iter().find(|(of, _)| *of == name).expect("a target").1;
    let seeds = seeds(&corpus(name));
    seeds.iter().for_each(|seed| target(seed));
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for _ in 0..changes {
        let data = chance.change(&seeds);
        let shown = String::from_utf8_lossy(&data).into_owned();
        let held = std::panic::catch_unwind(|| target(&data));
        assert!(held.is_ok(), "{name} breaks a promise on {shown:?}, which are the bytes {data:?}");
    }
}

#[test]
fn no_path_of_a_hostile_client_leads_out_of_a_hostile_workspace() {
    run("paths", 6_000);
}

#[test]
fn no_stored_log_breaks_its_readers_and_every_one_can_be_repaired() {
    run("audit_log", 600);
}

#[test]
fn no_event_of_a_hostile_worker_breaks_its_reading() {
    run("task_events", 20_000);
}

#[test]
fn no_archive_of_a_hostile_client_is_unpacked_elsewhere_or_held_whole() {
    run("archive_import", 20_000);
}

#[cfg(feature = "coordinator")]
#[test]
fn no_line_of_a_hostile_client_breaks_its_connection() {
    run("client_lines", 600);
}
