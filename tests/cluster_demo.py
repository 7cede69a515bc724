#!/usr/bin/env python3
"""A coordinator and three workers, thirty sessions from three MCP clients at once; a worker and then the coordinator
are killed in the middle. Prints what every session saw; fails when anything ran twice, when a result that was told is
lost, or when the log does not verify.

Standard library only. Takes the binary; each part is a process of its own, and they speak over TCP.
"""

import collections
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "soak"))
import wire  # noqa: E402

CLIENTS, SESSIONS, STEPS = 3, 10, 6
WORKERS = ("a", "b", "c")
PATIENCE = 60
# Silence is noticed within seconds, so that this takes half a minute.
SETTINGS = {
    "WORKER_KEEP_ALIVE": "1s",
    "WORKER_RECONNECT_GRACE": "6s",
    "WORKER_HEARTBEAT_TIMEOUT": "10s",
    "WORKER_HEARTBEAT_INTERVAL": "1s",
    "HTTP_RATE": "none",
    # On the loopback interface: who the clients are is not what this shows.
    "HTTP_AUTH": "open",
}
STEP = """
import os, time
f = os.open('runs.txt', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.write(f, b'{key}\\n')
time.sleep({seconds})
print('{key} done')
"""


class Cluster:
    """The processes, on a state directory of their own."""

    def __init__(self, binary, root):
        self.binary, self.root, self.address, self.grpc = binary, Path(root), None, None
        self.state = self.root / "state"
        self.state.mkdir(mode=0o700)
        self.environment = {"PATH": os.environ.get("PATH", ""), "HOME": root, **SETTINGS}
        self.workers = {}
        self.serve("127.0.0.1:0", "127.0.0.1:0")
        token = self.command("tokens", "create", "--role", "worker")
        self.token = self.root / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(token)
        for name in WORKERS:
            self.start_worker(name)
        until = time.monotonic() + PATIENCE
        while self.command("workers", "ls", "--json").count("healthy") < len(WORKERS):
            if time.monotonic() > until:
                raise SystemExit("cluster-demo: the workers do not join")
            time.sleep(0.2)

    def command(self, *arguments):
        done = subprocess.run(
            [self.binary, "--state-dir", self.state, *arguments], env=self.environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"cluster-demo: {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def serve(self, http, grpc):
        arguments = ["serve", "--http", http, "--grpc", grpc, "--no-embedded-worker"]
        self.server = subprocess.Popen(
            [self.binary, "--state-dir", self.state, *arguments], env=self.environment, stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        said_grpc = said_http = False
        while not (said_grpc and said_http):
            said = self.server.stderr.readline()
            if not said:
                raise SystemExit("cluster-demo: the coordinator does not serve")
            if "workers join at" in said:
                self.grpc, said_grpc = said.split()[-1], True
            if "http://" in said:
                self.address, said_http = said.split("http://")[1].split("/")[0].split()[0], True
        threading.Thread(target=lambda stderr: [None for _ in stderr], args=(self.server.stderr,), daemon=True).start()

    def start_worker(self, name):
        base = self.root / f"workspaces-{name}"
        base.mkdir(exist_ok=True)
        self.workers[name] = subprocess.Popen(
            [self.binary, "worker", "--coordinator", self.grpc, "--worker-id", name, "--token-file", self.token,
             "--base-workspace", base],
            env=self.environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def restart(self):
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        self.serve(self.address, self.grpc)

    def stop(self):
        for process in (*self.workers.values(), self.server):
            process.send_signal(signal.SIGTERM)
        for process in (*self.workers.values(), self.server):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()

    def place_of(self, session):
        """The worker that has the session's files, and what ran in it."""
        for name in WORKERS:
            workspace = self.root / f"workspaces-{name}" / session
            if workspace.is_dir():
                runs = workspace / "runs.txt"
                return name, runs.read_text().split() if runs.exists() else []
        return "?", []


class Session:
    """What one session saw."""

    def __init__(self):
        self.id, self.done, self.unknown, self.refused, self.lost, self.breaks = None, [], [], [], False, 0


def say(began, text):
    print(f"{time.monotonic() - began:5.1f} s  {text}", flush=True)


CODES = ("SESSION_LOST", "TASK_OUTCOME_UNKNOWN", "WORKER_UNAVAILABLE", "NO_CAPACITY")


def call(cluster, seen, tool, **arguments):
    """Calls a tool, again when the connection or the coordinator went away. A repeat under a key joins the first call."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            client = wire.Requests(cluster.address)
            result = client.tool(tool, **arguments)
            client.close()
            return result, None
        except wire.Refused as refused:
            text = str(refused)
            code = next((code for code in CODES if code in text), None)
            if code is None or time.monotonic() > until:
                raise
            return None, code
        except (OSError, wire.http.client.HTTPException):
            seen.breaks += 1
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


def work(cluster, seen, number, gate):
    result = None
    while result is None:
        result, _ = call(cluster, seen, "session_create")
    seen.id = result["structuredContent"]["session_id"]
    gate.wait()
    for step in range(STEPS):
        attempt, refused = 0, "WORKER_UNAVAILABLE"
        # That nothing was run is an outcome, too: the next try is another call, with a key of its own.
        while refused in ("WORKER_UNAVAILABLE", "NO_CAPACITY"):
            key, attempt = f"s{number}-{step}.{attempt}", attempt + 1
            code = STEP.format(key=key, seconds=2 if step % 3 == 1 else 0.3)
            result, refused = call(cluster, seen, "run_python", session_id=seen.id, code=code, idempotency_key=key)
            if refused in ("WORKER_UNAVAILABLE", "NO_CAPACITY", "SESSION_LOST"):
                seen.refused.append(key)
        if refused == "SESSION_LOST":
            seen.lost = True
            return
        (seen.unknown if refused else seen.done).append(key)


def judge(cluster, number, seen):
    """One line about a session; what is wrong with it."""
    worker, runs = cluster.place_of(seen.id)
    counts = collections.Counter(runs)
    wrong = [f"{key} ran {count} times" for key, count in counts.items() if count > 1]
    wrong += [f"{key} was told and did not run" for key in seen.done if counts[key] != 1]
    wrong += [f"{key} ran and is said not to have" for key in seen.refused if counts[key]]
    fate = "lost" if seen.lost else "whole"
    print(
        f"  s{number:<3} on {worker}: {len(seen.done)} results, {len(seen.unknown)} unknown, "
        f"{seen.breaks} broken connections, {fate}{'; WRONG: ' + ', '.join(wrong) if wrong else ''}"
    )
    return wrong


def main():
    binary = os.path.abspath(sys.argv[1])
    root = tempfile.mkdtemp(prefix="codegen-cluster-")
    began = time.monotonic()
    cluster = Cluster(binary, root)
    try:
        sessions = [Session() for _ in range(CLIENTS * SESSIONS)]
        gate = threading.Barrier(len(sessions) + 1)
        threads = [threading.Thread(target=work, args=(cluster, seen, number, gate), daemon=True)
                   for number, seen in enumerate(sessions)]
        say(began, f"a coordinator and workers {', '.join(WORKERS)}; {CLIENTS} clients make {SESSIONS} sessions each")
        for thread in threads:
            thread.start()
        gate.wait(timeout=PATIENCE)
        say(began, "all sessions work")
        time.sleep(2)
        say(began, "worker b is killed")
        cluster.workers["b"].send_signal(signal.SIGKILL)
        time.sleep(1)
        say(began, "the coordinator is killed, and started again")
        cluster.restart()
        say(began, "the coordinator is back")
        for thread in threads:
            thread.join(timeout=PATIENCE)
        if any(thread.is_alive() for thread in threads):
            raise SystemExit("cluster-demo: a session is not answered")
        say(began, "every session has its answers")
        wrong = [line for number, seen in enumerate(sessions) for line in judge(cluster, number, seen)]
        told = sum(len(seen.done) for seen in sessions)
        unknown = sum(len(seen.unknown) for seen in sessions)
        lost = sum(seen.lost for seen in sessions)
        cluster.stop()
        verdict = cluster.command("audit", "verify").strip().splitlines()[-1]
        say(began, f"{told} results, {unknown} unknown, {lost} sessions lost; log: {verdict}")
        if wrong or not told or not lost:
            raise SystemExit(f"cluster-demo: {wrong or 'nothing happened'}")
        say(began, "nothing ran twice, and nothing that was told is lost")
    finally:
        cluster.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
