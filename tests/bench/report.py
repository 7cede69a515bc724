"""The table: figures, targets and verdicts, exactly as the README has them."""

import datetime
import os
import platform
from pathlib import Path

MODES = {"bb": "back to back", "paced": "paced"}


class Results:
    """Summaries by contender and mode, single figures by name, and what is missing with its reason."""

    def __init__(self):
        self.timed, self.single, self.http, self.fleet, self.missing = {}, {}, {}, {}, {}

    def at(self, key, mode, quantile):
        """One figure in ms, or None where there is none."""
        return self.timed.get(key, {}).get(mode, {}).get(f"{quantile}_ms")


def verdict(text, value, met, unit):
    shown = f"{value}" if isinstance(value, int) else f"{value:.2f}"
    return {"target": text, "value": value, "result": f"{shown}{unit}", "met": met}


def not_there(text, why):
    return {"target": text, "value": None, "result": "MISSING", "met": None, "why": why}


def faster(results, key, peer, mode, factor):
    """At least `factor` times as fast as the peer at the median."""
    text = f"{MODES[mode]}: at least {factor}x faster than {PEER_NAMES[peer]}"
    own, other = results.at(key, mode, "p50"), results.at(peer, mode, "p50")
    if own is None or other is None:
        return not_there(text, results.missing.get(key if own is None else peer, "not measured"))
    return verdict(text, other / own, other / own >= factor, "x")


def at_most(results, key, peer, mode, factor, quantile="p50"):
    """At most `factor` times the time of the peer."""
    text = f"{MODES[mode]}, {quantile}: at most {factor}x {PEER_NAMES[peer]}"
    own, other = results.at(key, mode, quantile), results.at(peer, mode, quantile)
    if own is None or other is None:
        return not_there(text, results.missing.get(key if own is None else peer, "not measured"))
    return verdict(text, own / other, own / other <= factor, "x")


def durable_echo(results, mode):
    """What an echo may take with its log on disk: 1.25 times the bare one, and 2.5 syncs."""
    text = f"{MODES[mode]}: at most 1.25x bare rmcp + 2.5 fdatasyncs"
    own, bare, sync = (results.at(key, mode, "p50") for key in ("echo", "echo_bare", "fdatasync"))
    if None in (own, bare, sync):
        return not_there(text, "not measured")
    bound = 1.25 * bare + 2.5 * sync
    text += f" = {bound:.2f} ms"
    return verdict(text, own, own <= bound, " ms")


def below(results, name, limit, unit):
    """A single figure at or below a limit."""
    text = f"at most {limit} {unit}"
    if name not in results.single:
        return not_there(text, results.missing.get(name, "not measured"))
    value = results.single[name]["value"]
    return verdict(text, value, value <= limit, f" {unit}")


def timed_below(results, key, mode, limit):
    text = f"{MODES[mode]}: at most {limit} ms"
    own = results.at(key, mode, "p50")
    if own is None:
        return not_there(text, results.missing.get(key, "not measured"))
    return verdict(text, own, own <= limit, " ms")


def rate_of(results, peer, clients, factor):
    """At least `factor` times the calls a second of a peer over HTTP."""
    text = f"{clients} clients: at least {factor:g}x {PEER_NAMES[peer]}"
    own, other = (results.http.get(key, {}).get(clients) for key in ("http", peer))
    if own is None or other is None:
        return not_there(text, results.missing.get("http" if own is None else peer, "not measured"))
    ratio = own["calls_per_s"] / other["calls_per_s"]
    return verdict(text, ratio, ratio >= factor, "x")


PEER_NAMES = {
    "ipykernel": "ipykernel",
    "docker": "`docker exec`",
    "filesystem": "server-filesystem",
    "echo_bare": "bare rmcp",
    "http_bare": "bare rmcp",
    "http_python": "the Python SDK",
}

