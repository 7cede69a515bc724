"""The prepared interpreter of one session.

Three kinds of process run this file. The *template* imports much of the standard library once and keeps a spare
ready: a pair of a *supervisor* and a *program*, forked and touched ahead of need, since a fork copies pages for longer
than most scripts run. A free supervisor takes the next request from the SOCK_SEQPACKET socket that all of them share;
it carries stdin, stdout, stderr, a control socket, a job in a memory file, and one more descriptor: where a program
shows pictures, or where a kernel gets its calls. The supervisor tells the worker that the program starts, and hands the
rest to its program, which returns from `serve` to the top of this file and runs the user's code as `__main__`.

What each of them does is in files of their own, which follow this one: `supervisor.py`, `program.py`, `display.py` and
`kernel.py`, then `start.py`.

The worker trusts nothing that is said here: the code of the session runs under the same user id.
"""

import array
import ast
import atexit
import base64
import builtins
import ctypes
import errno
import gc
import importlib.util
import io
import json
import linecache
import os
import pprint
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
DESCRIPTORS = 6
# Where a program shows things, or a kernel gets its calls: the highest number there is, out of the way of programs.
EXTRA_FD = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1
# Pairs; a second one makes nothing quicker and costs 3 MiB.
SPARES = 1
LEFTOVERS_DEADLINE_S = 2.0
# How soon a fork that failed is tried again.
RETRY_MS = 50
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
# The same numbers on every architecture.
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1, 2
CODE_NAME = "<code>"
# Longer sources are compiled without a look at their last statement, which takes ten times as long.
SPLIT_BYTES_MAX = 64 << 10

# What scripts import most. Those that are missing in a trimmed interpreter are left to the script.
PRELOADED = """
abc argparse ast base64 bisect collections collections.abc concurrent.futures contextlib copy csv
dataclasses datetime decimal difflib enum fnmatch fractions functools glob gzip hashlib heapq importlib.util
inspect itertools logging math multiprocessing.spawn numbers operator pathlib pickle platform pprint queue random re
secrets shlex shutil statistics string struct subprocess tempfile textwrap typing unicodedata urllib.parse
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
    """Keeps spares ready until the worker is gone. Returns in a program's process alone, with its job."""
    spares = []
    poll = select.poll()
    # The end of the worker is told without being asked for; requests are the spares' own to take.
    poll.register(requests, 0)
    while True:
        while len(spares) < SPARES:
            free, taken = os.pipe2(os.O_CLOEXEC)
            try:
                pid = os.fork()
            except OSError:
                os.close(free)
                os.close(taken)
                if not spares:
                    refuse_next(requests)
                break
            if pid == 0:
                for spare in spares:
                    os.close(spare)
                os.close(free)
                return supervise(requests, taken)
            os.close(taken)
            spares.append(free)
            poll.register(free, select.POLLIN)
        for descriptor, _ in poll.poll(None if len(spares) == SPARES else RETRY_MS):
            if descriptor == requests.fileno():
                os._exit(0)
            # A spare that was taken says so before it closes its end. One that died is not made anew at once, lest
            # spares that cannot live use up the processor.
            if not os.read(descriptor, 1):
                time.sleep(RETRY_MS / 1000)
            poll.unregister(descriptor)
            spares.remove(descriptor)
            os.close(descriptor)


def refuse_next(requests):
    """Answers a request for which there can be no process, rather than letting it wait for one."""
    ready = select.poll()
    ready.register(requests, select.POLLIN)
    if not ready.poll(RETRY_MS):
        return
    descriptors = receive(requests)
    if descriptors is None:
        os._exit(0)
    refuse(descriptors[3], OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
    for descriptor in descriptors:
        os.close(descriptor)


def receive(requests):
    """The descriptors of the next request; None when the worker is gone. Raises BlockingIOError when there is none."""
    while True:
        room = socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize)
        flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        data, ancillary, _, _ = requests.recvmsg(16, room, flags)
        if not data:
            return None
        descriptors = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        if len(descriptors) == DESCRIPTORS:
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
