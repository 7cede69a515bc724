#!/usr/bin/env python3
"""Measures the product beside its peers, in interleaved rounds of one run, and prints one Markdown table.

    bench.py TARGET_DIR [PART...]     (with what `make release` built, and the peers' binaries, below it)

The parts are echoes, files, programs, sessions, starts, memory, http and fleet; all of them when none is named. A missed target is a line in the table; only what breaks makes this exit non-zero. BENCH_SCALE=3 measures three times as
long. What is printed is also written as JSON, with every sample, into TARGET_DIR/bench/results.json.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import contenders as c
import fleet
import peers
import processes
import report
import web
from lines import Broken, LineServer
from product import Product, started_seconds

PAUSE = 0.005
ROUNDS = 8
# Longer than any step of the bench takes; a call that is never answered ends the run.
STUCK_SECONDS = 240
PARTS = ("echoes", "files", "programs", "sessions", "starts", "memory", "http", "fleet")
COLD_STARTS, WARM_STARTS = 5, 20
SOME_SESSIONS, MANY_SESSIONS = 20, 200
IDLE_SECONDS = 20
# Those that may be missing; when the product itself does not work, the bench is broken.
PEERS = {"ipykernel", "python", "forked", "docker", "filesystem", "http_python"}
# Where a Unix socket's path would be too long, state goes into the system's temporary directory.
STATE_PATH_BYTES_MAX = 60


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, target_dir, scratch, results):
        self.target_dir, self.scratch, self.results = target_dir, scratch, results
        self.release = target_dir / "release"
        self.cache = target_dir / "bench"
        self.rounds = max(1, round(ROUNDS * float(os.environ.get("BENCH_SCALE", "1"))))
        self.samples = {}
        self.broken = []

    def product(self, name):
        directory = self.scratch / name
        directory.mkdir()
        state = directory / "state"
        state.mkdir(mode=0o700)
        return Product(self.target_dir / "guided/coordinator", state)

    def entrants(self, stack, makers):
        """Those contenders that can be had; the others are named as missing."""
        found = {}
        for key, calls, make in makers:
            say(f"preparing {key}")
            try:
                contender = make()
            except (c.Missing, Broken) as reason:
                if isinstance(reason, Broken) and key not in PEERS:
                    raise
                self.results.missing[key] = str(reason)
                say(f"MISSING {key}: {reason}")
                continue
            stack.callback(contender.close)
            found[key] = (calls, contender)
        return found

    def compare(self, makers, finer=1):
        """Rounds in which every contender makes calls back to back and paced; who begins changes from round to round.

        A disk has good and bad moments: what waits for one takes turns `finer` times as often, with fewer calls each.
        """
        with ExitStack() as stack:
            found = self.entrants(stack, makers)
            order = list(found)
            for number in range(self.rounds * finer):
                signal.alarm(STUCK_SECONDS)
                for key in order[number % len(order) :] + order[: number % len(order)]:
                    calls, contender = found[key]
                    for mode, pause in (("bb", 0), ("paced", PAUSE)):
                        taken = contender.sample(calls, pause)
                        self.samples.setdefault(key, {}).setdefault(mode, []).extend(taken)
        for key in order:
            self.results.timed[key] = {mode: c.summary(taken) for mode, taken in self.samples[key].items()}

    def programs(self, client):
        python = sys._base_executable  # The interpreter itself, without a shim before it.

        def docker():
            engine = peers.Docker(self.scratch)
            try:
                contender = c.Command(*engine.command())
            except BaseException:
                engine.close()
                raise
            contender.close = engine.close
            return contender

        self.compare([
            ("run_python", 40, lambda: c.ToolCalls(client, ("run_python", {"code": "pass"}))),
            ("run_python_print", 20, lambda: c.ToolCalls(client, ("run_python", {"code": "print('x')"}))),
            ("kernel", 40, lambda: c.Kernel(client)),
            ("ipykernel", 30, lambda: c.Jupyter(peers.jupyter_python(self.cache))),
            ("python", 6, lambda: c.Command(python, "-c", "pass")),
            ("forked", 40, lambda: c.ForkedFloor(self.scratch)),
            ("docker", 4, docker),
        ])

    def files(self, client):
        shared = self.scratch / "shared"
        shared.mkdir()
        path = str(shared / "note.txt")
        self.compare([
            (
                "files",
                20,
                lambda: c.ToolCalls(
                    client, ("fs_write", {"path": "note.txt", "contents": c.KIB}), ("fs_read", {"path": "note.txt"})
                ),
            ),
            (
                "filesystem",
                20,
                lambda: c.ToolCalls(
                    c.filesystem_server(*peers.filesystem_script(self.cache), shared),
                    ("write_file", {"path": path, "content": c.KIB}),
                    ("read_text_file", {"path": path}),
                    owned=True,
                ),
            ),
        ], finer=3)

    def echoes(self, client):
        call = ("echo", {"message": "hello"})

        def peer(name):
            return c.ToolCalls(LineServer([str(self.release / name)]).greet(), call, owned=True)

        self.compare([
            ("echo", 24, lambda: c.ToolCalls(client, call)),
            ("echo_memory", 24, lambda: peer("bench-echo-memory-log")),
            ("echo_bare", 24, lambda: peer("bench-rmcp-echo")),
            ("fdatasync", 24, lambda: c.SyncOneRecord(self.scratch)),
        ], finer=5)

    def sessions(self, client):
        self.compare([("session_create", 8, lambda: c.SessionCreate(client))])

    def starts(self):
        """From launching a front to `initialize` answered: with no server yet, and with one running."""
        product, cold, warm = self.product("starts"), [], []
        for _ in range(COLD_STARTS):
            client, seconds = started_seconds(product)
            cold.append(seconds)
            if len(cold) == COLD_STARTS:
                break
            client.close()
            product.stop()
        try:
            for _ in range(WARM_STARTS):
                second, seconds = started_seconds(product)
                warm.append(seconds)
                second.close()
        finally:
            client.close()
            product.stop()
        for name, taken in (("start_cold", cold), ("start_warm", warm)):
            note = f"worst of {len(taken)}: {max(taken) * 1e3:.0f} ms"
            self.results.single[name] = {
                "value": statistics.median(taken) * 1e3, "note": note, "ms": [s * 1e3 for s in taken]
            }

    def memory(self):
        """What an idle server holds, what a session adds, and whether many idle sessions do no harm."""
        product = self.product("memory")
        with product.running() as client:
            server = product.server()
            idle = processes.settled(server)
            if idle.unreadable:
                why = f"{idle.unreadable} processes' memory cannot be read by this user; run as root"
                for name in ("idle", "session"):
                    self.results.missing[name] = why
            else:
                self.idle(server, idle)
            self.idle_sessions(client, server, idle)
            self.many_sessions(client, server)

    def idle(self, server, idle):
        chain = processes.roles(server)
        own = idle.of(chain)
        parts = " + ".join(mib(idle.of([pid])) for pid in chain)
        note = f"{parts} MiB; with prepared sandboxes {mib(idle.total)} MiB"
        self.results.single["idle"] = {"value": own / (1 << 20), "note": note}
        used = -sum(map(processes.cpu_seconds, chain))
        time.sleep(IDLE_SECONDS)
        used += sum(map(processes.cpu_seconds, chain))
        self.results.single["idle_cpu"] = {"value": 100 * used / IDLE_SECONDS, "note": f"in {IDLE_SECONDS} s"}

    def idle_sessions(self, client, server, idle):
        made = [c.session_id(client.tool("session_create")) for _ in range(SOME_SESSIONS)]
        created = processes.settled(server)
        for session in made:
            client.tool("run_python", session_id=session, code="pass")
        used = processes.settled(server)
        if "session" not in self.results.missing:
            each = [(memory.total - idle.total) / SOME_SESSIONS for memory in (created, used)]
            note = f"{mib(each[0])} MiB before its first call"
            self.results.single["session"] = {"value": each[1] / (1 << 20), "note": note}
        for session in made:
            client.tool("session_close", session_id=session)

    def many_sessions(self, client, server):
        start, made, failures = time.perf_counter(), [], 0
        for _ in range(MANY_SESSIONS):
            try:
                made.append(c.session_id(client.tool("session_create")))
            except Broken as failure:
                failures += 1
                say(str(failure))
        created_seconds = time.perf_counter() - start
        held, taken = processes.settled(server), []
        for session in made[:: MANY_SESSIONS // 20]:
            begun = time.perf_counter()
            try:
                client.tool("run_python", session_id=session, code="print('here')")
            except Broken as failure:
                failures += 1
                say(str(failure))
            taken.append(time.perf_counter() - begun)
        total = f"{held.total / (1 << 30):.2f} GiB" if not held.unreadable else "an unreadable amount"
        note = (
            f"made in {created_seconds:.1f} s, {len(held.by_pid) + held.unreadable} processes hold {total}; "
            f"first calls {statistics.median(taken) * 1e3:.1f} / {max(taken) * 1e3:.1f} ms"
        )
        self.results.single["many"] = {"value": failures, "note": note}
        for session in made:
            client.tool("session_close", session_id=session)

    def http(self):
        """Calls and idle streams over HTTP."""
        scale = float(os.environ.get("BENCH_SCALE", "1"))
        with ExitStack() as stack:
            makers = [(key, None, make) for key, make in web.servers(self.release, self.cache, self.product)]
            found = {key: server for key, (_, server) in self.entrants(stack, makers).items()}
            taken = web.calls(found, self.release, scale, lambda: signal.alarm(STUCK_SECONDS))
            for (key, clients), rounds in taken.items():
                rate = statistics.median(one["calls"] / one["seconds"] for one in rounds)
                times = {part: statistics.median(one[part] for one in rounds) for part in ("p50_ms", "p99_ms")}
                self.results.http.setdefault(key, {})[clients] = {"calls_per_s": rate, **times}
        # A server of its own each: what calls have left behind is not what streams hold.
        for name, path in (("streams_mcp", "/mcp"), ("streams_sse", "/sse")):
            signal.alarm(STUCK_SECONDS)
            server = web.HttpProduct(self.product(name))
            try:
                held, before = web.idle(server, self.release, path)
                note = f"{mib(held - before)} MiB more than before"
                self.results.single[name] = {"value": held / (1 << 20), "note": note}
            except c.Missing as reason:
                self.results.missing[name] = str(reason)
            finally:
                server.close()

    def fleet(self):
        """Many workers, and workers that run by themselves."""
        self.results.fleet["placement"] = fleet.placement(self.release)
        signal.alarm(STUCK_SECONDS)
        self.results.fleet["dispatch"] = fleet.dispatch(self.release)
        self.results.fleet["heartbeats"] = fleet.heartbeats(self.product("heartbeats"), self.release)
        signal.alarm(STUCK_SECONDS)
        self.results.fleet["sessions"] = fleet.sessions(self.product("remote"))

    def run(self, wanted):
        of_client = [part for part in ("echoes", "files", "programs", "sessions") if part in wanted]
        if of_client:
            product = self.product("main")
            with product.running() as client:
                for name in of_client:
                    say(name)
                    getattr(self, name)(client)
        for name in (part for part in ("starts", "memory", "http", "fleet") if part in wanted):
            signal.alarm(STUCK_SECONDS)
            say(name)
            try:
                getattr(self, name)()
            except (Broken, subprocess.SubprocessError, OSError) as failure:
                # What the others found is not lost with it.
                self.broken.append(f"{name}: {failure}{said_by(failure)}")
        signal.alarm(0)


def said_by(failure):
    """What a program that failed said last."""
    return f" ({failure.stderr.strip()[-500:]})" if getattr(failure, "stderr", None) else ""


def mib(size):
    return f"{size / (1 << 20):.1f}"


def stuck(_number, _frame):
    raise Broken(f"a step took longer than {STUCK_SECONDS} s")


def main():
    target_dir = Path(sys.argv[1]).resolve()
    wanted = sys.argv[2:] or PARTS
    if unknown := set(wanted) - set(PARTS):
        say(f"no such part: {', '.join(sorted(unknown))}")
        return 2
    processes.allow_open_files(4 * web.IDLE_STREAMS)
    signal.signal(signal.SIGALRM, stuck)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (target_dir / "bench").mkdir(parents=True, exist_ok=True)
    # Beside the build where that is possible: a temporary directory may be in memory, where a durable log costs nothing.
    near = target_dir / "bench" if len(os.fsencode(target_dir)) <= STATE_PATH_BYTES_MAX else None
    scratch = Path(tempfile.mkdtemp(prefix="run-", dir=near))
    results = report.Results()
    load = os.getloadavg()[0]
    try:
        bench = Bench(target_dir, scratch, results)
        bench.run(wanted)
    except Broken as failure:
        say(f"broken: {failure}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    kept = {"timed": results.timed, "single": results.single, "http": results.http, "fleet": results.fleet, "missing": results.missing, "samples_s": bench.samples}
    kept["load"] = load
    (target_dir / "bench/results.json").write_text(json.dumps({"verdicts": report.verdicts(results), **kept}, indent=1))
    print(report.markdown(results, load))
    for failure in bench.broken:
        say(f"broken: {failure}")
    return 1 if bench.broken else 0


if __name__ == "__main__":
    sys.exit(main())
