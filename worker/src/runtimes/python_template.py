"""The prepared interpreter of one session.

Three kinds of process run this file. The *template* imports much of the standard library once and then waits on a
SOCK_SEQPACKET socket; each request carries stdin, stdout, stderr, a control socket and a job in a memory file. For each
request it forks a *supervisor*, which forks the *program*: that one returns from `serve` to the top of this file and
runs the user's code as `__main__`.

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
import socket
import sys
import threading
import time
import traceback
import types

REQUESTS_FD = 3
LEFTOVERS_DEADLINE_S = 2.0
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
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


# --- The program ----------------------------------------------------------------------------------------------------


def become_program(standard, job, may_start, start):
    """Leaves everything of the supervisor behind; returns the job."""
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(job, "rb") as file:
        parsed = json.loads(file.read())
    os.close(start)
    if os.read(may_start, 1) != b"g":
        os._exit(1)
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    prctl(PR_SET_DUMPABLE, 1)
    return parsed


def run(job):
    """Runs the job as `python FILE` or `python -c CODE` would, and ends the process as they do."""
    open_standard_streams()
    os.environ.update(job["env"])
    if "TZ" in job["env"]:
        time.tzset()
    # Compiled files would show up among the files that the task changed.
    sys.dont_write_bytecode = True
    sys.excepthook = sys.__excepthook__ = show_exception
    threading.excepthook = threading.__excepthook__ = show_thread_exception
    main = types.ModuleType("__main__")
    main.__builtins__ = builtins
    sys.modules["__main__"] = main
    try:
        ours = 2
        code = load(job, main)
        ours = 1
        exec(code, main.__dict__)
        status = 0
    except BaseException as error:
        # The first entries are our own; what is left is what the user's own script would show.
        status = status_of(error.with_traceback(without_first(error.__traceback__, ours)))
    finalise(main, status)


def without_first(trace, count):
    while trace is not None and count > 0:
        trace, count = trace.tb_next, count - 1
    return trace


def load(job, main):
    if job["code"] is not None:
        source, name = job["code"], CODE_NAME
        sys.argv = ["-c", *job["args"]]
        sys.path.insert(0, WORKSPACE)
        lines = [line + "\n" for line in source.splitlines()]
        linecache.cache[CODE_NAME] = (len(source), None, lines, CODE_NAME)
        let_spawned_processes_import(source)
    else:
        name = os.path.join(WORKSPACE, job["path"])
        sys.argv = [job["path"], *job["args"]]
        sys.path.insert(0, os.path.dirname(name))
        main.__file__ = name
        main.__cached__ = None
        source = read_script(name)
    return compile(source, name, "exec", dont_inherit=True)


def read_script(name):
    try:
        with io.open_code(name) as file:
            return file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {name!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None


def open_standard_streams():
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        binary = open(number, mode + "b", closefd=False)
        binary.raw.name = f"<{name}>"
        errors = "backslashreplace" if name == "stderr" else "surrogateescape"
        # Whole lines are written at once, so that output can be followed while the program runs.
        stream = io.TextIOWrapper(binary, "utf-8", errors, newline="\n", line_buffering=mode == "w")
        stream.mode = mode
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def let_spawned_processes_import(source):
    """Processes that multiprocessing spawns import the main module from a file; code has none until one is needed."""
    spawn = sys.modules.get("multiprocessing.spawn")
    if spawn is None:
        return
    prepare_plain = spawn.get_preparation_data
    written = []

    def get_preparation_data(name):
        data = prepare_plain(name)
        if "init_main_from_name" not in data and "init_main_from_path" not in data:
            if not written:
                import tempfile

                with tempfile.NamedTemporaryFile("w", prefix="code_", suffix=".py", delete=False) as file:
                    file.write(source)
                written.append(file.name)
            data["init_main_from_path"] = written[0]
        return data

    spawn.get_preparation_data = get_preparation_data


def show_exception(kind, value, trace):
    # Unlike the interpreter's own, this one finds the source lines of code that is in no file.
    traceback.print_exception(kind, value, trace)


def show_thread_exception(arguments):
    if arguments.exc_type is SystemExit or sys.stderr is None:
        return
    name = arguments.thread.name if arguments.thread is not None else threading.get_ident()
    print(f"Exception in thread {name}:", file=sys.stderr)
    traceback.print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)


def status_of(error):
    """Shows an exception that nobody caught; the exit status it gives, or None for death by SIGINT."""
    if isinstance(error, SystemExit):
        return status_of_exit(error.code)
    kind, trace = type(error), error.__traceback__
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    quietly(flush, sys.stdout)
    try:
        sys.excepthook(kind, error, trace)
    except SystemExit as leaving:
        return status_of_exit(leaving.code)
    except BaseException as second:
        print("Error in sys.excepthook:", file=sys.stderr)
        show_exception(type(second), second, without_first(second.__traceback__, 1))
        print("\nOriginal exception was:", file=sys.stderr)
        show_exception(kind, error, trace)
    return None if isinstance(error, KeyboardInterrupt) else 1


def status_of_exit(code):
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    quietly(flush, sys.stdout)
    print(code, file=sys.stderr)
    return 1


def finalise(main, status):
    """Ends the process as the interpreter does, but leaves alone what the template had imported: to tear that down
    would copy its pages and take longer than most scripts."""
    attempt(threading._shutdown, threading)
    attempt(atexit._run_exitfuncs, atexit)
    if not attempt(lambda: flush(sys.stdout), sys.stdout) and status == 0:
        status = 120
    # Files that were left open are written out when the last reference to them goes.
    forget(main)
    for name in [name for name in sys.modules if name not in IMPORTED and name != "__main__"]:
        forget(sys.modules[name])
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        quietly(flush, stream)
    if status is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)


def attempt(step, owner):
    try:
        step()
        return True
    except BaseException as error:
        quietly(print, f"Exception ignored in: {owner!r}", file=sys.stderr)
        quietly(show_exception, type(error), error, without_first(error.__traceback__, 2))
        return False


def forget(module):
    names = getattr(module, "__dict__", None)
    if isinstance(names, dict):
        for name in [name for name in names if name != "__builtins__"]:
            names[name] = None


def flush(stream):
    if stream is not None and not getattr(stream, "closed", False):
        stream.flush()


prepare()
IMPORTED = frozenset(sys.modules)
run(serve(socket.socket(fileno=REQUESTS_FD)))
