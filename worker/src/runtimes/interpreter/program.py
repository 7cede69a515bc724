

# --- The program ----------------------------------------------------------------------------------------------------

REHEARSAL = "import json, os\nx = [n * 2 for n in range(64)]\ndef f(a, b=1):\n    return a + b\nf(1)"


def become_program(jobs, is_hurried):
    """Gets as ready as can be and waits for a job, which it returns. In a hurry only what must be done comes first."""
    os.setsid()
    os.dup2(jobs.fileno(), JOB_FD, inheritable=False)
    jobs.close()
    os.closerange(3, JOB_FD)
    for number in (_signal.SIGCHLD, _signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    fence()
    # What goes wrong from here on is the session's, and not for the worker's log.
    os.dup2(1, 2)
    global JOBS, PROGRAM
    JOBS, PROGRAM = _socket.socket(*SEQPACKET, JOB_FD), os.getpid()
    if not is_hurried:
        warm_program()
    return take_job(JOBS)


def take_job(jobs):
    """Waits for the job and for what it runs with; ends when there will be none."""
    data, passed = receive(jobs, JOB_BYTES_MAX, 5)
    if len(passed) < 4:
        os._exit(1)
    # A worker that was not told may give the job to another program.
    jobs.send(b"t")
    # Where a program shows things is out of the way of the numbers that programs expect to be free.
    for number, descriptor in zip((0, 1, 2, EXTRA_FD), passed):
        os.dup2(descriptor, number, inheritable=number < 3)
        os.close(descriptor)
    prctl(PR_SET_DUMPABLE, 1)
    return json.loads(whole_job(data, passed[4:]))


def whole_job(job, files):
    """A long one is in a file."""
    for descriptor in files:
        with open(descriptor, "rb") as file:
            job = file.read()
    return job


def settle():
    """What is the same for every program is done once, before any is forked."""
    # Compiled files would show up among the files that the task changed.
    sys.dont_write_bytecode = True
    # What `end_logging` does for those that need it.
    atexit.unregister(END_LOGGING)
    sys.excepthook = sys.__excepthook__ = show_exception
    threading.excepthook = threading.__excepthook__ = show_thread_exception
    main = types.ModuleType("__main__")
    main.__builtins__ = builtins
    sys.modules["__main__"] = main
    offer_display()
    amendments = {
        "matplotlib.pyplot": show_figures_for,
        "multiprocessing.spawn": let_spawned_processes_import,
        "pandas": widen_tables,
    }
    sys.meta_path.insert(0, Amendments(amendments))


def warm_program():
    """Copies the pages that nearly every program writes to, before anybody waits for it: does what it will do."""
    global IMPORTED
    known = len(sys.modules)
    see_packages()
    if len(sys.modules) != known:
        # What a path configuration file imports stays.
        IMPORTED = frozenset(sys.modules)
    main = types.ModuleType("__warm__")
    main.__builtins__ = builtins
    giving, taking = _socket.socketpair(*SEQPACKET)
    giving.sendmsg([b'{"A":"B"}'], [(*RIGHTS, struct.pack("i", 0))])
    env, passed = receive(taking, JOB_BYTES_MAX, 5)
    take_environment(json.loads(whole_job(env, [])))
    del os.environ["A"]
    showing = Showing(passed[0])
    showing.finish()
    showing.close()
    use()
    code, last = load({"code": REHEARSAL, "args": []}, main)
    exec(code, main.__dict__)
    print(evaluate(last, main.__dict__))
    flush(sys.stderr)
    may_have_threads()
    end_logging()
    sys.path.pop(0)
    linecache.cache.clear()
    clear_away(main)


def fence():
    """Keeps signals and abstract sockets of the program to itself and its descendants, as those of a shell are.

    The rules inherited from the lane bind the lane, too, and so would leave it within reach."""
    scopes = struct.pack("QQQ", 0, 0, SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL)
    rules = LIBC.syscall(LANDLOCK_CREATE_RULESET, scopes, ctypes.c_size_t(len(scopes)), 0)
    if rules < 0:
        number = ctypes.get_errno()
        # Kernels before 6.12 know no scopes, as the session's report says.
        if number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.E2BIG, errno.EINVAL):
            return
        raise OSError(number, os.strerror(number), "landlock_create_ruleset")
    if LIBC.syscall(LANDLOCK_RESTRICT_SELF, rules, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "landlock_restrict_self")
    os.close(rules)


def run(job):
    """Runs the job as `python FILE` or `python -c CODE` would, and ends the process as they do."""
    take_environment(job["env"])
    if job["kernel"]:
        return run_kernel()
    main = sys.modules["__main__"]
    showing = Showing(EXTRA_FD)
    try:
        ours = OURS_WHILE_LOADING
        try:
            code, last = load(job, main)
        finally:
            wait_for_word(job)
        ours = 1
        exec(code, main.__dict__)
        if last is not None:
            ours = 2
            show_value(evaluate(last, main.__dict__))
        status = 0
    except BaseException as error:
        # The first entries are our own; what is left is what the user's own script would show.
        status = status_of(error.with_traceback(without_first(error.__traceback__, ours)))
    showing.finish()
    finalise(main, status)


def wait_for_word(job):
    """Waits for the word by which a job begins that is held; ends when it will not come."""
    if job["held"] and JOBS.recv(1) != b"g":
        os._exit(1)


