"""What is left once everybody has gone and the product has ended: nothing may be."""

import collections
import fcntl
import os
import time
from pathlib import Path

import processes
from ground import entries, user_of

# User ids of sessions, in blocks that a worker locks.
FIRST_UID, BLOCK_UIDS = 1_900_000_000, 1_024
LOCKS = Path("/run/codegen-mcp/uids")
CGROUPS = Path("/sys/fs/cgroup")
GROUP_PREFIX = "codegen-mcp."
SETTLE_SECONDS = 20


def settled(look):
    """What a look still finds after a while in which it may come to find nothing."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def users(ground):
    """The user ids that sessions' workspaces belong to now."""
    found = (status for place in ("embedded", "far") for status in entries(ground.base(place)).values())
    return {status.st_uid for status in found} - {os.getuid()}


def after_the_end(ground, seen_users):
    """Everything that is left of a product that has ended: sentences."""
    return [
        *settled(lambda: processes_of(ground, seen_users)),
        *settled(lambda: groups_of(ground.launchers)),
        *directories(ground),
        *settled(lambda: locks(ground, seen_users)),
    ]


def processes_of(ground, seen_users):
    marks = (str(ground.root).encode(),)
    return [f"process {pid} is left: {why}" for pid in processes.parents() if (why := whose(pid, marks, seen_users))]


def whose(pid, marks, seen_users):
    if pid == os.getpid():
        return None
    try:
        uid, line = user_of(pid), Path(f"/proc/{pid}/cmdline").read_bytes()
        place = os.readlink(f"/proc/{pid}/cwd").encode()
    except OSError:
        return None
    if uid in seen_users:
        return f"of user {uid}, a session's"
    if any(mark in line or mark in place for mark in marks):
        return line.replace(b"\0", b" ").decode(errors="replace")[:120]
    return None


def groups_of(launchers):
    """Control groups of launchers that are gone, which are named after their process and its start."""
    found, names = [], {f"{GROUP_PREFIX}{pid}.{at}" for pid, at in launchers}
    for directory, below, _ in os.walk(CGROUPS):
        found += [f"the control group {directory}/{name} is left" for name in below if name in names]
        # Those of sandboxes are inside of these.
        below[:] = [name for name in below if not name.startswith(GROUP_PREFIX)]
    return found


def directories(ground):
    """Workspaces that belong to no session, and temporary files of none."""
    for place in ("embedded", "far"):
        for name in entries(ground.base(place)):
            if name.startswith((".spare-", ".creating-", ".deleting-", ".scratch-")):
                yield f"{name} is left among the workspaces of {place}"


def locks(ground, seen_users):
    """Blocks of user ids that somebody of ours still holds, as the lock and the kernel's table of locks say."""
    found = []
    for block in sorted({(uid - FIRST_UID) // BLOCK_UIDS for uid in seen_users if uid >= FIRST_UID}):
        try:
            with open(LOCKS / str(block), "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = holder_of(os.fstat(file.fileno()))
                    if holder is None or whose(holder, (str(ground.root).encode(),), seen_users):
                        found.append(f"the block {block} of user ids is held by process {holder}")
        except FileNotFoundError:
            continue
    return found


def holder_of(status):
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and place in fields and "->" not in fields:
            return int(fields[fields.index(place) - 1])
    return None


def closed_sessions(ground, sessions):
    """Workspaces of sessions that were closed, and of sessions that no client knows."""
    for place in ("embedded", "far"):
        for name in entries(ground.base(place)):
            if name.startswith("ses_") and name not in sessions:
                yield f"the workspace of {name}, which is closed or nobody's, is left at {place}"


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def rest(pid):
    """How many descriptors a process holds that nobody asks for anything: the fewest in a while."""
    counts = []
    for _ in range(10):
        counts.append(descriptors(pid))
        time.sleep(0.05)
    return min(counts)


def what_is_open(pid):
    """The kinds of open files of a process, and how many of each."""
    found = collections.Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[os.readlink(f"/proc/{pid}/fd/{name}").split(":")[0]] += 1
        except OSError:
            continue
    return dict(found)
