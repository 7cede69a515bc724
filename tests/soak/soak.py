#!/usr/bin/env python3
"""Works on one server over every transport at once, for a while, and says whether anything grows.

    soak.py BINARY SECONDS

Clients of each kind come, work and go, with calls cancelled, connections dropped and interpreters killed; beside them others
use up what they may, send what is no message, and read no answer. What is held in
the last third of the time, after a warm-up, is compared with the first; and at the end, with everybody gone, no session,
no task and no process of one may be left, and the log must be whole. Exits with 1 when something grows or was answered wrongly.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))

import actors
import hostile
import processes
import rest
import watch
import wire

WARM_UP_SHARE, WARM_UP_SECONDS_MAX = 0.25, 120
# Looks at what is held: enough for medians, rarely enough not to be the load.
SAMPLES = 60
SHORT_SECONDS = 120
END_SECONDS = 45
IDLE_SECONDS = 30
# Those of default sessions of fronts that were killed, and of spares that were prepared since.
PROCESSES_MORE = 24
SETTINGS = {
    "GRPC_PORT": "0",
    "MAX_SESSIONS": "64",
    "HTTP_RATE": "none",
    # What is kept on purpose is kept shortly, so that it does not look like growth: the sessions of fronts that were
    # killed, too.
    "SESSION_MAX_AGE": f"{IDLE_SECONDS}s",
    "WORKSPACE_RETENTION": "1m",
    "CLEANUP_INTERVAL": "1s",
    "HTTP_AUTH": "open",
}


def say(text):
    print(f"soak: {text}", file=sys.stderr, flush=True)


class Server:
    """The product with everything on, as an operator serves it."""

    def __init__(self, binary, scratch):
        self.command = [binary, "--state-dir", str(scratch / "state")]
        self.env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(scratch), **SETTINGS}
        (scratch / "state").mkdir(mode=0o700)
        self.process = subprocess.Popen(
            [*self.command, "serve", "--http", "127.0.0.1:0"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, env=self.env,
        )
        said = self.process.stderr.readline()
        if "http://" not in said:
            raise SystemExit(f"soak: the server does not serve: {said.strip()}")
        self.address = said.split()[-1].removeprefix("http://").removesuffix("/mcp")
        self.wait_ready()

    def wait_ready(self):
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{self.address}/readyz", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("soak: the server is not ready in time")

    def has(self, path):
        answer, _ = wire.Http(self.address).exchange("GET", path)
        return answer.status == 200

    def rounds(self):
        front = (self.command, self.env)
        plays = {
            "stdio": lambda: actors.over_stdio(front),
            "sessions": lambda: actors.over_http(wire.Sessions, self.address),
            "requests": lambda: actors.over_http(wire.Requests, self.address),
            "sse": lambda: actors.over_http(wire.Stream, self.address),
        }
        plays |= hostile.plays(self.address)
        if self.has("/api/openapi.json"):
            plays["rest"] = lambda: rest.play(self.address)
        return plays

    def left(self):
        """What is left of sessions and tasks, by the server's own word."""
        _, body = wire.Http(self.address).exchange("GET", "/metrics")
        lines = [line for line in body.decode().splitlines() if not line.startswith("#") and " " in line]
        series = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
        open_states = ("opening", "ready", "closing")
        states = {state: series.get(f'codegen_sessions{{state="{state}"}}', 0) for state in open_states}
        return states, series.get("codegen_tasks_running", 0)

    def close(self):
        self.process.stderr.close()
        return processes.end(self.process.pid, END_SECONDS)

    def verified(self):
        """What is wrong with the log, by the operator's own command."""
        done = subprocess.run([*self.command, "audit", "verify"], capture_output=True, text=True, env=self.env)
        return [] if done.returncode == 0 else [f"the log does not verify: {done.stdout}{done.stderr}"]


def run(server, seconds):
    """The rows of what was held, and what was answered wrongly."""
    warm_up = min(seconds * WARM_UP_SHARE, WARM_UP_SECONDS_MAX)
    playing = actors.Actors(server.rounds())
    time.sleep(warm_up)
    watching = watch.Watch(server.process.pid, max(0.2, (seconds - warm_up) / SAMPLES))
    time.sleep(seconds - warm_up)
    watching.stop()
    playing.stop()
    say(", ".join(f"{count} rounds of {name}" for name, count in playing.done.items()))
    wrong = list(playing.failures)
    wrong += [f"{name} never came to the end of a round" for name, count in playing.done.items() if count == 0]
    return watch.growth(watching.samples, short=seconds < SHORT_SECONDS), wrong


def settled(server, before):
    """What is still there once everybody has gone and there was time to notice."""
    # A killed front leaves its default session, which ends by its own idle time.
    deadline = time.monotonic() + IDLE_SECONDS + END_SECONDS
    while True:
        now, (states, tasks) = watch.sample(server.process.pid), server.left()
        wrong = [f"{tasks:.0f} tasks still run"] if tasks else []
        wrong += [f"{count:.0f} sessions are still {state}" for state, count in states.items() if count]
        for key, most in (("descriptors", 24), ("threads", 4)):
            grown = now["server", key] - before["server", key]
            if grown > most:
                wrong.append(f"the server holds {grown} more {key} than before")
        forking = now["hostile", "processes that fork on"]
        if forking:
            wrong.append(f"{forking} processes still fork")
        more = now["all", "processes"] - before["all", "processes"]
        if more > PROCESSES_MORE:
            wrong.append(f"{more} more processes run than before")
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(0.2)


def main():
    binary, seconds = os.path.abspath(sys.argv[1]), float(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="codegen-soak-") as scratch:
        server = Server(binary, Path(scratch))
        try:
            before = watch.sample(server.process.pid)
            rows, wrong = run(server, seconds)
            wrong += settled(server, before)
        finally:
            ended = server.close()
        if not ended:
            wrong.append("the server did not end in time, or left processes behind")
        wrong += server.verified()
    print(watch.table(rows))
    wrong += [f"{kind} of {part} grow" for part, kind, *_, holds in rows if not holds]
    for line in wrong:
        say(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
