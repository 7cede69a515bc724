

# --- The kernel -----------------------------------------------------------------------------------------------------

import warnings
import weakref

SOURCES_MAX = 1000

NULL_FD = JOB_FD - 1
# How long an interrupt that was meant for the call before may still be on its way.
LATE_INTERRUPT_S = 0.1
# How long code may tidy up after an interrupt, before the next one reaches it.
SPARED_S = 1.0


class Interrupts:
    """Lets an interrupt reach the code of a call, and nothing else. The worker repeats one that had no effect."""

    clock = staticmethod(time.monotonic)

    def __init__(self):
        self.allowed = False
        self.spared_until = 0.0

    def __call__(self, number, frame):
        if self.allowed and self.clock() >= self.spared_until:
            self.spare(SPARED_S)
            raise KeyboardInterrupt

    def spare(self, seconds):
        """Lets none through for so long."""
        self.spared_until = self.clock() + seconds

    def guard(self, step, *arguments):
        """Does a step of a call: what it gives, and what it raised. An interrupt that comes between two lines of this is
        caught by the outer block, and another does not follow so soon."""
        value = raised = None
        try:
            try:
                self.allowed = True
                value = step(*arguments)
            except BaseException as error:
                self.allowed = False
                raised = error
            self.allowed = False
        except BaseException as error:
            self.allowed = False
            raised = error
        try:
            return value, raised
        finally:
            # The frames of an error refer to this one, and must not find the error there.
            value = raised = None


def run_kernel():
    """Runs calls in one namespace until the worker is gone."""
    main = sys.modules["__main__"]
    sys.argv = [""]
    sys.path.insert(0, WORKSPACE)
    calls = _socket.socket(*SEQPACKET, EXTRA_FD)
    interrupts = Interrupts()
    _signal.signal(_signal.SIGINT, interrupts)
    kernel, sources, streams = os.getpid(), [], weakref.WeakSet()
    keep_null()
    while True:
        # Whatever can be done ahead of a call is done here, where nobody waits for it.
        renew_streams(streams)
        end_streams()
        try:
            importlib.invalidate_caches()
        except Exception:
            # A finder of the code's own.
            pass
        # What its threads compute between two calls is the later one's.
        used = use()
        message = next_call(calls)
        if message is None:
            finalise(main, 0)
        header, job, standard, shown = message
        name, compiled = f"<call {header['call']}>", None
        if job["held"]:
            # What finalisers write is for the call's own streams.
            collects = gc.isenabled()
            gc.disable()
            compiled = compile_ahead(job, name)
            begins = may_begin(calls)
            if begins:
                take_streams(standard)
            else:
                close_descriptors((*standard, shown))
            if collects:
                gc.enable()
            if not begins:
                continue
        else:
            take_streams(standard)
        interrupts.spare(LATE_INTERRUPT_S if header["after_interrupt"] else 0)
        showing = Showing(shown)
        status = run_call(job, main, name, compiled, sources, interrupts)
        # The code may have put a handler of its own in the place of ours.
        interrupts.guard(_signal.signal, _signal.SIGINT, interrupts)
        interrupts.guard(showing.finish)
        interrupts.guard(flush_all, streams)
        if os.getpid() != kernel:
            # A process that the code forked came here, too.
            os._exit(status if status is not None else 1)
        interrupts.guard(showing.close)
        end_streams()
        # What this call could not write must not come out in the next one.
        interrupts.guard(flush_all, streams)
        end_call(calls, header["call"], status, used)
        # The worker may wait for this processor; what follows has time.
        os.sched_yield()


def next_call(calls):
    """What the worker says of the next call, its job, its streams and where it shows things; None when there will be no
    more."""
    try:
        data, descriptors = receive(calls, JOB_BYTES_MAX, 5)
    except OSError:
        # The code closed the descriptor.
        os._exit(1)
    if not data or len(descriptors) < 4:
        return None
    header, job = data.split(b"\n", 1)
    *standard, shown = descriptors[:4]
    return json.loads(header), json.loads(whole_job(job, descriptors[4:])), standard, shown


def may_begin(calls):
    """Waits for the word by which a call begins that is held."""
    try:
        return calls.recv(1) == b"g"
    except OSError:
        # The code closed the descriptor.
        os._exit(1)


def compile_ahead(job, name):
    """The code of a call that is held. None where something is to be said of it: that is for when the call has begun."""
    if job["code"] is None:
        return None
    said, show, thread = [], warnings._showwarnmsg, threading.get_ident()
    once = dict(warnings.onceregistry)

    def hear(message):
        if threading.get_ident() == thread:
            said.append(message)
        else:
            show(message)

    warnings._showwarnmsg = hear
    try:
        compiled = split(job["code"], name)
    except BaseException:
        compiled = None
    finally:
        warnings._showwarnmsg = show
    if not said:
        return compiled
    warnings.onceregistry.clear()
    warnings.onceregistry.update(once)
    return None


