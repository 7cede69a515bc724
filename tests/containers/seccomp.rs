//! The seccomp profile for workers is as small as it can be.

use std::fs;

use serde_json::Value;

use crate::engine::{CONFINED, Engine, WORKER, docker_file};

fn profile() -> Value {
    let text = fs::read_to_string(docker_file("seccomp-worker.json")).expect("the profile");
    serde_json::from_str(&text).expect("JSON")
}

fn is_addition(rule: &Value) -> bool {
    rule["comment"].as_str().is_some_and(|comment| comment.starts_with("Addition: "))
}

/// The level at which a worker could isolate its sessions in a container with this profile.
fn level(engine: &Engine, profile: &Value, unmasked: bool) -> String {
    let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a file");
    fs::write(file.path(), profile.to_string()).expect("the profile is written");
    let seccomp = format!("seccomp={}", file.path().display());
    let mut arguments = vec!["run", "--rm", "--security-opt", &seccomp];
    if unmasked {
        arguments.extend(["--security-opt", "systempaths=unconfined"]);
    }
    arguments.extend(CONFINED);
    arguments.extend([WORKER, "--probe"]);
    let probe: Value = serde_json::from_str(&engine.said(arguments)).expect("JSON");
    probe["isolation"]["level"].as_str().expect("a level").to_owned()
}

#[test]
fn with_the_profile_sessions_of_uid_1000_are_isolated_fully() {
    let Some(engine) = Engine::at_hand() else { return };
    assert_eq!(level(&engine, &profile(), true), "full");
    assert_ne!(level(&engine, &profile(), false), "full", "`systempaths=unconfined` is not needed");
}

#[test]
fn without_any_one_of_its_additions_they_are_not() {
    let Some(engine) = Engine::at_hand() else { return };
    let profile = profile();
    let rules = profile["syscalls"].as_array().expect("rules");
    let additions = rules.iter().enumerate().filter(|(_, rule)| is_addition(rule)).map(|(at, _)| at);
    let additions: Vec<usize> = additions.collect();
    assert!(additions.len() > 4, "the additions are marked");
    for at in additions {
        let mut less = profile.clone();
        let removed = less["syscalls"].as_array_mut().expect("rules").remove(at);
        assert_ne!(level(&engine, &less, true), "full", "not needed: {removed}");
    }
}

#[test]
fn additions_are_single_system_calls() {
    let profile = profile();
    let rules = profile["syscalls"].as_array().expect("rules");
    let mut added: Vec<&str> = rules.iter().filter(|rule| is_addition(rule)).flat_map(names).collect();
    added.sort_unstable();
    let expected = [
        "clone",
        "mount",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "pivot_root",
        "sethostname",
        "umount2",
        "unshare",
    ];
    assert_eq!(added, expected);
    let everything: Vec<&str> = rules.iter().flat_map(names).collect();
    for dangerous in
        ["bpf", "keyctl", "setns", "kexec_load", "io_uring_setup", "init_module", "fsopen", "perf_event_open"]
    {
        assert!(!everything.contains(&dangerous), "{dangerous}");
    }
}

fn names(rule: &Value) -> impl Iterator<Item = &str> {
    rule["names"].as_array().into_iter().flatten().filter_map(Value::as_str)
}