def take_environment(env):
    for name, value in env.items():
        os.environ[name] = value
    if "TZ" in env:
        time.tzset()


def evaluate(expression, names):
    return eval(expression, names)


# No code of the user runs while its source is read and compiled.
OURS_WHILE_LOADING = 10


def without_first(trace, count):
    while trace is not None and count > 0:
        trace, count = trace.tb_next, count - 1
    return trace


def see_packages():
    """Puts what is installed in the session before the packages of the host, as the interpreter does for its user."""
    version = "python%d.%d" % sys.version_info[:2]
    directory = os.path.join(WORKSPACE, ".codegen/python/lib", version, "site-packages")
    if directory in sys.path or not os.path.isdir(directory):
        return
    known = len(sys.path)
    site.addsitedir(directory)
    added = sys.path[known:]
    del sys.path[known:]
    place = min((sys.path.index(path) for path in site.getsitepackages() if path in sys.path), default=known)
    sys.path[place:place] = added


def load(job, main):
    see_packages()
    if job["code"] is not None:
        source, name = job["code"], CODE_NAME
        sys.argv = ["-c", *job["args"]]
        sys.path.insert(0, WORKSPACE)
        lines = [line + "\n" for line in source.splitlines()]
        linecache.cache[CODE_NAME] = (len(source), None, lines, CODE_NAME)
    else:
        name = os.path.join(WORKSPACE, job["path"])
        sys.argv = [job["path"], *job["args"]]
        sys.path.insert(0, os.path.dirname(name))
        main.__file__ = name
        main.__cached__ = None
        source = read_script(name)
        return compile(source, name, "exec", dont_inherit=True), None
    return split(source, name)


def split(source, name):
    """The compiled statements, and the last one apart when it is an expression, whose value is shown."""
    if len(source) > SPLIT_BYTES_MAX:
        return compile(source, name, "exec", dont_inherit=True), None
    tree = ast.parse(source, name)
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return compile(tree, name, "exec", dont_inherit=True), None
    last = ast.Expression(tree.body.pop().value)
    return compile(tree, name, "exec", dont_inherit=True), compile(last, name, "eval", dont_inherit=True)


def read_script(name):
    try:
        with io.open_code(name) as file:
            return file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {name!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None


def make_standard_streams():
    """Makes the streams of all programs, and leaves the lane its own descriptors."""
    own = [os.dup(number) for number in range(3)]
    prepare_standard_streams()
    for number, descriptor in enumerate(own):
        os.dup2(descriptor, number)
        os.close(descriptor)


def prepare_standard_streams():
    """Makes new streams before what they read and write is there: they see pipes, as they mostly do later."""
    ends = os.pipe()
    for number, end in enumerate((*ends, ends[1])):
        os.dup2(end, number)
    for end in ends:
        if end > 2:
            os.close(end)
    open_standard_streams()


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


def let_spawned_processes_import(spawn):
    """Processes that multiprocessing spawns import the main module from a file; code has none until one is needed."""
    prepare_plain = spawn.get_preparation_data
    written = []

    def get_preparation_data(name):
        data = prepare_plain(name)
        if CODE_NAME in linecache.cache and "init_main_from_name" not in data and "init_main_from_path" not in data:
            if not written:
                with tempfile.NamedTemporaryFile("w", prefix="code_", suffix=".py", delete=False) as file:
                    file.writelines(linecache.cache[CODE_NAME][2])
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
    attempt(end_threads, threading)
    attempt(atexit._run_exitfuncs, atexit)
    attempt(end_logging, logging)
    if not attempt(lambda: flush(sys.stdout), sys.stdout) and status == 0:
        status = 120
    clear_away(main)
    for stream in (sys.stdout, sys.stderr):
        quietly(flush, stream)
    if status is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    say_end(status)
    os._exit(status)


def may_have_threads():
    """By the system's count: a thread that is about to end is not in any other."""
    try:
        return len(os.listdir("/proc/self/task")) > 1
    except OSError:
        # There is no descriptor left for the look.
        return True


def end_threads():
    """What the interpreter does first at its exit, for programs that could tell whether it was done."""
    if may_have_threads() or getattr(threading, "_threading_atexits", True) or atexit._ncallbacks() != CALLBACKS:
        threading._shutdown()


def end_logging():
    """What the interpreter calls last at its exit, for programs that have handlers of their own."""
    if getattr(logging, "_handlerList", None) != HANDLERS:
        END_LOGGING()


def clear_away(main):
    """Drops what the program made: files that were left open are written out when the last reference to them goes."""
    forget(main)
    # The newest first. To look at all the others would copy the pages where their names are.
    for name in list(itertools.takewhile(lambda name: name != NEWEST, reversed(sys.modules))):
        if name not in IMPORTED:
            forget(sys.modules[name])
    gc.collect()


def say_end(status):
    """Says that nothing more comes, and waits, since taking the process apart takes longer than most scripts run."""
    if os.getpid() != PROGRAM:
        # A process that the code forked.
        return
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    quietly(JOBS.send, b'{"code":%d,"memory_peak_bytes":%d}' % (status, peak * 1024))
    # The worker ends it from here when it has time for that, or lets it go on.
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    quietly(JOBS.recv, 1)


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
        forget_names(names)


def forget_names(names):
    for name in [name for name in names if name != "__builtins__"]:
        names[name] = None


def flush(stream):
    if stream is not None and not getattr(stream, "closed", False):
        stream.flush()
