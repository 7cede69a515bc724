//! What the images promise.

use std::time::Duration;

use e2e::{Client, poll_until};
use serde_json::json;

use crate::engine::{CONFINED, COORDINATOR, Engine, WORKER, full};

const REVISION: &str = "2025-11-25";

fn interactive<'a>(options: &'a [String], rest: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["run", "--interactive", "--rm"];
    arguments.extend(options.iter().map(String::as_str));
    arguments.extend(CONFINED);
    arguments.push(COORDINATOR);
    arguments.extend(rest);
    arguments
}

#[test]
fn docker_run_i_is_a_complete_server_over_stdio() {
    let Some(engine) = Engine::at_hand() else { return };
    let options = full();
    let mut client = Client::launch(engine.docker(interactive(&options, &[])));
    client.initialize(REVISION);
    let code = "import os, json; print(json.dumps([os.getuid(), 6 * 7]))";
    let answer = client.tool("run_python", json!({ "code": code }));
    assert!(answer.ok().contains("42"), "{}", answer.ok());
    assert!(client.close().success());
}

#[test]
fn a_default_container_says_what_is_missing_and_how_to_get_it() {
    let Some(engine) = Engine::at_hand() else { return };
    let mut client = Client::launch(engine.docker(interactive(&[], &[])));
    client.initialize(REVISION);
    let answer = client.tool("run_python", json!({ "code": "print(1)" }));
    let said = answer.code("ISOLATION_UNAVAILABLE").to_owned();
    assert!(said.contains("seccomp") && said.contains("systempaths=unconfined"), "{said}");
    client.close();
}

#[test]
fn a_server_in_a_container_is_seen_to_be_healthy() {
    let Some(engine) = Engine::at_hand() else { return };
    let options = full();
    let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
    arguments.extend(CONFINED);
    arguments.extend(["--health-interval", "1s", COORDINATOR, "serve"]);
    let container = engine.start(&arguments);
    poll_until("the container is healthy", Duration::from_secs(60), || {
        (container.inspect("{{.State.Health.Status}}") == "healthy").then_some(())
    });
    assert_eq!(container.inspect("{{.Config.User}}"), "1000:1000");
}

#[test]
fn images_say_what_they_are() {
    let Some(engine) = Engine::at_hand() else { return };
    for image in [COORDINATOR, WORKER] {
        let told = engine.said(["image", "inspect", "--format", "{{.Config.User}} {{json .Config.Labels}}", image]);
        assert!(told.starts_with("1000:1000 "), "{told}");
        for label in ["title", "description", "licenses"] {
            assert!(told.contains(&format!("org.opencontainers.image.{label}")), "{image}: {told}");
        }
    }
}

#[test]
fn the_worker_has_the_scientific_packages() {
    let Some(engine) = Engine::at_hand() else { return };
    let code = "import numpy, pandas, scipy.stats, matplotlib; print(float(numpy.arange(4).sum()))";
    let mut arguments = vec!["run", "--rm", "--entrypoint", "python3"];
    arguments.extend(CONFINED);
    arguments.extend([WORKER, "-c", code]);
    assert_eq!(engine.said(arguments), "6.0");
}
