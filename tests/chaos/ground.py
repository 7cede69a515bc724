"""The product as an operator runs it: a server with its own worker, a second worker that joined over TCP, and whoever is
to be killed among their processes."""

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import processes

PATIENCE_SECONDS = 60
# How long what a killed process leaves behind may take to end.
DEATH_SECONDS = 10
FAR = "far"
PLACES = ("embedded", FAR)
SETTINGS = {
    "MAX_SESSIONS": "64",
    "HTTP_RATE": "none",
    "HTTP_AUTH": "open",
    "CLEANUP_INTERVAL": "1s",
    # Long enough that no worker is given up that comes back, short enough that a test of it ends.
    "WORKER_KEEP_ALIVE": "5s",
    "WORKER_RECONNECT_GRACE": "30s",
    "WORKER_HEARTBEAT_TIMEOUT": "60s",
    "WORKER_HEARTBEAT_INTERVAL": "1s",
}
# Below those that the system gives to connections that go out.
PORTS = range(20_000, 30_000)


class Stuck(Exception):
    """Something did not come to be that must within a minute."""


def poll(what, ask, seconds=PATIENCE_SECONDS):
    left, last = seconds, time.monotonic()
    while not (found := ask()):
        # A machine that stood still meanwhile took no time of anybody's.
        now = time.monotonic()
        left, last = left - min(now - last, 1), now
        if left < 0:
            raise Stuck(f"{what}: not within {seconds} s")
        time.sleep(0.01)
    return found


def free_port():
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def started(pid):
    """When a process was started, in ticks since boot; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def family(pid):
    """A process and all below it, each with when it was started: a number may be another's soon."""
    return {one: at for one in processes.below(pid) if (at := started(one)) is not None}


def alive(those):
    return {pid for pid, at in those.items() if started(pid) == at}