# Each row: what a person reads, the key of its figures, and its targets.
TIMED = [
    (
        "fresh `run_python`, `pass`",
        "run_python",
        [
            lambda r: faster(r, "run_python", "ipykernel", "paced", 3),
            lambda r: faster(r, "run_python", "ipykernel", "bb", 1.2),
            lambda r: faster(r, "run_python", "docker", "bb", 50),
        ],
    ),
    ("fresh `run_python`, `print('x')`", "run_python_print", []),
    (
        "`run_python` in a kernel",
        "kernel",
        [
            lambda r: faster(r, "kernel", "ipykernel", "bb", 4),
            lambda r: faster(r, "kernel", "ipykernel", "paced", 3),
        ],
    ),
    ("peer: warm ipykernel", "ipykernel", []),
    ("peer: `python3 -c pass`", "python", []),
    ("peer: hand-made forked interpreter, no sandbox", "forked", []),
    ("peer: `docker exec python3 -c pass`", "docker", []),
    (
        "`fs_write` + `fs_read` of 1 KiB",
        "files",
        [
            lambda r: at_most(r, "files", "filesystem", "bb", 1.5),
            lambda r: at_most(r, "files", "filesystem", "paced", 1.5),
            lambda r: at_most(r, "files", "filesystem", "bb", 1, "p99"),
            lambda r: at_most(r, "files", "filesystem", "paced", 1, "p99"),
        ],
    ),
    ("peer: npm server-filesystem, the same", "filesystem", []),
    ("`echo`, durable", "echo", [lambda r: durable_echo(r, "bb"), lambda r: durable_echo(r, "paced")]),
    (
        "`echo`, log in memory (bench only)",
        "echo_memory",
        [
            lambda r: at_most(r, "echo_memory", "echo_bare", "bb", 1.25),
            lambda r: at_most(r, "echo_memory", "echo_bare", "paced", 1.25),
        ],
    ),
    ("peer: bare rmcp echo", "echo_bare", []),
    ("floor: `fdatasync` of one record", "fdatasync", []),
    (
        "`session_create`",
        "session_create",
        [
            lambda r: timed_below(r, "session_create", "paced", 10),
            lambda r: timed_below(r, "session_create", "bb", 10),
        ],
    ),
]

SINGLE = [
    ("front to `initialize` answered, server running", "start_warm", 100, "ms"),
    ("front to `initialize` answered, no server yet", "start_cold", 500, "ms"),
    ("idle server, worker and launcher, PSS", "idle", 60, "MiB"),
    ("idle server, worker and launcher, processor", "idle_cpu", 1, "% of one core"),
    ("idle session, PSS, after one `run_python`", "session", 16, "MiB"),
    ("200 idle sessions", "many", 0, "failures"),
    ("1,000 idle streams at `/mcp`, PSS of the server", "streams_mcp", 100, "MiB"),
    ("1,000 idle streams at `/sse`, PSS of the server", "streams_sse", 100, "MiB"),
]

HTTP = [
    (
        "`echo`, with tokens, limits and the log on disk",
        "http",
        [lambda r: rate_of(r, "http_bare", 64, 0.6), lambda r: rate_of(r, "http_python", 64, 15)],
    ),
    ("peer: bare rmcp", "http_bare", []),
    ("peer: the Python SDK (`mcp`, uvicorn)", "http_python", []),
]


def times(results, key, mode):
    own = results.timed.get(key, {}).get(mode)
    return f"{own['p50_ms']:.2f} / {own['p99_ms']:.2f}" if own else "-"


def cells(verdicts):
    words = {True: "met", False: "**missed**", None: ""}
    targets = "<br>".join(v["target"] for v in verdicts)
    return targets, "<br>".join(f"{v['result']} {words[v['met']]}".strip() for v in verdicts)


def rows(results):
    for title, key, targets in TIMED:
        if key not in results.timed and key not in results.missing:
            continue  # Its part was not asked for.
        verdicts = [target(results) for target in targets]
        if key in results.missing:
            title = f"{title}: MISSING ({results.missing[key]})"
        yield title, times(results, key, "bb"), times(results, key, "paced"), verdicts
    for title, name, limit, unit in SINGLE:
        if name not in results.single and name not in results.missing:
            continue
        verdicts = [below(results, name, limit, unit)]
        note = results.single.get(name, {}).get("note") or results.missing.get(name, "")
        yield title, note, "", verdicts


