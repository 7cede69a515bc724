"""What runs on this machine and what it holds in memory, read from /proc."""

import os
import resource
import signal
import socket
import struct
import time
from pathlib import Path

SETTLE_SECONDS = 10


def parents():
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            # The name is in parentheses and may hold anything.
            state, parent = stat[stat.rindex(")") + 1 :].split()[:2]
            if state != "Z":
                found[int(entry)] = int(parent)
    return found


def below(top):
    """Every living process below `top`, itself first."""
    all_parents = parents()
    found = [top]
    for pid in found:
        found.extend(child for child, parent in all_parents.items() if parent == pid)
    return found


def pss_bytes(pid):
    """The proportional set size: pages that several processes share count in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    raise OSError(f"process {pid} has no Pss")


class Memory:
    """The proportional set sizes of a server and of everything below it."""

    def __init__(self, server):
        self.by_pid, self.unreadable = {}, 0
        for pid in below(server):
            try:
                self.by_pid[pid] = pss_bytes(pid)
            except PermissionError:
                self.unreadable += 1
            except OSError:
                pass  # It ended in between.
        self.total = sum(self.by_pid.values())

    def of(self, pids):
        return sum(self.by_pid.get(pid, 0) for pid in pids)


def settled(server):
    """The memory once the processes below `server` stay the same, as when pools have been filled again."""
    deadline = time.monotonic() + SETTLE_SECONDS
    before, since = None, time.monotonic()
    while time.monotonic() < deadline:
        now = frozenset(below(server))
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > 0.7:
            break
        time.sleep(0.05)
    return Memory(server)


def roles(server):
    """The server, its worker and the launcher, which are each the first `coordinator` below the one before."""
    all_parents = parents()
    chain = [server]
    while len(chain) < 3:
        children = [pid for pid, parent in all_parents.items() if parent == chain[-1]]
        if not children:
            break
        chain.append(min(children))
    return chain


def cpu_seconds(pid):
    """The processor time of a process with all its threads, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def allow_open_files(number):
    """Lets this process and those it starts have so many files open, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number if hard == resource.RLIM_INFINITY else min(number, hard), hard))


def listener(path):
    """The process that listens on a socket, by the kernel's word."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    except OSError:
        return None


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def end(pid, seconds=20):
    """Ends a process that the bench started, with everything below it, by process id."""
    pids = below(pid)
    send(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    # What ends with it does so a moment later.
    while (left := set(pids) & set(parents())) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        send(pid, signal.SIGKILL)
    return not left
