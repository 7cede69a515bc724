#!/usr/bin/env python3
"""A coordinator and three workers, thirty sessions from three MCP clients at once; a worker and then the coordinator
are killed in the middle. Prints what every session saw; fails when anything ran twice, when a result that was told is
lost, or when the log does not verify.

Standard library only. Takes the binary. `tests/with-engine` runs it with a Docker engine at hand, in which each part is a
container; where there can be none, each is a process, and that is said.
"""

import collections
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "soak"))
import cluster_parts  # noqa: E402
import wire  # noqa: E402
from cluster_parts import PATIENCE, WORKERS  # noqa: E402

CLIENTS, SESSIONS, STEPS = 3, 10, 6
STEP = """
import os, time
f = os.open('runs.txt', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.write(f, b'{key}\\n')
time.sleep({seconds})
print('{key} done')
"""


class Client(wire.Requests):
    """One of the MCP clients, by its token."""

    def __init__(self, address, token):
        super().__init__(address)
        exchange, proof = self.http.exchange, {"Authorization": f"Bearer {token}"}
        self.http.exchange = lambda method, path, body, headers: exchange(method, path, body, {**headers, **proof})


class Session:
    """What one session saw."""

    def __init__(self, token):
        self.token = token
        self.id, self.done, self.unknown, self.refused, self.lost, self.breaks = None, [], [], [], False, 0
        # Why its client ended before it had all answers.
        self.failure = None


def say(began, text):
    print(f"{time.monotonic() - began:5.1f} s  {text}", flush=True)


CODES = ("SESSION_LOST", "TASK_OUTCOME_UNKNOWN", "WORKER_UNAVAILABLE", "NO_CAPACITY")


def call(cluster, seen, tool, **arguments):
    """Calls a tool, again when the connection or the coordinator went away. A repeat under a key joins the first call."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            client = Client(cluster.address, seen.token)
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
    """A session's client. What it cannot go on after is kept, since a thread ends in silence."""
    try:
        ask(cluster, seen, number, gate)
    except Exception as failure:
        seen.failure = failure
        # Nobody waits for a session that will not come.
        gate.abort()


def ask(cluster, seen, number, gate):
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
    wrong += [f"its client ended: {seen.failure!r}"] if seen.failure else []
    answers = len(seen.done) + len(seen.unknown)
    wrong += [f"{answers} of {STEPS} calls were answered"] if answers != STEPS and not seen.lost else []
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
    cluster = cluster_parts.at_hand(binary, root)
    try:
        cluster.start()
        tokens = [cluster.command("tokens", "create", "--principal", f"client-{at}").strip() for at in range(CLIENTS)]
        sessions = [Session(token) for token in tokens for _ in range(SESSIONS)]
        gate = threading.Barrier(len(sessions) + 1)
        threads = [threading.Thread(target=work, args=(cluster, seen, number, gate), daemon=True)
                   for number, seen in enumerate(sessions)]
        say(began, f"a coordinator and workers {', '.join(WORKERS)}, {cluster.kind}; "
                   f"{CLIENTS} clients make {SESSIONS} sessions each")
        for thread in threads:
            thread.start()
        try:
            gate.wait(timeout=PATIENCE)
        except threading.BrokenBarrierError:
            raise SystemExit(f"cluster-demo: not all sessions came: {[seen.failure for seen in sessions if seen.failure]}")
        say(began, "all sessions work")
        time.sleep(2)
        say(began, "worker b is killed")
        cluster.kill_worker("b")
        time.sleep(1)
        say(began, "the coordinator is killed, and started again")
        cluster.restart()
        say(began, "the coordinator is back")
        for thread in threads:
            thread.join(timeout=PATIENCE)
        if any(thread.is_alive() for thread in threads):
            raise SystemExit("cluster-demo: a session is not answered")
        say(began, "every session's client is done")
        wrong = [line for number, seen in enumerate(sessions) for line in judge(cluster, number, seen)]
        told = sum(len(seen.done) for seen in sessions)
        unknown = sum(len(seen.unknown) for seen in sessions)
        lost = sum(seen.lost for seen in sessions)
        verdict = cluster.verify().strip().splitlines()[-1]
        say(began, f"{told} results, {unknown} unknown, {lost} sessions lost; log: {verdict}")
        if wrong or not told or not lost:
            raise SystemExit(f"cluster-demo: {wrong or 'nothing happened'}")
        say(began, "nothing ran twice, and nothing that was told is lost")
    finally:
        cluster.remove()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
