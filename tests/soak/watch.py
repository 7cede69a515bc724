"""What the server and its worker hold, sampled while they work, and whether it grows."""

import os
import statistics
import threading
from pathlib import Path

import processes
from hostile import FORKS_NAME

# By how much the last third may be above the first: a share of it, and a number besides. Half of a session's life is
# chance, and a heap that has seen its peak is not given back at once.
TOLERANCES = {
    "memory, MiB": (0.10, 8),
    # What was used once, a flood of output, say, is kept for the next time, and in a short run it comes at any moment.
    "memory, MiB, in a short run": (0.10, 48),
    "descriptors": (0.10, 16),
    # Those of a few sessions more, which are at another point of their lives then.
    "descriptors, in a short run": (0.10, 48),
    "threads": (0.0, 4),
    "processes": (0.25, 12),
    # A session that forks without end holds as many as it may, for as long as it may; at the end none may be left.
    "processes that fork on": (0.25, 160),
}
PARTS = ("server", "worker", "launcher")


def count(pid, what):
    return len(os.listdir(f"/proc/{pid}/{what}"))


def memory_mib(pid):
    try:
        return processes.pss_bytes(pid) / (1 << 20)
    except PermissionError:
        # Resident pages, shared ones in full: growth shows in them just as well.
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def forks_on(pid):
    """Whether a process is one of those that fork without end."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == FORKS_NAME
    except OSError:
        return False


def sample(server):
    """One look: each figure by its part and kind."""
    those = processes.below(server)
    forking = sum(map(forks_on, those))
    found = {("all", "processes"): len(those) - forking, ("hostile", "processes that fork on"): forking}
    for part, pid in zip(PARTS, processes.roles(server), strict=False):
        try:
            found[part, "memory, MiB"] = memory_mib(pid)
            found[part, "descriptors"] = count(pid, "fd")
            found[part, "threads"] = count(pid, "task")
        except OSError:
            continue
    return found


class Watch:
    """Looks every so often, until it is stopped."""

    def __init__(self, server, interval):
        self.server, self.interval = server, interval
        self.samples, self.stopping = [], threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while not self.stopping.wait(self.interval):
            self.samples.append(sample(self.server))

    def stop(self):
        self.stopping.set()
        self.thread.join()


def growth(samples, short=False):
    """Rows of what was held in the first and in the last third, and whether that is growth. In a short run caches still
    fill, and only what is plainly too much counts."""
    third = len(samples) // 3
    rows = []
    for key in samples[-1]:
        first, last = (
            statistics.median(one[key] for one in part if key in one) for part in (samples[:third], samples[-third:])
        )
        kind = f"{key[1]}, in a short run"
        share, besides = TOLERANCES[kind if short and kind in TOLERANCES else key[1]]
        most = first * (1 + share) + besides
        rows.append((*key, first, last, most, last <= most))
    return rows


def table(rows):
    lines = ["| Of | What | first third | last third | at most | |", "| --- | --- | --- | --- | --- | --- |"]
    for part, kind, first, last, most, holds in rows:
        verdict = "ok" if holds else "**grows**"
        lines.append(f"| {part} | {kind} | {first:.1f} | {last:.1f} | {most:.1f} | {verdict} |")
    return "\n".join(lines)
