"""The fleet: placement, many workers that only say that they live, and sessions on workers that run by themselves."""

import json
import os
import resource
import socket
import subprocess
import threading
import time
from pathlib import Path

import processes
from lines import Broken

WORKERS, SESSIONS, ROUNDS = 1_000, 50_000, 5_000
HEARTBEAT_MS, WATCHED_SECONDS = 30_000, 60
REMOTE_WORKERS, CLIENTS, SESSIONS_MADE = 3, 8, 96
DISPATCH_ROUNDS, DISPATCHES_EACH = 20, 100
PATIENCE_SECONDS = 60


def placement(release):
    """Quantiles in ms of placing a session, and of finding out that none fits."""
    argv = [str(release / "bench-placement"), str(WORKERS), str(SESSIONS), str(ROUNDS)]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def dispatch(release):
    """Times in ms of a task's dispatch to a worker over TCP, and of a bare tonic stream of the same messages."""
    argv = [str(release / "bench-dispatch"), str(DISPATCH_ROUNDS), str(DISPATCHES_EACH)]
    told = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    quantiles = {}
    for name, ms in told.items():
        ordered = sorted(ms)
        quantiles[name] = {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100]}
    return quantiles


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Control:
    """A product with a port for workers, and its operator's commands."""

    def __init__(self, product):
        self.product, self.port = product, free_port()
        product.env["GRPC_PORT"] = str(self.port)

    def run(self, *args):
        argv = [self.product.binary, "--state-dir", str(self.product.state_dir), *args]
        return subprocess.run(argv, env=self.product.env, capture_output=True, text=True, check=True).stdout

    def token_file(self):
        path = Path(self.product.state_dir).parent / "worker-token"
        path.touch(mode=0o600)
        path.write_text(self.run("tokens", "create", "--role", "worker"))
        return path

    def healthy(self, names):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            rows = json.loads(self.run("workers", "ls", "--json"))
            if names <= {row["worker_id"] for row in rows if row["state"] == "healthy"}:
                return
            time.sleep(0.1)
        raise Broken(f"the workers {sorted(names)} did not all join")


def rss_mib(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def heartbeats(product, release):
    """What the server needs while many workers say that they live."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    control = Control(product)
    with product.running():
        server, token = product.server(), control.token_file()
        before = rss_mib(server)
        argv = [str(release / "bench-heartbeats"), f"127.0.0.1:{control.port}", str(token), str(WORKERS)]
        argv += [str(SESSIONS // WORKERS), str(WATCHED_SECONDS), str(HEARTBEAT_MS)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as fleet:
            joined = json.loads(fleet.stdout.readline() or "{}")
            if "joined" not in joined:
                raise Broken(f"the simulated workers do not join: {fleet.stderr.read()}")
            began, used = time.monotonic(), processes.cpu_seconds(server)
            told = json.loads(fleet.stdout.readline() or "{}")
            seconds, used = time.monotonic() - began, processes.cpu_seconds(server) - used
            held = rss_mib(server)
        return {"cpu_percent": 100 * used / seconds, "rss_mib": held, "rss_mib_before": before, **joined, **told}


def sessions(product):
    """Sessions made in a second by several clients, on workers that run by themselves."""
    control = Control(product)
    state = Path(product.state_dir).parent
    with product.running() as first:
        token, children = control.token_file(), []
        names = {f"bench-{at}" for at in range(REMOTE_WORKERS)}
        try:
            for name in names:
                base = state / name
                base.mkdir(mode=0o700)
                env = {**product.env, "WORKER_ID": name, "BASE_WORKSPACE": str(base), "MAX_SESSIONS": "64"}
                argv = [product.binary, "worker", "--coordinator", f"127.0.0.1:{control.port}"]
                argv += ["--token-file", str(token)]
                children.append(subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            control.healthy(names)
            control.run("workers", "cordon", "embedded")
            clients = [first, *(product.client() for _ in range(CLIENTS - 1))]
            began = time.monotonic()
            failures = in_parallel(clients, lambda client: client.tool("session_create"))
            seconds = time.monotonic() - began
            used = {row["worker_id"]: row["slots"]["used"] for row in json.loads(control.run("workers", "ls", "--json"))}
            for client in clients[1:]:
                client.close()
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait(timeout=PATIENCE_SECONDS)
        return {"per_second": SESSIONS_MADE / seconds, "failures": failures, "on": used}


def in_parallel(clients, make):
    """Has every client do its share; how many failed."""
    failed = []

    def work(client):
        for _ in range(SESSIONS_MADE // len(clients)):
            try:
                make(client)
            except Broken as failure:
                failed.append(failure)

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(failed)
