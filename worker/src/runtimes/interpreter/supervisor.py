

# --- The supervisor -------------------------------------------------------------------------------------------------


def supervise(requests, spare):
    """Forks the program, waits for a request, and answers for the program from then on; returns in the program's
    process alone. The other end of `spare` sees when this one is a spare no more."""
    os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = os.fork()
    if program == 0:
        requests.close()
        ours.close()
        for descriptor in (spare, awake, wake):
            os.close(descriptor)
        return become_program(theirs)
    theirs.close()
    try:
        warm_supervisor(awake)
        descriptors = take(requests, awake, program)
        requests.close()
        os.write(spare, b"t")
        os.close(spare)
        os._exit(answer_for(program, ours, awake, descriptors))
    except BaseException:
        os._exit(1)


def warm_supervisor(awake):
    """Copies the pages that a supervisor writes to, before anybody waits for it."""
    descendants()
    has_children()
    json.dumps({"exited": {"code": 0, "cpu_ms": 0}})
    drain(awake)


def take(requests, awake, program):
    """Waits for the next request; ends with its program, or when the worker is gone."""
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    poll.register(awake, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == awake:
                drain(awake)
                if reap(program) is not None:
                    os._exit(1)
                continue
            try:
                descriptors = receive(requests)
            except BlockingIOError:
                # Another spare was quicker.
                continue
            if descriptors is None:
                os._exit(end_by_force(program))
            return descriptors


def answer_for(program, ours, awake, descriptors):
    """Lets the program run and says how it ended; the exit code of this process."""
    channel = socket.socket(fileno=descriptors.pop(3))
    if not tell(channel, {"started": {"pid": program}}):
        return end_by_force(program)
    # Only now: a worker that was never told of the start may start the job elsewhere.
    socket.send_fds(ours, [b"g"], descriptors)
    ours.close()
    for descriptor in descriptors:
        os.close(descriptor)
    return watch(channel, awake, program)


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