def take_streams(standard):
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)


def renew_streams(streams):
    """Gives the next call streams of its own, ahead of it: an earlier one may have closed, wrapped or replaced those that
    it had."""
    prepare_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        streams.add(stream)
        streams.add(stream.buffer)


def run_call(job, main, name, compiled, sources, interrupts):
    """Runs one call; its exit status, or None when it was interrupted."""
    loaded, error = interrupts.guard(load_call, job, name, compiled, sources)
    if error is not None:
        # No code of the user ran.
        error = error.with_traceback(None)
    else:
        _, error = interrupts.guard(execute, *loaded, main.__dict__)
    if error is None:
        return 0
    error = error.with_traceback(without_ours(error.__traceback__))
    status, trouble = interrupts.guard(status_of, error)
    if trouble is not None:
        status = None if isinstance(error, KeyboardInterrupt) or isinstance(trouble, KeyboardInterrupt) else 1
    # What a failed call had at hand must not be kept for its traceback's sake.
    error = trouble = None
    for last in ("last_type", "last_value", "last_traceback", "last_exc"):
        sys.__dict__.pop(last, None)
    return status


def load_call(job, name, compiled, sources):
    """The compiled statements of a call, and its last expression; those that were `compiled` before, if they were."""
    take_environment(job["env"])
    see_packages()
    if threading.active_count() > 1:
        # Something may have been imported since.
        importlib.invalidate_caches()
    source = job["code"]
    if source is None:
        name = os.path.join(WORKSPACE, job["path"])
        source = read_script(name)
    else:
        remember_source(source, name, sources)
    if job["args"]:
        sys.argv = ["", *job["args"]]
    return compiled or split(source, name)


def execute(code, last, names):
    exec(code, names)
    if last is not None:
        value = evaluate(last, names)
        if value is not None:
            names["_"] = value
        show_value(value)


def without_ours(trace):
    """The part of a traceback that is of the user's own script: neither the frames that led to it, nor those of the handler
    that interrupted it."""
    while trace is not None and is_ours(trace):
        trace = trace.tb_next
    theirs, last = trace, trace
    while last is not None:
        if not is_ours(last):
            theirs = last
        last = last.tb_next
    if theirs is not None:
        theirs.tb_next = None
    return trace


def is_ours(trace):
    return trace.tb_frame.f_code.co_filename == is_ours.__code__.co_filename


def remember_source(source, name, sources):
    """Lets tracebacks show the lines of this call, also when a later one calls its functions."""
    linecache.cache[name] = (len(source), None, [line + "\n" for line in source.splitlines()], name)
    sources.append(name)
    if len(sources) > SOURCES_MAX:
        linecache.cache.pop(sources.pop(0), None)


def flush_all(streams):
    """Writes out what is left in the streams of all calls, and in whatever the code put in their place."""
    for stream in (getattr(sys, "stdout", None), getattr(sys, "stderr", None), *streams):
        try:
            flush(stream)
        except Exception:
            # It is closed, or takes no more.
            pass


def keep_null():
    """Opens what streams lead to between calls, out of the way of the numbers that programs expect to be free."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, NULL_FD, inheritable=False)
    if null > 2:
        os.close(null)


def end_streams():
    try:
        lead_streams_to(NULL_FD)
    except OSError:
        # The code closed it.
        null = os.open(os.devnull, os.O_RDWR)
        lead_streams_to(null)
        if null > 2:
            os.close(null)


def lead_streams_to(null):
    # Readers last: somebody may be writing to what they read.
    for descriptor in (2, 1, 0):
        os.dup2(null, descriptor)


def end_call(calls, number, status, before):
    (cpu_ms, own_peak, peak_of_children), resident = use(), resident_bytes()
    # Of its children the system keeps the peak of all times, which is this call's when it grew.
    peak = max(own_peak, resident, peak_of_children if peak_of_children > before[2] else 0)
    code = b"null" if status is None else b"%d" % status
    report = number, code, max(0, cpu_ms - before[0]), peak, resident
    try:
        calls.send(b'{"call":%d,"code":%s,"cpu_ms":%d,"memory_peak_bytes":%d,"memory_bytes":%d}' % report)
    except OSError:
        os._exit(1)


def use():
    """Processor time in milliseconds, the peak of the own resident memory and that of the largest child, in bytes. The
    worker lets the first peak begin anew with each call; nothing in a sandbox may."""
    own, children = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return int(seconds * 1000), own.ru_maxrss * 1024, children.ru_maxrss * 1024


def resident_bytes():
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
        try:
            return int(os.read(statm, 128).split()[1]) * resource.getpagesize()
        finally:
            os.close(statm)
    except (OSError, ValueError, IndexError):
        return 0
