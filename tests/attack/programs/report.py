"""Attacks on what is around a session, made from inside: each in a process of its own, which says how it was stopped.

The harness puts FACTS before this: all that an attacker could know of the host. An attack returns what it got; nothing, an
error of the system or Stopped mean that it was stopped, and any other error that the attack itself is wrong."""

import ctypes
import errno
import json
import os
import select
import signal
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
PATIENCE_S = 60
# What answers for this program; attacks are made by children of it.
GUARD = os.getppid()
ATTACKS = []


class Stopped(Exception):
    pass


def attack(name, unless=""):
    """An attack that must be stopped at every level but those named in `unless`, which do not promise it."""

    def add(function):
        ATTACKS.append((name, unless.split(), function))
        return function

    return add


def syscall(number, *arguments):
    ctypes.set_errno(0)
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *given)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def every(actions):
    """Tries all, and gives what came of those that were not stopped."""
    got, errors = [], set()
    for action in actions:
        try:
            result = action()
            if result:
                got.append(result)
        except (OSError, Stopped, ProcessLookupError) as error:
            errors.add(how_of(error))
    if not got and errors:
        raise Stopped(", ".join(sorted(errors)))
    return got


def how_of(error):
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, str(error.errno))
    return str(error) or type(error).__name__


def read(path, size=4096):
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def write(path, data=b"attacked"):
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        return os.write(descriptor, data)
    finally:
        os.close(descriptor)


def outcome(function):
    try:
        got = function()
        return {"stopped": not got, "how": str(got)[:200] if got else "in vain"}
    except (OSError, Stopped, MemoryError) as error:
        return {"stopped": True, "how": how_of(error)}
    except BaseException as error:
        return {"broken": f"{type(error).__name__}: {error}"}


def attempted(function):
    """Makes the attack in a child, and says what came of it."""
    answers, say = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answers)
        os.write(say, json.dumps(outcome(function)).encode())
        os._exit(0)
    os.close(say)
    said = b""
    deadline = time.monotonic() + PATIENCE_S
    while select.select([answers], [], [], max(0, deadline - time.monotonic()))[0]:
        more = os.read(answers, 65536)
        if not more:
            break
        said += more
    else:
        os.kill(child, signal.SIGKILL)
    os.close(answers)
    status = os.waitpid(child, 0)[1]
    if said:
        return json.loads(said)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS:
        return {"stopped": True, "how": "SIGSYS"}
    return {"broken": f"it said nothing within {PATIENCE_S} s, status {status}"}


def main():
    for name, unless, function in ATTACKS:
        print(json.dumps({"attack": name, "unless": unless, **attempted(function)}), flush=True)
    print("all attacks were made")