def user_of(pid):
    """The host's user id of a process, with which sessions are told apart; None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return int(next(line for line in lines if line.startswith("Uid:")).split()[1])


def entries(directory):
    """Whatever is in a directory that others work in, by name with its status; what goes meanwhile is left out."""
    found = {}
    with os.scandir(directory) as those:
        for entry in those:
            try:
                found[entry.name] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
    return found


class Level:
    """At which level of isolation the product runs, and as whom: at its best as this user; below, with what `confined`
    leaves it, and at level reduced as an ordinary user of its own where this one is root."""

    def __init__(self, name="full", confined=None):
        self.name, self.user = name, os.getuid()
        if name == "reduced" and self.user == 0:
            self.user = 100_000 + os.getpid()
        become = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        self.prefix = [*(become if self.user != os.getuid() else []), *([confined] if confined else [])]
        # Who serves so many clients where sessions share a user id must be told so.
        self.env = {"ISOLATION_MINIMUM": name, "REDUCED_SESSIONS": SETTINGS["MAX_SESSIONS"]} if confined else {}

    def give(self, path):
        os.chown(path, self.user, -1)
        return path

    def directory(self, path):
        path.mkdir(mode=0o700)
        return self.give(path)


class Ground:
    """Everything that runs, on directories below `root`. Either an operator's process manager keeps a server that serves
    over HTTP, too; or nobody does, and each front starts a server where there is none."""

    def __init__(self, binary, root, on_demand, level):
        self.level, self.root, self.on_demand = level, Path(root), on_demand
        self.program = [*level.prefix, binary]
        if level.prefix:
            # Whoever runs the product, and whom a level gives to sessions, passes to their files from here.
            self.root.chmod(0o755)
        self.state, self.far_base = (level.directory(self.root / name) for name in ("state", "far"))
        self.http, self.grpc = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(self.root), **SETTINGS, **level.env}
        self.env |= {"GRPC_LISTEN": self.grpc} | ({} if on_demand else {"HTTP_LISTEN": self.http})
        self.command = [*self.program, "--state-dir", str(self.state)]
        self.serving, self.far, self.stopped, self.launchers, self.children = None, None, None, set(), []
        # Directories that the far worker had, and lost.
        self.lost = []

    def start(self):
        self.wait_serving()
        self.token = self.root / "token"
        self.token.touch(mode=0o600)
        self.level.give(self.token)
        self.token.write_text(self.run("tokens", "create", "--role", "worker"))
        self.wait_whole()

    def run(self, *arguments):
        done = self.ask(*arguments)
        done.check_returncode()
        return done.stdout

    def ask(self, *arguments):
        """A command of the operator's, which is answered or the run has failed."""
        return subprocess.run(
            [*self.command, *arguments], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS,
        )

    def server(self):
        return processes.listener(self.state / "server.sock")

    def wait_serving(self):
        """Until somebody serves, who is meant to; its process."""
        return poll("a server serves", self.serves)

    def serves(self):
        pid = self.server()
        if self.on_demand:
            if not pid:
                # The client of a moment, when no other is there.
                # What it says is not kept: the server that it starts may hold on to its end of a pipe.
                quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
                subprocess.run(self.command, env=self.env, check=False, timeout=PATIENCE_SECONDS, **quiet)
            return pid
        if self.serving is None or self.serving.poll() is not None:
            self.serving = self.launch("serve.err", [*self.command, "serve"])
        elif pid == self.serving.pid:
            return pid
        elif pid:
            # A front was there before, and started a server that does not serve over HTTP. A second signal would have
            # it end at once.
            if pid != self.stopped:
                processes.send(pid, signal.SIGTERM)
            self.stopped = pid
        return None

    def keep_far(self):
        """Starts the second worker where it does not run, as its process manager does."""
        if self.far is None or self.far.poll() is not None:
            labels = ["--label", "place=far", "--token-file", str(self.token), "--base-workspace", str(self.far_base)]
            arguments = ["worker", "--coordinator", self.grpc, "--worker-id", FAR, *labels]
            self.far = self.launch("far.err", [*self.program, *arguments])

    def lives(self):
        """The life of each worker that can be given work now, by the server's own word."""
        listed = self.ask("workers", "ls", "--json")
        if listed.returncode != 0:
            return {}
        rows = json.loads(listed.stdout)
        return {row["worker_id"]: row["incarnation"] for row in rows if row["state"] == "healthy" and row["link_up"]}

    def whole(self, besides=()):
        """The lives of the workers that are there, once somebody serves; those that are known to be over count as none."""
        if not self.serves():
            return {}
        self.keep_far()
        lives = {place: life for place, life in self.lives().items() if life not in besides}
        pids = (self.launcher(place) for place in lives)
        self.launchers |= {(pid, at) for pid in pids if pid and (at := started(pid))}
        return lives

    def wait_whole(self):
        """Until everything is there; the lives of the workers."""

        def all_there():
            lives = self.whole()
            return lives if set(lives) == set(PLACES) else None

        return poll("the server and both workers are there", all_there)

    def launch(self, log, command):
        """Starts a process of the operator's, whose words are kept."""
        with open(self.root / log, "a", encoding="utf-8") as stderr:
            child = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                start_new_session=True,
            )
        self.children = [one for one in self.children if one.poll() is None] + [child]
        return child

    def worker(self, place):
        """The process of a worker, or None."""
        if place == FAR:
            return self.far.pid if self.far and self.far.poll() is None else None
        server = self.server()
        return child_of(server) if server else None

    def launcher(self, place):
        worker = self.worker(place)
        return child_of(worker) if worker else None

    def inits(self, place):
        """The first process of each sandbox, with the session that it is of; spares are of none."""
        launcher = self.launcher(place)
        if not launcher:
            return []
        held = entries(self.base(place))
        sessions = {status.st_uid: name for name, status in held.items() if name.startswith("ses_")}
        found = sorted(pid for pid, parent in processes.parents().items() if parent == launcher)
        if self.level.name == "reduced":
            return [(pid, self.session_inside(pid, place)) for pid in found]
        return [(pid, sessions.get(user_of(pid))) for pid in found]

    def session_inside(self, init, place):
        """The session in whose workspace something below an init works, where user ids tell no session; or None."""
        for pid in processes.below(init):
            try:
                inside = Path(os.readlink(f"/proc/{pid}/cwd")).relative_to(self.base(place)).parts
            except (OSError, ValueError):
                continue
            if inside and inside[0].startswith("ses_"):
                return inside[0]
        return None

    def base(self, place):
        return self.far_base if place == FAR else self.state / "workspaces"

    def lose_far(self):
        """Takes the far worker's directory away, which does not run now, and gives it an empty one."""
        away = self.root / f"lost-{len(self.lost)}"
        self.far_base.rename(away)
        self.level.directory(self.far_base)
        self.lost.append(away)

    def is_lost(self, session):
        return any((base / session).is_dir() for base in self.lost)

    def workspace(self, session):
        """Where a session's files are or were when they were lost, and the place; None for one that has none."""
        bases = [*((self.base(place), place) for place in PLACES), *((base, FAR) for base in self.lost)]
        return next(((base / session, place) for base, place in bases if (base / session).is_dir()), None)

    def place_of(self, session):
        found = self.workspace(session)
        return found and found[1]

    def ran_in(self, session):
        """The tokens of programs that ran in a session, each with when."""
        found = self.workspace(session)
        lines = found[0] / "runs.txt" if found else None
        try:
            found = [line.split() for line in lines.read_text().splitlines()] if lines else []
        except FileNotFoundError:
            return []
        return [(token, float(at)) for token, at in found]

    def kill(self, pid):
        """Kills a process and waits for its end; all that lived by it is given back, itself among them."""
        those = family(pid)
        processes.send(pid, signal.SIGKILL)
        poll("a killed process is gone", lambda: started(pid) != those.get(pid) or started(pid) is None)
        return those

    def end(self):
        """Ends everything in good order. What did not end by itself is killed, and said."""
        left = []
        ended = [pid for pid in (self.far and self.far.pid, self.server()) if pid]
        those = {pid: at for top in ended for pid, at in family(top).items()}
        for pid in ended:
            processes.send(pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while alive(those) and time.monotonic() < deadline:
            reap(self.children)
            time.sleep(0.01)
        for pid in alive(those):
            left.append(f"process {pid} did not end in good order")
            processes.send(pid, signal.SIGKILL)
        return left

    def remove(self):
        """Kills whatever of it still runs, for when a run is given up."""
        tops = [child.pid for child in self.children if child.poll() is None]
        tops += [pid for pid in (self.server(),) if pid]
        for pid in {pid for top in tops for pid in processes.below(top)}:
            processes.send(pid, signal.SIGKILL)
        reap(self.children)


def reap(children):
    for child in children:
        child.poll()


def child_of(pid):
    children = [child for child, parent in processes.parents().items() if parent == pid]
    return min(children) if children else None


