"""What clients do, again and again: each actor is a kind of client, one round of it a life from greeting to leaving."""

import os
import random
import signal
import threading
import time

import wire
from lines import Broken, LineServer

# Between two rounds: the load is steady, not as much as the machine can bear.
PAUSE = 0.05
KILLS_ITSELF = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
SLEEPS = "import time; time.sleep(30)"


class Failed(Exception):
    """Something was answered otherwise than it must be."""


def session_of(result):
    return result["structuredContent"]["session_id"]


def work(client, session):
    """Runs, kernels and files in one session, with an interpreter and a kernel killed from inside."""
    client.tool("run_python", session_id=session, code="print(sum(range(1000)))")
    client.tool("run_shell", session_id=session, command="echo shell; ls")
    client.tool("fs_write", session_id=session, path="data/note.txt", contents="x" * 20_000)
    client.tool("fs_read", session_id=session, path="data/note.txt")
    client.tool("run_python", session_id=session, code="x = list(range(100_000))", kernel="one")
    client.tool("run_python", session_id=session, code="print(len(x))", kernel="one")
    for more in ({}, {"kernel": "one"}):
        try:
            client.tool("run_python", session_id=session, code=KILLS_ITSELF, **more)
        except (wire.Refused, Broken):
            continue
        raise Failed("a killed interpreter was a success")


def over_http(kind, address):
    client = kind(address)
    try:
        session = session_of(client.tool("session_create"))
        work(client, session)
        client.abandon("run_python", session_id=session, code=SLEEPS)
        client.tool("session_close", session_id=session)
    finally:
        client.close()


def over_stdio(front):
    """A front that mostly leaves in good order, and sometimes is killed in the middle of a call."""
    client = LineServer(*front)
    try:
        client.greet()
        session = session_of(client.tool("session_create"))
        work(client, session)
        client.tool("session_close", session_id=session)
        if random.random() < 0.3:
            client.write(client.tool_message("run_python", {"code": SLEEPS}))
            os.kill(client.process.pid, signal.SIGKILL)
            client.process.wait(20)
    finally:
        client.close()


class Actors:
    """Every actor in a thread of its own, until they are told to stop."""

    def __init__(self, rounds):
        self.stopping, self.done, self.failures = threading.Event(), {name: 0 for name in rounds}, []
        self.threads = [threading.Thread(target=self.act, args=one, daemon=True) for one in rounds.items()]
        for thread in self.threads:
            thread.start()

    def act(self, name, play):
        while not self.stopping.is_set():
            try:
                play()
                self.done[name] += 1
            except Exception as failure:  # noqa: BLE001: whatever it is, the run has failed, and says with what.
                self.failures.append(f"{name}: {type(failure).__name__}: {failure}")
                if len(self.failures) > 20:
                    return
            self.stopping.wait(PAUSE)

    def stop(self, seconds=90):
        self.stopping.set()
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        stuck = [name for name, thread in zip(self.done, self.threads, strict=True) if thread.is_alive()]
        self.failures.extend(f"{name}: it did not come to an end" for name in stuck)
