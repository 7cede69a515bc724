"""What is measured: each contender makes calls and says how long each took, in seconds."""

import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

from lines import Broken, LineServer, succeeded

HERE = Path(__file__).resolve().parent
KIB = "x" * 1023 + "\n"


def percentile(seconds, part):
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


class Missing(Exception):
    """A peer that cannot be had here, and why."""


class Contender:
    """Anything that can be called again and again."""

    def call(self):
        raise NotImplementedError

    def sample(self, calls, pause):
        seconds = []
        for _ in range(calls):
            time.sleep(pause)
            start = time.perf_counter()
            self.call()
            seconds.append(time.perf_counter() - start)
        return seconds

    def close(self):
        """Ends what the contender started."""


class ToolCalls(Contender):
    """One or more calls of tools, one after the other, on a server that speaks MCP over stdio."""

    def __init__(self, server, *calls, owned=False):
        self.server, self.calls, self.owned = server, calls, owned
        for name, arguments in calls:
            server.tool(name, **arguments)

    def sample(self, calls, pause):
        # Messages are made before and answers are read after the measurement, for every server alike.
        messages = [[self.server.tool_message(*call) for call in self.calls] for _ in range(calls)]
        seconds, answers = [], []
        for group in messages:
            time.sleep(pause)
            start = time.perf_counter()
            for message in group:
                answers.append(self.server.exchange(message))
            seconds.append(time.perf_counter() - start)
        for answer in answers:
            succeeded(answer)
        return seconds

    def close(self):
        if self.owned:
            self.server.close()


class Kernel(ToolCalls):
    """`run_python` in a kernel, where the product has kernels."""

    def __init__(self, server):
        call = ("run_python", {"code": "pass", "kernel": "bench"})
        try:
            super().__init__(server, call)
        except Broken as refusal:
            if "`kernel`: unknown" not in str(refusal):
                raise
            raise Missing("the product has no kernels") from refusal


class Command(Contender):
    """A program that is started for each call."""

    def __init__(self, *command):
        self.command = command
        self.call()

    def call(self):
        subprocess.run(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)


class ForkedFloor(Contender):
    """A hand-made interpreter that forks for each call, over a Unix socket."""

    def __init__(self, directory, code="pass"):
        path = directory / "floor.sock"
        self.request = struct.pack("!I", len(code)) + code.encode()
        self.process = subprocess.Popen([sys.executable, HERE / "forked_floor.py", path], stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise Broken("the forked interpreter did not start")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.call()

    def call(self):
        self.socket.sendall(self.request)
        status, _output_bytes = struct.unpack("!iI", self.socket.recv(8, socket.MSG_WAITALL))
        if status != 0:
            raise Broken(f"the forked interpreter ended with {status}")

    def close(self):
        self.socket.close()
        self.process.wait(10)
        self.process.stdout.close()


class Jupyter(Contender):
    """A warm kernel of Jupyter; it measures itself."""

    def __init__(self, python):
        command = [python, HERE / "ipykernel_peer.py"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if self.read() != "ready":
            raise Broken("the kernel of Jupyter did not start")

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise Broken("the kernel of Jupyter went away")
        return json.loads(line)

    def sample(self, calls, pause):
        self.process.stdin.write(json.dumps({"calls": calls, "pause": pause}) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


class SyncOneRecord(Contender):
    """What a durable record costs the disk: a write into space allocated ahead, and fdatasync, as the log does it."""

    RECORD = b"r" * 640

    def __init__(self, directory):
        self.file = os.open(directory / "synced", os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(self.file, 0, 64 << 20)
        os.fsync(self.file)
        self.end = 0

    def call(self):
        self.end += os.pwrite(self.file, self.RECORD, self.end)
        os.fdatasync(self.file)

    def close(self):
        os.close(self.file)


class SessionCreate(Contender):
    """`session_create`; what a batch made is closed again outside of the measurement."""

    def __init__(self, server):
        self.server = server

    def sample(self, calls, pause):
        seconds, sessions = [], []
        for _ in range(calls):
            message = self.server.tool_message("session_create", {})
            time.sleep(pause)
            start = time.perf_counter()
            answer = self.server.exchange(message)
            seconds.append(time.perf_counter() - start)
            sessions.append(session_id(succeeded(answer)))
        for session in sessions:
            self.server.tool("session_close", session_id=session)
        return seconds


def session_id(result):
    return result["structuredContent"]["session_id"]


def filesystem_server(node, script, directory):
    server = LineServer([node, str(script), str(directory)])
    return server.greet()


def summary(seconds):
    return {
        "calls": len(seconds),
        "p50_ms": statistics.median(seconds) * 1e3,
        "p99_ms": percentile(seconds, 0.99) * 1e3,
        "mean_ms": statistics.fmean(seconds) * 1e3,
    }
