

# --- The kernel -----------------------------------------------------------------------------------------------------

CALL_BYTES_MAX = 256
SOURCES_MAX = 1000


class Interrupts:
    """Lets an interrupt reach the code of a call, and nothing else."""

    def __init__(self):
        self.allowed = False

    def __call__(self, number, frame):
        if self.allowed:
            self.allowed = False
            raise KeyboardInterrupt


def run_kernel():
    """Runs calls in one namespace until the worker is gone."""
    main = sys.modules["__main__"]
    sys.argv = [""]
    sys.path.insert(0, WORKSPACE)
    calls = socket.socket(fileno=EXTRA_FD)
    interrupts = Interrupts()
    signal.signal(signal.SIGINT, interrupts)
    streams = sys.stdin, sys.stdout, sys.stderr
    kernel, sources = os.getpid(), []
    while True:
        message = next_call(calls)
        if message is None:
            finalise(main, 0)
        number, job, shown = message
        # What an earlier call put in their place must not swallow this one's output.
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
        _, sys.stdout, sys.stderr = streams
        signal.signal(signal.SIGINT, interrupts)
        used = cpu_ms()
        status = run_call(job, main, f"<call {number}>", sources, Showing(shown), interrupts)
        flush_all(streams)
        if os.getpid() != kernel:
            # A process that the code forked came here, too.
            os._exit(status if status is not None else 1)
        end_streams(streams, shown)
        end_call(calls, number, status, used)


def next_call(calls):
    """The number of the next call, its job and where it shows things; None when there will be no more."""
    try:
        data, descriptors, _, _ = socket.recv_fds(calls, CALL_BYTES_MAX, 5, socket.MSG_CMSG_CLOEXEC)
    except OSError:
        # The code closed the descriptor.
        os._exit(1)
    if not data or len(descriptors) != 5:
        return None
    *standard, shown, job = descriptors
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    with open(job, "rb") as file:
        return json.loads(data)["call"], json.loads(file.read()), shown


def run_call(job, main, name, sources, showing, interrupts):
    """Runs one call; its exit status, or None when it was interrupted."""
    try:
        ours = OURS_WHILE_LOADING
        interrupts.allowed = True
        take_environment(job["env"])
        see_packages()
        importlib.invalidate_caches()
        source = job["code"]
        if source is None:
            name = os.path.join(WORKSPACE, job["path"])
            source = read_script(name)
        else:
            remember_source(source, name, sources)
        if job["args"]:
            sys.argv = ["", *job["args"]]
        code, last = split(source, name)
        ours = 1
        exec(code, main.__dict__)
        if last is not None:
            ours = 2
            value = evaluate(last, main.__dict__)
            if value is not None:
                main.__dict__["_"] = value
            show_value(value)
        status = 0
    except BaseException as error:
        interrupts.allowed = False
        status = told(error.with_traceback(without_first(error.__traceback__, ours)))
        # What a failed call had at hand must not be kept for its traceback's sake.
        sys.last_traceback = None
    interrupts.allowed = status is not None
    showing.finish()
    interrupts.allowed = False
    return status


def told(error):
    """Like `status_of`, also when nobody takes what is said."""
    try:
        return status_of(error)
    except BaseException:
        return 1


def remember_source(source, name, sources):
    """Lets tracebacks show the lines of this call, also when a later one calls its functions."""
    linecache.cache[name] = (len(source), None, [line + "\n" for line in source.splitlines()], name)
    sources.append(name)
    if len(sources) > SOURCES_MAX:
        linecache.cache.pop(sources.pop(0), None)


def flush_all(streams):
    for stream in streams[1:]:
        quietly(flush, stream)


def end_streams(streams, shown):
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)
    quietly(os.close, shown)
    # What this call could not write must not come out in the next one.
    flush_all(streams)


def end_call(calls, number, status, used):
    report = {"call": number, "code": status, "cpu_ms": max(0, cpu_ms() - used), "memory_bytes": resident_bytes()}
    try:
        calls.send(json.dumps(report).encode())
    except OSError:
        os._exit(1)


def cpu_ms():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return int(sum(usage.ru_utime + usage.ru_stime for usage in used) * 1000)


def resident_bytes():
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0
