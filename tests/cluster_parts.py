"""The parts of the cluster that `cluster_demo.py` shows: as containers of a Docker engine, or as processes of this machine.

Either way state, workspaces and tokens are directories below `root`, so that the demo can look at what ran.
"""

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

WORKERS = ("a", "b", "c")
PATIENCE = 60
# Silence is noticed within seconds, so that this takes half a minute.
SETTINGS = {
    "WORKER_KEEP_ALIVE": "1s",
    "WORKER_RECONNECT_GRACE": "6s",
    "WORKER_HEARTBEAT_TIMEOUT": "10s",
    "WORKER_HEARTBEAT_INTERVAL": "1s",
    "HTTP_RATE": "none",
}
# The user of the images.
IMAGE_USER = 1000
DOCKER = Path(__file__).resolve().parent.parent / "docker"


def fail(text):
    raise SystemExit(f"cluster-demo: {text}")


def succeeded(done, what):
    if done.returncode != 0:
        fail(f"{what} failed: {done.stdout}{done.stderr}")
    return done.stdout


class Parts:
    """What both kinds have in common: workspaces, tokens, and waiting for what was started."""

    def __init__(self, root):
        self.root, self.state = Path(root), Path(root) / "state"
        self.own(self.state)
        for name in WORKERS:
            self.own(self.root / f"workspaces-{name}")

    def own(self, directory):
        directory.mkdir(mode=0o700)

    def start(self):
        """Everything, until all workers have joined."""
        self.serve()
        self.token = self.root / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(self.command("tokens", "create", "--role", "worker"))
        self.hand_over(self.token)
        for name in WORKERS:
            self.start_worker(name)
        self.wait_until("the workers do not join", self.all_have_joined)

    def hand_over(self, file):
        """Makes a file the workers' own."""

    def all_have_joined(self):
        return self.command("workers", "ls", "--json").count("healthy") == len(WORKERS)

    def wait_until(self, otherwise, holds):
        until = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > until:
                fail(otherwise)
            time.sleep(0.2)

    def place_of(self, session):
        """The worker that has the session's files, and what ran in it."""
        for name in WORKERS:
            workspace = self.root / f"workspaces-{name}" / session
            if workspace.is_dir():
                runs = workspace / "runs.txt"
                return name, runs.read_text().split() if runs.exists() else []
        return "?", []


