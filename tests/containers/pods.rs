//! The pods of `k8s/`, run as their manifests say and as a kubelet prepares them: users, secrets, volumes, environment, probes.
//!
//! What the cluster does is left out: user ids of the pod's own, network policies, and the API server, so that the coordinator
//! runs without `--provision`.

use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, process};

use e2e::{Authority, poll_until, python};
use serde_json::{Value, json};

use crate::engine::{COORDINATOR, Container, Engine, WORKER, docker_file};

const PATIENCE: Duration = Duration::from_secs(60);
/// The group that a pod's volumes are for.
const FS_GROUP: u32 = 1000;

/// The manifest of a workload.
fn manifest(file: &str, kind: &str) -> Value {
    let code = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let path = format!("{}/../k8s/{file}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python()).args(["-c", code, &path]).output().expect("Python starts");
    let documents: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    documents.into_iter().find(|document| document["kind"] == kind).expect("it is there")
}

/// What the cluster has for pods, for one test.
struct Cluster {
    engine: Engine,
    network: String,
    scratch: tempfile::TempDir,
}

impl Cluster {
    fn new(engine: &Engine) -> Self {
        let network = format!("codegen-pods-{}", process::id());
        engine.said(["network", "create", &network]);
        let scratch = tempfile::tempdir().expect("a directory");
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        Self { engine: engine.clone(), network, scratch }
    }

    fn directory(&self, name: &str, mode: u32) -> String {
        let path = self.scratch.path().join(name);
        fs::create_dir_all(&path).expect("a directory");
        chown(&path, Some(0), Some(FS_GROUP)).expect("chown");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions");
        path.display().to_string()
    }

    /// A secret as it is mounted: links to files of root's that the pod's group may read.
    fn secret(&self, pod: &str, volume: &Value, value_of: &dyn Fn(&str) -> String) -> String {
        let mounted = self.directory(&format!("{pod}-{}", text(&volume["name"])), 0o2775);
        let version = Path::new(&mounted).join("..2026_11_21_00_00_00.1");
        fs::create_dir(&version).expect("a directory");
        symlink(version.file_name().expect("a name"), Path::new(&mounted).join("..data")).expect("a link");
        for item in list(&volume["secret"]["items"]) {
            let (key, path) = (text(&item["key"]), text(&item["path"]));
            let file = version.join(path);
            fs::write(&file, value_of(key)).expect("a file");
            chown(&file, Some(0), Some(FS_GROUP)).expect("chown");
            // `defaultMode`, and what a group that the volumes are for adds to it.
            let mode = volume["secret"]["defaultMode"].as_u64().and_then(|mode| u32::try_from(mode).ok());
            let mode = mode.expect("a mode") | 0o440;
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("permissions");
            symlink(Path::new("..data").join(path), Path::new(&mounted).join(path)).expect("a link");
        }
        mounted
    }

    /// Starts the pod of a workload.
    fn start(&self, workload: &Value, name: &str, image: &str, value_of: &dyn Fn(&str) -> String) -> Container {
        let pod = &workload["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let mut arguments: Vec<String> =
            ["--network", &self.network, "--network-alias", text(&workload["metadata"]["name"])]
                .map(String::from)
                .into();
        arguments.extend(self.security(pod));
        arguments.extend(environment(container, name));
        for mount in list(&container["volumeMounts"]) {
            let (volume, place) = (text(&mount["name"]), text(&mount["mountPath"]));
            let found = list(&pod["volumes"]).find(|found| found["name"] == volume);
            match found {
                Some(found) if found["secret"].is_object() => {
                    let directory = self.secret(name, found, value_of);
                    arguments.extend(["--volume".to_owned(), format!("{directory}:{place}:ro")]);
                }
                Some(found) if found["emptyDir"].is_object() => {
                    arguments.extend(["--tmpfs".to_owned(), format!("{place}:mode=2777,gid={FS_GROUP}")]);
                }
                // A claim of the pod's, or one that its workload makes for it.
                Some(_) | None => {
                    let directory = self.directory(&format!("{name}-{volume}"), 0o2775);
                    arguments.extend(["--volume".to_owned(), format!("{directory}:{place}")]);
                }
            }
        }
        arguments.push(image.to_owned());
        let told = list(&container["args"]).map(|argument| text(argument).to_owned());
        arguments.extend(told.filter(|argument| !argument.starts_with("--provision")));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.engine.start(&arguments)
    }

    fn security(&self, pod: &Value) -> Vec<String> {
        let (everybody, own) = (&pod["securityContext"], &pod["containers"][0]["securityContext"]);
        let user = format!("{}:{}", everybody["runAsUser"], everybody["runAsGroup"]);
        let mut given = vec!["--user".to_owned(), user, "--group-add".to_owned(), everybody["fsGroup"].to_string()];
        for dropped in list(&own["capabilities"]["drop"]) {
            given.extend(["--cap-drop".to_owned(), text(dropped).to_owned()]);
        }
        given.extend((own["readOnlyRootFilesystem"] == true).then(|| "--read-only".to_owned()));
        let mut options = Vec::new();
        options.extend((own["allowPrivilegeEscalation"] == false).then(|| "no-new-privileges".to_owned()));
        options.extend((own["procMount"] == "Unmasked").then(|| "systempaths=unconfined".to_owned()));
        if everybody["seccompProfile"]["type"] == "Localhost" {
            let name = text(&everybody["seccompProfile"]["localhostProfile"]).rsplit('/').next().expect("a name");
            options.push(format!("seccomp={}", self.plain_profile(name)));
        }
        given.extend(options.into_iter().flat_map(|option| ["--security-opt".to_owned(), option]));
        given
    }

    /// The profile as engines read it that know the plain form alone: without what is Docker's own.
    fn plain_profile(&self, name: &str) -> String {
        let profile = fs::read_to_string(docker_file(name)).expect("the profile");
        let mut profile: Value = serde_json::from_str(&profile).expect("JSON");
        profile.as_object_mut().expect("an object").remove("archMap");
        for rule in profile["syscalls"].as_array_mut().expect("rules") {
            rule.as_object_mut().expect("an object").retain(|key, _| key != "includes" && key != "comment");
        }
        let path = self.scratch.path().join(name);
        fs::write(&path, profile.to_string()).expect("the profile is written");
        path.display().to_string()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.engine.output(["network", "rm", &self.network]));
    }
}

/// The variables of a container; those that are said before are known in those after.
fn environment(container: &Value, pod: &str) -> Vec<String> {
    let (mut given, mut namespace) = (Vec::new(), String::new());
    for variable in list(&container["env"]) {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("metadata.name") => pod.to_owned(),
            Some("metadata.namespace") => "default".to_owned(),
            Some(other) => panic!("{other} is not known here"),
            None => text(&variable["value"]).replace("$(NAMESPACE)", &namespace),
        };
        if variable["name"] == "NAMESPACE" {
            namespace.clone_from(&value);
        }
        given.extend(["--env".to_owned(), format!("{}={value}", text(&variable["name"]))]);
    }
    given
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Asks for a page as a kubelet's probe does: by the pod's address, whatever the certificate says.
const PROBE: &str = "import socket, ssl, sys, urllib.request
c = ssl._create_unverified_context()
a = socket.gethostbyname('coordinator')
urllib.request.urlopen(f'https://{a}:8080{sys.argv[1]}', context=c)";

/// Runs a program over REST, by the service's name and the authority's certificate.
const CLIENT: &str = "import json, ssl, sys, urllib.request
c = ssl.create_default_context(cafile='/run/secrets/worker/tls/ca.crt')
def ask(path, body):
    r = urllib.request.Request('https://coordinator:8080/api/v1' + path, json.dumps(body).encode(),
        {'Authorization': 'Bearer ' + sys.argv[1], 'Content-Type': 'application/json'})
    return json.load(urllib.request.urlopen(r, context=c))
session = ask('/sessions', {})['session_id']
print(json.dumps(ask(f'/sessions/{session}/tasks?wait=30', {'kind': 'python', 'code': 'import os; print(6 * 7, os.getuid())'})))";

#[test]
fn both_pods_work_as_their_manifests_say() {
    let Some(engine) = Engine::at_hand() else { return };
    if !rustix::process::geteuid().is_root() {
        assert!(env::var("CI").as_deref() != Ok("true"), "only root can make what a kubelet makes");
        eprintln!("SKIPPED: only root can make what a kubelet makes");
        return;
    }
    let cluster = Cluster::new(&engine);
    let authority = Authority::new(cluster.scratch.path(), "ca");
    authority.certify("tls", &["coordinator", "coordinator.default.svc"]);
    let file = |name: &str| fs::read_to_string(cluster.scratch.path().join(name)).expect("a file");
    let secret = |key: &str| match key {
        "tls.crt" | "tls.key" => file(key),
        "ca.crt" => file("ca.pem"),
        other => panic!("no secret has {other}"),
    };
    let deployment = manifest("coordinator-deployment.yaml", "Deployment");
    let coordinator = cluster.start(&deployment, "coordinator-0", COORDINATOR, &secret);
    let probed = |path: &str| coordinator.succeeds(&["python3", "-c", PROBE, path]);
    poll_until("the coordinator lives", PATIENCE, || probed("/healthz").then_some(()));
    assert!(!probed("/readyz"), "it has no worker yet");

    let token = coordinator.said(&["coordinator", "tokens", "create", "--role", "worker"]);
    let with_token = |key: &str| if key == "token" { token.clone() } else { secret(key) };
    let set = manifest("worker-statefulset.yaml", "StatefulSet");
    let worker = cluster.start(&set, "worker-0", WORKER, &with_token);
    let readiness = &set["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["exec"]["command"];
    assert_eq!(readiness, &json!(["connected"]));
    poll_until("the worker is ready", PATIENCE, || worker.succeeds(&["connected"]).then_some(()));
    poll_until("the coordinator is ready", PATIENCE, || probed("/readyz").then_some(()));
    let rows = coordinator.said(&["coordinator", "workers", "ls", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&rows).expect("JSON");
    assert!(rows.len() == 1 && rows[0]["worker_id"] == "worker-0" && rows[0]["isolation"] == "full", "{rows:?}");

    let token = coordinator.said(&["coordinator", "tokens", "create", "--principal", "somebody"]);
    let said = worker.said(&["python3", "-c", CLIENT, token.trim()]);
    assert!(said.contains("42"), "{said}");
}