def http_rows(results):
    for title, key, targets in HTTP:
        if key not in results.http and key not in results.missing:
            continue
        verdicts = [target(results) for target in targets]
        if key in results.missing:
            title = f"{title}: MISSING ({results.missing[key]})"
        own = results.http.get(key, {})
        figures = [f"{at['calls_per_s']:.0f}; {at['p50_ms']:.2f} / {at['p99_ms']:.2f}" for at in own.values()]
        yield title, *(figures or ["-", "-"]), verdicts


def markdown(results, load):
    lines = [
        "| Measure | back to back, ms: p50 / p99 | 5 ms between calls, ms: p50 / p99 | Target | Result |",
        "| --- | --- | --- | --- | --- |",
    ]
    for title, bb, paced, verdicts in rows(results):
        lines.append("| " + " | ".join([title, bb, paced, *cells(verdicts)]) + " |")
    lines += [
        "",
        "| Streamable HTTP | 8 clients: calls/s; ms: p50 / p99 | 64 clients: calls/s; ms: p50 / p99 | Target | Result |",
        "| --- | --- | --- | --- | --- |",
    ]
    for title, few, many, verdicts in http_rows(results):
        lines.append("| " + " | ".join([title, few, many, *cells(verdicts)]) + " |")
    lines += ["", "| Fleet | measured | Target | Result |", "| --- | --- | --- | --- |"]
    for title, measured, verdicts in fleet_rows(results):
        lines.append("| " + " | ".join([title, measured, *cells(verdicts)]) + " |")
    return "\n".join([*lines, "", machine(load)])


def fleet_rows(results):
    """What was measured of the fleet; nothing when that part was left out."""
    if not (found := results.fleet):
        return
    placed, refused = found["placement"]["placed_ms"], found["placement"]["refused_ms"]
    spent = found["placement"]["placed_cpu_ms"]
    quantiles = (
        f"p50 {placed['p50']:.3f} ms, p99 {placed['p99']:.3f} ms ({spent['p99']:.3f} ms of the processor); "
        f"none fits: p99 {refused['p99']:.3f} ms"
    )
    met = verdict("p99 below 1 ms", placed["p99"], placed["p99"] < 1, " ms")
    yield "placing a session: 1,000 workers, 50,000 sessions", quantiles, [met]
    sent, bare = found["dispatch"]["dispatch_ms"], found["dispatch"]["bare_ms"]
    ratio = sent["p50"] / bare["p50"]
    measured = f"{sent['p50']:.3f} / {sent['p99']:.3f} ms; bare tonic stream {bare['p50']:.3f} / {bare['p99']:.3f} ms"
    met = verdict("at most 2x a bare tonic stream", ratio, ratio <= 2, "x")
    yield "dispatch of a task to a worker over TCP, three events; p50 / p99", measured, [met]
    beats = found["heartbeats"]
    measured = (
        f"{beats['cpu_percent']:.1f}% of one CPU; {beats['rss_mib']:.0f} MiB resident, {beats['rss_mib_before']:.0f} before; "
        f"slowest answer {beats['slowest_ms']:.0f} ms"
    )
    yield f"{beats['joined']} simulated workers, each a heartbeat of 50 sessions every 30 s", measured, []
    made = found["sessions"]
    on = ", ".join(str(used) for name, used in sorted(made["on"].items()) if name != "embedded")
    met = verdict("no failures", made["failures"], made["failures"] == 0, " failures")
    yield "sessions created over 3 workers by 8 clients", f"{made['per_second']:.1f}/s; {on} on each", [met]


def verdicts(results):
    found = [*rows(results), *http_rows(results)]
    of_fleet = [{"measure": title, **one} for title, _measured, verdicts in fleet_rows(results) for one in verdicts]
    return [{"measure": title, **one} for title, _first, _second, verdicts in found for one in verdicts] + of_fleet


def machine(load):
    cores = len(os.sched_getaffinity(0))
    today = datetime.date.today().isoformat()
    system = f"Linux {'.'.join(platform.release().split('.')[:2])}, Python {platform.python_version()}"
    return (
        f"Measured {today} on {cores} cores ({cpu_model()}; load {load:.1f} before), {system}; "
        "interleaved rounds of one run."
    )


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