class Containers(Parts):
    """A container for each, confined as compose.yaml has it, on a network of their own."""

    kind = "containers of a Docker engine"
    images = ("codegen-mcp/coordinator:test", "codegen-mcp/worker:test")

    def __init__(self, _binary, root):
        self.name = f"codegen-cluster-{os.getpid()}"
        # Whoever may use the engine without being root has the containers run as themselves, so that files can be looked at.
        self.user = os.getuid() or IMAGE_USER
        self.environment = {**os.environ, "DOCKER_HOST": os.environ["CODEGEN_TEST_ENGINE"]}
        super().__init__(root)
        # Everybody may pass, and nobody but who owns them may look into the directories below.
        os.chmod(root, 0o711)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        succeeded(self.docker("network", "create", self.name), "making a network")

    def own(self, directory):
        super().own(directory)
        self.hand_over(directory)

    def hand_over(self, file):
        if os.getuid() == 0:
            os.chown(file, self.user, self.user)

    def docker(self, *arguments):
        return subprocess.run(["docker", *map(str, arguments)], env=self.environment, capture_output=True, text=True)

    def run(self, part, image, options, arguments):
        confined = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp:mode=1777"]
        named = ["--detach", "--name", f"{self.name}-{part}", "--network", self.name, "--network-alias", part]
        user = ["--user", f"{self.user}:{self.user}"]
        succeeded(self.docker("run", *named, *user, *confined, *options, image, *arguments), f"starting {part}")

    def serve(self):
        settings = [part for name, value in SETTINGS.items() for part in ("--env", f"{name}={value}")]
        options = ["--publish", f"{self.address}:8080", "--volume", f"{self.state}:/var/lib/codegen-mcp", *settings]
        arguments = ["serve", "--no-embedded-worker", "--http", "0.0.0.0:8080", "--grpc", "0.0.0.0:50050"]
        self.run("coordinator", self.images[0], options, [*arguments, "--http-auth", "required", "--insecure-plaintext"])
        self.wait_until("the coordinator does not serve", self.is_alive)

    def is_alive(self):
        try:
            with urllib.request.urlopen(f"http://{self.address}/healthz", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def command(self, *arguments):
        done = self.docker("exec", f"{self.name}-coordinator", "coordinator", *arguments)
        return succeeded(done, " ".join(arguments))

    def start_worker(self, name):
        full = ["--security-opt", f"seccomp={DOCKER / 'seccomp-worker.json'}", "--security-opt", "systempaths=unconfined"]
        files = ["--volume", f"{self.root / f'workspaces-{name}'}:/var/lib/codegen-worker",
                 "--volume", f"{self.token}:/run/secrets/worker-token:ro"]
        told = ["--env", f"WORKER_ID={name}", "--env", "WORKER_TOKEN_FILE=/run/secrets/worker-token"]
        self.run(f"worker-{name}", self.images[1], [*full, *files, *told],
                 ["--coordinator", "coordinator:50050", "--insecure-plaintext"])

    def kill_worker(self, name):
        succeeded(self.docker("kill", f"{self.name}-worker-{name}"), "killing a worker")

    def restart(self):
        succeeded(self.docker("kill", f"{self.name}-coordinator"), "killing the coordinator")
        succeeded(self.docker("start", f"{self.name}-coordinator"), "starting the coordinator again")
        self.wait_until("the coordinator does not serve again", self.is_alive)

    def verify(self):
        """Ends everything, and has the log verified by a process of its own."""
        for part in (*(f"worker-{name}" for name in WORKERS), "coordinator"):
            self.docker("stop", "--time", "20", f"{self.name}-{part}")
        mounted = ["--volume", f"{self.state}:/var/lib/codegen-mcp"]
        user = ["--user", f"{self.user}:{self.user}"]
        return succeeded(self.docker("run", "--rm", *user, *mounted, self.images[0], "audit", "verify"), "audit verify")

    def remove(self):
        for part in (*(f"worker-{name}" for name in WORKERS), "coordinator"):
            self.docker("rm", "--force", "--volumes", f"{self.name}-{part}")
        self.docker("network", "rm", self.name)


class Processes(Parts):
    """A process of this machine for each, which speak over TCP."""

    kind = "processes of this machine"

    def __init__(self, binary, root):
        super().__init__(root)
        self.binary, self.address, self.grpc, self.server = binary, None, None, None
        self.environment = {"PATH": os.environ.get("PATH", ""), "HOME": root, **SETTINGS}
        self.workers = {}

    def command(self, *arguments):
        done = subprocess.run(
            [self.binary, "--state-dir", self.state, *arguments], env=self.environment, capture_output=True, text=True
        )
        return succeeded(done, " ".join(arguments))

    def serve(self):
        http, grpc = self.address or "127.0.0.1:0", self.grpc or "127.0.0.1:0"
        arguments = ["serve", "--http", http, "--http-auth", "required", "--grpc", grpc, "--no-embedded-worker"]
        self.server = subprocess.Popen(
            [self.binary, "--state-dir", self.state, *arguments], env=self.environment, stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        said_grpc = said_http = False
        while not (said_grpc and said_http):
            said = self.server.stderr.readline()
            if not said:
                fail("the coordinator does not serve")
            if "workers join at" in said:
                self.grpc, said_grpc = said.split()[-1], True
            if "http://" in said:
                self.address, said_http = said.split("http://")[1].split("/")[0].split()[0], True
        threading.Thread(target=lambda stderr: [None for _ in stderr], args=(self.server.stderr,), daemon=True).start()

    def start_worker(self, name):
        self.workers[name] = subprocess.Popen(
            [self.binary, "worker", "--coordinator", self.grpc, "--worker-id", name, "--token-file", self.token,
             "--base-workspace", self.root / f"workspaces-{name}"],
            env=self.environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def kill_worker(self, name):
        self.workers[name].send_signal(signal.SIGKILL)

    def restart(self):
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        self.serve()

    def verify(self):
        """Ends everything, and has the log verified by a process of its own."""
        self.remove()
        return self.command("audit", "verify")

    def remove(self):
        started = [process for process in (*self.workers.values(), self.server) if process]
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def at_hand(binary, root):
    """Containers where there is an engine with the images; where there is none, processes, and why."""
    if "CODEGEN_TEST_ENGINE" in os.environ:
        return Containers(binary, root)
    why = os.environ.get("CODEGEN_TEST_NO_ENGINE", "not run by tests/with-engine")
    print(f"NO CONTAINERS, {why}: each part is a process of this machine instead", flush=True)
    return Processes(binary, root)
