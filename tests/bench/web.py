"""The product over HTTP beside its peers: calls of `echo` by many clients at once, and what idle streams hold."""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import peers
import processes
from contenders import Missing
from lines import Broken

HERE = Path(__file__).resolve().parent
CLIENTS = (8, 64)
ROUNDS, ROUND_SECONDS = 6, 1.0
IDLE_STREAMS = 1000
END_SECONDS = 20
# More than the bench can make: what is measured is that calls are counted, not that they are refused.
RATE = "1000000/s"


class Load:
    """A process of load, with a connection and a session for each client."""

    def __init__(self, release, what, url, clients, token=None):
        env = {**os.environ, "BENCH_TOKEN": token} if token else None
        command = [str(release / "bench-http-load"), what, url, str(clients)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        if self.line() != "ready":
            raise Broken("the load did not start")

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            raise Broken(f"the load ended: {self.process.stderr.read()[-300:]}")
        return line.strip()

    def round(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return json.loads(self.line())

    def close(self):
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(END_SECONDS)


class Peer:
    """A server that says on stdout where it listens, and ends with its stdin or at SIGTERM."""

    token = None

    def __init__(self, *command):
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            self.close()
            raise Broken(f"{command[-1]} did not start")

    def close(self):
        self.process.stdin.close()
        processes.end(self.process.pid)
        self.process.wait(END_SECONDS)
        self.process.stdout.close()


class HttpProduct:
    """The product as an operator serves it: with tokens, limits and its log on disk."""

    def __init__(self, product):
        self.product = product
        env = {**product.env, "HTTP_AUTH": "required", "HTTP_RATE": RATE}
        command = [product.binary, "--state-dir", str(product.state_dir)]
        create = [*command, "tokens", "create", "--principal"]
        self.token = peers.run(*create, "bench", env=env).split()[0]
        self.process = subprocess.Popen(
            [*command, "serve", "--http", "127.0.0.1:0"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env
        )
        said = self.process.stderr.readline()
        if "http://" not in said:
            raise Broken(f"the product does not serve HTTP: {said.strip()}")
        self.url = said.split()[-1]

    def pss(self):
        try:
            return processes.pss_bytes(self.process.pid)
        except PermissionError as error:
            raise Missing("the server's memory cannot be read by this user; run as root") from error

    def close(self):
        self.process.stderr.close()
        processes.end(self.process.pid)
        self.process.wait(END_SECONDS)


def servers(release, cache, product):
    """Each server by its key, with how it is started."""
    python = peers.sdk_python
    return [
        ("http", lambda: HttpProduct(product("http"))),
        ("http_bare", lambda: Peer(release / "bench-rmcp-echo-http")),
        ("http_python", lambda: Peer(python(cache), HERE / "python_echo_http.py")),
    ]


def calls(found, release, scale, alive):
    """Rounds in which every server takes turns; the rate is the median of its rounds."""
    taken = {}
    for clients in CLIENTS:
        loads = {key: Load(release, "calls", server.url, clients, server.token) for key, server in found.items()}
        try:
            order = list(loads)
            for load in loads.values():
                load.round(ROUND_SECONDS / 2)
            for number in range(max(1, round(ROUNDS * scale))):
                alive()
                for key in order[number % len(order) :] + order[: number % len(order)]:
                    taken.setdefault((key, clients), []).append(loads[key].round(ROUND_SECONDS))
        finally:
            for load in loads.values():
                load.close()
    return taken


def idle(server, release, path):
    """What the server holds once many streams are open, and by how much that is more than before."""
    before = server.pss()
    url = server.url.removesuffix("/mcp") + path
    with ExitStack() as stack:
        stack.callback(Load(release, "idle", url, IDLE_STREAMS, server.token).close)
        return server.pss(), before
