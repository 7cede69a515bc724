"""The manifests in k8s/: as Kubernetes publishes what may stand in them, and in accord with each other and the binaries.

The schemas are those of PyPI `kubernetes-validate`, in their strict form, in which a field that nobody knows is an error.
"""

import copy
import json
import os
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

TOP = Path(__file__).resolve().parents[2]
K8S = TOP / "k8s"
# User namespaces and unmasked /proc are there by default from this release on.
OLDEST = 33
RELEASES = [release for release in utils.all_versions() if int(release.split(".")[1]) >= OLDEST]
KUSTOMIZATIONS = {"kustomization.yaml"}
# A patch is no whole object.
PATCHES = {K8S / "packages" / "worker.yaml"}
# Maps in which every name may stand.
FREE = {"labels", "matchLabels", "requests", "limits"}


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


FILES = sorted(path for path in K8S.rglob("*.yaml") if path.name not in KUSTOMIZATIONS and path not in PATCHES)
ALL = [(path.name, document) for path in FILES for document in documents(path)]
IDS = [f"{name}:{document['kind']}/{document['metadata']['name']}" for name, document in ALL]


def one(kind, name):
    found = [document for _, document in ALL if (document["kind"], document["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def patched_worker():
    """The StatefulSet with the patch for packages, as kustomize merges it: lists of named things by name."""
    worker, (patch,) = copy.deepcopy(one("StatefulSet", "worker")), documents(K8S / "packages" / "worker.yaml")
    (container,), (added,) = pod(worker)["containers"], pod(patch)["containers"]
    assert patch["metadata"]["name"] == "worker" and container["name"] == added["name"]
    container["env"] += added["env"]
    return worker


def pod(workload):
    return workload["spec"]["template"]["spec"]


def container(workload):
    (only,) = pod(workload)["containers"]
    return only


def mappings(value, path=()):
    """Every map in which names have a meaning of their own, by the way that leads to it."""
    if isinstance(value, dict):
        # A service's selector is labels; a workload's has `matchLabels` below it.
        if not path or path[-1] not in FREE and not (path[-1] == "selector" and "matchLabels" not in value):
            yield path
        for key, inner in value.items():
            yield from mappings(inner, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from mappings(inner, (*path, at))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("document", [document for _, document in ALL], ids=IDS)
def test_it_is_what_kubernetes_publishes(document, release):
    kubernetes_validate.validate(document, release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
def test_it_still_is_with_the_patch_for_packages(release):
    kubernetes_validate.validate(patched_worker(), release, strict=True)


@pytest.mark.parametrize("document", [document for _, document in ALL], ids=IDS)
def test_a_field_that_nobody_knows_is_found_wherever_it_stands(document):
    for path in mappings(document):
        broken = copy.deepcopy(document)
        place = broken
        for step in path:
            place = place[step]
        place["notAField"] = "x"
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, RELEASES[-1], strict=True)
            pytest.fail(f"notAField is not found in {path}")


def test_the_kustomizations_name_every_file():
    for directory in (K8S, K8S / "packages"):
        (kustomization,) = documents(directory / "kustomization.yaml")
        named = set(kustomization["resources"]) | {patch["path"] for patch in kustomization.get("patches", [])}
        there = {path.name for path in directory.glob("*.yaml")} - KUSTOMIZATIONS
        assert named == there
    (whole,) = documents(K8S / "kustomization.yaml")
    used = {container(workload)["image"].split(":")[0] for workload in WORKLOADS}
    assert {image["name"] for image in whole["images"]} == used
    (subject,) = one("RoleBinding", "coordinator")["subjects"]
    assert subject["namespace"] == whole["namespace"]


WORKLOADS = [one("Deployment", "coordinator"), one("StatefulSet", "worker")]


def selects(selector, labels):
    return selector.items() <= labels.items()


def test_selectors_find_the_pods_that_are_meant():
    for workload in WORKLOADS:
        name, labels = workload["metadata"]["name"], workload["spec"]["template"]["metadata"]["labels"]
        assert labels == {"app": name}
        assert selects(workload["spec"]["selector"]["matchLabels"], labels)
        assert selects(one("Service", name)["spec"]["selector"], labels)
    assert one("StatefulSet", "worker")["spec"]["serviceName"] == one("Service", "worker")["metadata"]["name"]
    assert one("PodDisruptionBudget", "worker")["spec"]["selector"]["matchLabels"] == {"app": "worker"}
    known = {"coordinator", "worker", "package-proxy"}
    for _, document in ALL:
        assert document["metadata"]["labels"]["app"] in known
        for found in re.findall(r'"podSelector": {"matchLabels": {"app": "([^"]*)"', json.dumps(document)):
            assert found in known


def flags(workload):
    """The flags of a container, each as `--name=value` or alone, by their names."""
    given = [argument for argument in container(workload)["args"] if argument.startswith("--")]
    return {flag: value for flag, _, value in (argument.partition("=") for argument in given)}


def environment(workload):
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container(workload)["env"]}


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def test_ports_agree_with_what_the_binaries_are_told():
    coordinator, worker = WORKLOADS
    told = {"https": port_of(flags(coordinator)["--http"]), "workers": port_of(flags(coordinator)["--grpc"])}
    assert {port["name"]: port["containerPort"] for port in container(coordinator)["ports"]} == told
    offered = one("Service", "coordinator")["spec"]["ports"]
    assert {port["targetPort"]: port["port"] for port in offered} == told
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container(coordinator)[probe]["httpGet"]
        assert told[asked["port"]] == told["https"] and asked["scheme"] == "HTTPS"
    assert flags(worker)["--coordinator"] == f"coordinator:{told['workers']}"
    leaves, comes = one("NetworkPolicy", "worker")["spec"], one("NetworkPolicy", "coordinator")["spec"]
    assert leaves["ingress"] == [] and leaves["policyTypes"] == ["Ingress", "Egress"]
    to_coordinator, names = leaves["egress"]
    assert [port["port"] for port in to_coordinator["ports"]] == [told["workers"]]
    assert {port["port"] for port in names["ports"]} == {53}
    # A cache on each node is asked at its address, and nothing else that has one of these (as clouds' metadata do).
    assert [to["ipBlock"] for to in names["to"] if "ipBlock" in to] == [{"cidr": "169.254.20.10/32"}]
    assert [[port["port"] for port in rule["ports"]] for rule in comes["ingress"]] == [[told["workers"]], [told["https"]]]


def test_the_proxy_of_packages_is_the_one_that_workers_may_reach():
    (rule,) = one("NetworkPolicy", "worker-packages")["spec"]["egress"]
    app = rule["to"][0]["podSelector"]["matchLabels"]["app"]
    url = f"http://{app}:{rule['ports'][0]['port']}"
    told = environment(patched_worker())
    assert told["HTTPS_PROXY"] == told["HTTP_PROXY"] == url


def test_secrets_volumes_and_mounts_belong_together_and_are_documented():
    readme = (K8S / "README.md").read_text()
    for workload in WORKLOADS:
        volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        mounts = {mount["name"]: mount for mount in container(workload)["volumeMounts"]}
        assert mounts.keys() == volumes.keys() | claims
        for volume in volumes.values():
            if claim := volume.get("persistentVolumeClaim"):
                assert one("PersistentVolumeClaim", claim["claimName"])["spec"]["accessModes"] == ["ReadWriteOnce"]
            if secret := volume.get("secret"):
                assert secret["defaultMode"] == 0o400 and mounts[volume["name"]]["readOnly"]
                assert f"`{secret['secretName']}`" in readme
                for item in secret["items"]:
                    assert f"`{item['key']}`" in readme
        # What flags name lies where something is mounted, and in a secret it is a key of it.
        for value in flags(workload).values():
            if value.startswith("/"):
                path = Path(value)
                (name,) = [name for name, mount in mounts.items() if Path(mount["mountPath"]) == path.parent]
                assert path.name in [item["path"] for item in volumes[name]["secret"]["items"]]
    coordinator, worker = WORKLOADS
    state, workspaces = environment(coordinator)["CODEGEN_STATE_DIR"], environment(worker)["BASE_WORKSPACE"]
    for path, workload in ((state, coordinator), (workspaces, worker)):
        # Not the volume itself, whose directory the group may write to.
        assert str(Path(path).parent) in [mount["mountPath"] for mount in container(workload)["volumeMounts"]]


def test_the_readme_s_token_is_made_once_the_pod_runs_and_no_secret_without_it():
    readme = (K8S / "README.md").read_text()
    (block,) = [block for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) if "kubectl apply -k" in block]
    commands = re.sub(r"\\\n\s*", "", block).splitlines()
    waits = [line for line in commands if line.startswith("kubectl wait") and "--timeout" in line]
    (makes,) = [at for at, line in enumerate(commands) if "tokens create" in line]
    assert commands[1 : len(waits) + 1] == waits and len(waits) < makes
    # Ready it is only with a worker; a command that comes before the server has started would be in its way.
    assert [re.search(r"--for=(\S+)", line)[1] for line in waits] == [
        "create", "jsonpath='{.status.phase}'=Running", "jsonpath='{.status.containerStatuses[0].started}'=true",
    ]
    assert "startupProbe" in container(WORKLOADS[0]) and all("pod -l app=coordinator" in line for line in waits)
    made, kept, *_ = commands[makes].split("&&")
    assert "tokens create" in made and "create secret generic worker-token" in kept


def test_the_coordinator_may_do_what_its_provisioner_does_and_no_more():
    coordinator, worker = WORKLOADS
    account = one("ServiceAccount", "coordinator")["metadata"]["name"]
    assert pod(coordinator)["serviceAccountName"] == account and pod(coordinator)["automountServiceAccountToken"]
    assert not pod(worker)["automountServiceAccountToken"] and "serviceAccountName" not in pod(worker)
    binding = one("RoleBinding", "coordinator")
    assert binding["roleRef"]["name"] == one("Role", "coordinator")["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [account]
    name = worker["metadata"]["name"]
    assert one("Role", "coordinator")["rules"] == [
        {"apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": [name], "verbs": ["get"]},
        {"apiGroups": ["apps"], "resources": ["statefulsets/scale"], "resourceNames": [name], "verbs": ["patch"]},
    ]
    assert flags(coordinator)["--provision"] == "kubernetes"
    # Its one scaler is the coordinator: applying the file again must not set it back.
    assert "replicas" not in worker["spec"]
    assert environment(coordinator)["WORKER_SLOTS"] == environment(worker)["MAX_SESSIONS"]


def test_one_coordinator_runs_at_a_time_and_workers_have_time_to_drain():
    coordinator, worker = WORKLOADS
    assert coordinator["spec"]["replicas"] == 1 and coordinator["spec"]["strategy"] == {"type": "Recreate"}
    minutes = int(re.fullmatch(r"(\d+)m", flags(worker)["--drain-timeout"])[1])
    assert pod(worker)["terminationGracePeriodSeconds"] >= minutes * 60 + 15
    assert "livenessProbe" not in container(worker), "who has lost the coordinator must not be ended for it"


@pytest.mark.parametrize("workload", WORKLOADS, ids=["coordinator", "worker"])
def test_pods_have_no_more_rights_than_their_containers_have_elsewhere(workload):
    everybody, own = pod(workload)["securityContext"], container(workload)["securityContext"]
    assert everybody["runAsNonRoot"] and {everybody[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {1000}
    assert everybody["fsGroupChangePolicy"] == "OnRootMismatch"
    assert own["capabilities"] == {"drop": ["ALL"]} and own["readOnlyRootFilesystem"]
    assert own["allowPrivilegeEscalation"] is False and "privileged" not in own
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod(workload).keys()
    assert not any("hostPath" in volume for volume in pod(workload)["volumes"])
    assert "--insecure-plaintext" not in flags(workload)
    assert "memory" in container(workload)["resources"]["limits"]


def test_workers_have_what_level_full_needs():
    _, worker = WORKLOADS
    assert container(worker)["securityContext"]["procMount"] == "Unmasked" and pod(worker)["hostUsers"] is False
    assert environment(worker)["WORKER_ID"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    seccomp = pod(worker)["securityContext"]["seccompProfile"]
    profile = TOP / "docker" / Path(seccomp["localhostProfile"]).name
    assert seccomp["type"] == "Localhost" and profile.is_file()


def test_the_seccomp_profile_means_the_same_to_engines_that_read_the_plain_form():
    """containerd knows `names`, `action`, `errnoRet` and `args`, and passes over what only Docker and CRI-O read."""
    profile = json.loads((TOP / "docker" / "seccomp-worker.json").read_text())
    assert profile.keys() == {"defaultAction", "defaultErrnoRet", "archMap", "syscalls"}
    # No foreign architecture is permitted either way.
    assert all(not entry["subArchitectures"] for entry in profile["archMap"])
    for rule in profile["syscalls"]:
        assert rule.keys() <= {"comment", "names", "action", "errnoRet", "args", "includes"}
        if "includes" in rule:
            # These exist on one architecture only.
            assert rule["includes"] == {"arches": ["amd64"]} and set(rule["names"]) == {"arch_prctl", "modify_ldt"}


def accepted(program, arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_the_binaries_take_every_argument():
    coordinator, worker = WORKLOADS
    role, *rest = container(coordinator)["args"]
    assert role == "serve"
    assert accepted(os.environ["COORDINATOR"], [role, *rest, "--help"]).returncode == 0
    assert accepted(os.environ["COORDINATOR"], [role, "--no-such-flag", *rest, "--help"]).returncode != 0
    arguments = container(worker)["args"]
    assert accepted(os.environ["COORDINATOR"], ["worker", *arguments, "--help"]).returncode == 0
    assert accepted(os.environ["COORDINATOR"], ["worker", "--no-such-flag", *arguments, "--help"]).returncode != 0


def test_the_coordinator_takes_every_value():
    coordinator, _ = WORKLOADS
    _, *arguments = container(coordinator)["args"]
    told = {key: value for key, value in environment(coordinator).items() if isinstance(value, str)}
    told["HTTP_ALLOWED_HOSTS"] = told["HTTP_ALLOWED_HOSTS"].replace("$(NAMESPACE)", "default")
    assert "$(" not in "".join(told.values())
    shown = subprocess.run(
        [os.environ["COORDINATOR"], "config", "show", *arguments], capture_output=True, text=True, env={**os.environ, **told}
    )
    assert shown.returncode == 0, shown.stderr
    for key, value in told.items():
        assert value in shown.stdout, key
