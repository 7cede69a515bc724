"""To the worker, its launcher, its server and what guards the program: memory, environment, descriptors, signals."""

import fcntl
import re

GUARDS = [1, GUARD]
OTHERS = FACTS["pids"]
MARK = b"host-" + b"secret"


def parts_of(pid, names):
    return [lambda n=n: read(f"/proc/{pid}/{n}", 1 << 16).strip(b"\0\n") and f"{n} of {pid}" for n in names]


@attack("read environment and memory of the worker and its server")
def _():
    names = ("environ", "mem", "maps", "smaps", "auxv", "stack", "syscall", "io", "personality")
    return every([action for pid in OTHERS for action in parts_of(pid, names)])


@attack("read environment and memory of its own guards")
def _():
    return every([action for pid in GUARDS for action in parts_of(pid, ("environ", "mem", "maps", "smaps", "auxv", "syscall", "io"))])


@attack("find the host's environment in its own")
def _():
    return every([lambda p=p: MARK in read(f"/proc/{p}/environ", 1 << 16) and "found" for p in ("self", "1", GUARD)])


@attack("find the host's environment in its own memory")
def _():
    # As a pattern it does not find itself.
    needle = re.compile(rb"ho[s]t-secret-valu[e]")
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            low, high = (int(end, 16) for end in span.split("-"))
            if rights[0] != "r" or high - low > 64 << 20 or "[v" in line:
                continue
            try:
                memory.seek(low)
                if needle.search(memory.read(high - low)):
                    return line
            except (OSError, ValueError):
                pass


@attack("take descriptors of its guards and of the worker")
def _():
    def take(pid):
        descriptor = os.pidfd_open(pid)
        return every([lambda n=n: syscall(438, descriptor, n, 0) + 1 for n in range(16)])

    return every([lambda p=p: take(p) for p in GUARDS + OTHERS])


@attack("open descriptors of its guards and of the worker through /proc")
def _():
    def look(pid):
        return every([lambda n=n: os.open(f"/proc/{pid}/fd/{n}", os.O_RDWR | os.O_NONBLOCK) for n in os.listdir(f"/proc/{pid}/fd")])

    return every([lambda p=p: look(p) for p in GUARDS + OTHERS])


@attack("trace them")
def _():
    number = 101 if os.uname().machine == "x86_64" else 117
    return every([lambda p=p, r=r: syscall(number, r, p, 0, 0) == 0 and f"traced {p}" for p in GUARDS + OTHERS for r in (16, 0x4206)])


@attack("write their memory")
def _():
    number = 311 if os.uname().machine == "x86_64" else 271

    def overwrite(pid):
        with open(f"/proc/{pid}/mem", "r+b", 0) as memory:
            return memory.write(b"x")

    return every([lambda p=p: overwrite(p) for p in GUARDS + OTHERS] + [lambda p=p: syscall(number, p, 0, 0, 0, 0, 0) == 0 and "wrote" for p in GUARDS + OTHERS])


@attack("stop or end them")
def _():
    signals = (signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV, signal.SIGCONT)
    # What is sent to a PID 1 from inside its namespace is dropped unless it asked for it; this must not even be sent.
    return every([lambda p=p, s=s: os.kill(p, s) or f"sent {s.name} to {p}" for p in [GUARD, *OTHERS] for s in signals])


@attack("stop or end them by other calls for it")
def _():
    x86 = os.uname().machine == "x86_64"
    tkill, tgkill, queue = (200, 234, 129) if x86 else (130, 131, 138)
    siginfo = (ctypes.c_int * 32)(signal.SIGSTOP, 0, -1)

    def by_descriptor(pid):
        return signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGSTOP) or f"stopped {pid}"

    def by_owner(pid):
        reader, writer = os.pipe()
        fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
        fcntl.fcntl(reader, 10, signal.SIGSTOP)  # F_SETSIG
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(writer, b"x")
        # It says nothing; whether it came is seen by the calls that follow.

    calls = []
    for p in GUARDS + OTHERS:
        calls += [lambda p=p: syscall(tkill, p, signal.SIGSTOP) == 0 and p != 1 and f"stopped {p}", lambda p=p: syscall(tgkill, p, p, signal.SIGSTOP) == 0 and p != 1 and f"stopped {p}"]
        calls += [lambda p=p: syscall(queue, p, signal.SIGSTOP, ctypes.byref(siginfo)) == 0 and p != 1 and f"stopped {p}"]
        calls += [lambda p=p: p != 1 and by_descriptor(p), lambda p=p: by_owner(p)]
    return every(calls)


@attack("slow them down: priorities, limits, processors")
def _():
    import resource

    def prio(pid):
        return os.setpriority(os.PRIO_PROCESS, pid, 19) or f"priority of {pid}"

    def limits(pid):
        return resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0)) and f"limits of {pid}"

    def all_of(kind):
        return os.setpriority(kind, 0, 19) or f"priority of all of {kind}"

    ioprio_set = 251 if os.uname().machine == "x86_64" else 30
    calls = [lambda k=k: all_of(k) for k in (os.PRIO_USER, os.PRIO_PGRP)]
    calls += [lambda k=k: syscall(ioprio_set, k, 0, 3 << 13) == 0 and f"disk priority of all of {k}" for k in (2, 3)]
    for p in OTHERS:
        calls += [lambda p=p: prio(p), lambda p=p: limits(p), lambda p=p: os.sched_setaffinity(p, {0}) or f"processors of {p}"]
        calls += [lambda p=p: os.sched_setscheduler(p, os.SCHED_IDLE, os.sched_param(0)) or f"scheduler of {p}"]
    return every(calls + [lambda p=p: limits(p) for p in GUARDS])


@attack("make itself the last to be killed for want of memory")
def _():
    return every([lambda: write("/proc/self/oom_score_adj", b"-1000"), lambda: write(f"/proc/{GUARD}/oom_score_adj", b"1000"), lambda: write("/proc/1/oom_score_adj", b"1000")])


main()
