"""The prepared interpreter of one session.

Three kinds of process run this file. The *template* imports much of the standard library once and then waits on a
SOCK_SEQPACKET socket; each request carries stdin, stdout, stderr, a control socket and a job in a memory file. For each
request it forks a *supervisor*, which forks the *program*: that one returns from `serve` to the top of this file and
runs the user's code as `__main__`.

The part that only the program runs is in `python_program.py`, which is appended to this file.

The worker trusts nothing that is said here: the code of the session runs under the same user id.
"""

import array
import atexit
import builtins
import ctypes
import errno
import gc
import io
import json
import linecache
import os
import resource
import select
import signal
import site
import socket
import struct
import sys
import threading
import time
import traceback
import types

REQUESTS_FD = 3
# Closed when the interpreter is prepared.
READY_FD = 5
LEFTOVERS_DEADLINE_S = 2.0
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
# The same numbers on every architecture.
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1, 2
CODE_NAME = "<code>"

# What scripts import most. Those that are missing in a trimmed interpreter are left to the script.
PRELOADED = """
abc argparse ast asyncio base64 bisect calendar collections collections.abc concurrent.futures contextlib copy csv
dataclasses datetime decimal difflib enum fnmatch fractions functools glob gzip hashlib heapq html importlib.util
inspect itertools logging math multiprocessing.spawn numbers operator pathlib pickle platform pprint queue random re
secrets shlex shutil sqlite3 statistics string struct subprocess tempfile textwrap typing unicodedata urllib.parse
uuid warnings zipfile zlib
""".split()

WORKSPACE = os.getcwd()


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def prctl(option, value):
    if LIBC.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")


# --- The template ---------------------------------------------------------------------------------------------------


def prepare():
    # Code of the session must not reach into the template with ptrace or /proc/PID/mem.
    prctl(PR_SET_DUMPABLE, 0)
    for name in PRELOADED:
        try:
            __import__(name)
        except ImportError:
            pass
    # The template never waits for its supervisors; the kernel reaps them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Objects made so far are never collected, so that the collector does not touch (and copy) their pages.
    gc.collect()
    gc.freeze()
    os.close(READY_FD)


def serve(requests):
    """Forks a supervisor for each request. Returns in the program's process alone, with its job."""
    while True:
        descriptors = receive(requests)
        if descriptors is None:
            os._exit(0)
        try:
            pid = os.fork()
        except OSError as error:
            refuse(descriptors[3], error)
            pid = None
        if pid == 0:
            requests.close()
            return supervise(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def receive(requests):
    """The five descriptors of the next request; None when the worker is gone."""
    while True:
        room = socket.CMSG_SPACE(5 * array.array("i").itemsize)
        data, ancillary, _, _ = requests.recvmsg(16, room, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        descriptors = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        if len(descriptors) == 5:
            return list(descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def refuse(control, error):
    with socket.socket(fileno=os.dup(control)) as channel:
        tell(channel, {"failed": {"step": "fork the program", "errno": error.errno or errno.EIO}})


def tell(channel, event):
    """Whether the worker could be told."""
    try:
        channel.send(json.dumps(event, separators=(",", ":")).encode())
        return True
    except OSError:
        return False


# --- The supervisor -------------------------------------------------------------------------------------------------


def supervise(stdin, stdout, stderr, control, job):
    """Forks the program and answers for it; returns in the program's process alone."""
    os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    channel = socket.socket(fileno=control)
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    may_start, start = os.pipe2(os.O_CLOEXEC)
    try:
        program = os.fork()
    except OSError as error:
        refuse(control, error)
        os._exit(1)
    if program == 0:
        return become_program((stdin, stdout, stderr), job, may_start, start)
    for descriptor in (stdin, stdout, stderr, job, may_start):
        os.close(descriptor)
    if not tell(channel, {"started": {"pid": program}}):
        os._exit(end_by_force(program))
    # Only now: a worker that was never told of the start may start the job elsewhere.
    os.write(start, b"g")
    os.close(start)
    try:
        os._exit(watch(channel, awake, program))
    except BaseException:
        os._exit(1)


def watch(channel, awake, program):
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(awake, select.POLLIN)
    status = None
    while status is None:
        for descriptor, _ in poll.poll():
            if descriptor == awake:
                drain(awake)
            elif not obey(channel, program):
                return end_by_force(program)
        status = reap(program)
    leftovers = end_leftovers(awake)
    if leftovers is None:
        return 1
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    signalled = os.WIFSIGNALED(status)
    tell(channel, {"exited": {
        "code": None if signalled else os.WEXITSTATUS(status),
        "signal": os.WTERMSIG(status) if signalled else None,
        "cpu_ms": int((used.ru_utime + used.ru_stime) * 1000),
        "memory_peak_bytes": used.ru_maxrss * 1024,
        "leftovers_killed": leftovers,
    }})
    return 0


def obey(channel, program):
    """Carries out what the worker says; False when it is gone."""
    try:
        word = channel.recv(16)
    except OSError:
        return False
    # The program is not reaped yet, so its process id and group cannot be another's.
    if word == b"i":
        quietly(os.killpg, program, signal.SIGINT)
    elif word == b"k":
        kill_all(descendants())
    return bool(word)


def reap(program):
    """Reaps whatever has ended; the program's status if it was among them."""
    status = None
    while True:
        try:
            pid, ended, _ = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == program:
            status = ended


def end_leftovers(awake):
    """Kills what the program left behind; how many processes, or None when they would not end in time."""
    deadline = time.monotonic() + LEFTOVERS_DEADLINE_S
    killed = set()
    poll = select.poll()
    poll.register(awake, select.POLLIN)
    while True:
        reap(None)
        alive = descendants()
        if not alive and not has_children():
            return len(killed)
        if time.monotonic() > deadline:
            return None
        kill_all(alive)
        killed.update(alive)
        poll.poll(10)
        drain(awake)


def end_by_force(program):
    quietly(os.kill, program, signal.SIGKILL)
    deadline = time.monotonic() + LEFTOVERS_DEADLINE_S
    while has_children() and time.monotonic() < deadline:
        kill_all(descendants())
        reap(None)
        select.select([], [], [], 0.005)
    return 1


def has_children():
    try:
        # WNOWAIT leaves the child to be reaped, with its use of resources, by `reap`.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    except ChildProcessError:
        return False


def descendants():
    """Every process below this one, by the kernel's own lists of children."""
    found, left = [], [os.getpid()]
    while left:
        pid = left.pop()
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as children:
                    below = [int(child) for child in children.read().split()]
                found += below
                left += below
        except OSError:
            pass
    return found


def kill_all(pids):
    for pid in pids:
        quietly(os.kill, pid, signal.SIGKILL)


def quietly(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except (OSError, ValueError):
        pass


def drain(descriptor):
    try:
        while os.read(descriptor, 512):
            pass
    except BlockingIOError:
        pass
