

# --- A lane ---------------------------------------------------------------------------------------------------------


def serve():
    """Lives as a lane until the worker is gone. Returns in a program's process alone, with its job."""
    while True:
        lane = Lane(_socket.socket(*SEQPACKET, LANE_FD))
        jobs = lane.serve()
        if jobs is not None:
            return become_program(jobs, lane.is_hurried)


class Lane:
    """Forks programs and answers for them, as the worker says over the lane's SOCK_SEQPACKET socket.

    The worker asks for a spare (`s`, or `h` when somebody waits for it) or for another lane (`l`, with its socket).
    A spare comes with a control socket, its job socket and a process descriptor. On the control socket the worker
    says that the program is to be interrupted (`i`) or killed (`k`), and the lane how it ended, once nothing of it
    is left; closed, it is the program's end."""

    def __init__(self, orders):
        self.orders = orders
        # The control socket of each program, by process id; the oldest first. None: the worker is rid of it.
        self.programs = {}
        self.lanes = set()
        # Programs that ended and are not answered for yet, and processor seconds of processes that they left behind.
        self.ended = []
        self.stray_s = 0.0
        # Whether somebody waits for the spare that was asked for last.
        self.is_hurried = False
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.awake, self.wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.poll = select.poll()
        self.poll.register(orders, select.POLLIN)
        self.poll.register(self.awake, select.POLLIN)

    def serve(self):
        """Obeys. Returns in the process of a program, with its job socket, and in that of another lane, with None."""
        while True:
            heard = {descriptor for descriptor, _ in self.poll.poll()}
            is_ordered = self.orders.fileno() in heard
            for descriptor in heard - {self.awake, self.orders.fileno()}:
                self.hear(descriptor)
            if self.awake in heard:
                drain(self.awake)
            if is_ordered:
                forked, jobs = self.take_order()
                if forked:
                    return jobs
            self.reap()
            while self.ended:
                self.conclude(*self.ended.pop(0))

    def take_order(self):
        """Carries out one order: whether this is another process now, and the job socket that it has then."""
        try:
            order, descriptors = receive(self.orders, 16, 1)
        except OSError:
            order, descriptors = b"", []
        if order in (b"s", b"h"):
            self.is_hurried = order == b"h"
            return self.make_spare()
        if order == b"l" and descriptors:
            return self.make_lane(_socket.socket(*SEQPACKET, descriptors[0]))
        if not order:
            for program in self.programs:
                kill_all(self.processes_of(program))
            os._exit(0)
        return False, None

    def make_spare(self):
        ends = []
        try:
            for _ in range(2):
                ends += _socket.socketpair(*SEQPACKET)
            pid = os.fork()
        except OSError as error:
            close_all(ends)
            refuse(self.orders, "fork the program", error)
            return False, None
        control, controlling, jobs, giving = ends
        if pid == 0:
            close_all((control, controlling, giving))
            self.leave()
            return True, jobs
        self.programs[pid] = control
        self.poll.register(control, select.POLLIN)
        passed = [controlling.fileno(), giving.fileno()]
        try:
            # Where there is none (Linux before 5.3) the worker waits for the word of the lane.
            passed.append(os.pidfd_open(pid))
        except OSError:
            pass
        # A worker that is gone is noticed by its socket's end.
        packed = struct.pack("%di" % len(passed), *passed)
        quietly(self.orders.sendmsg, [b'{"spare":{"pid":%d}}' % pid], [(*RIGHTS, packed)])
        for descriptor in passed[2:]:
            os.close(descriptor)
        close_all((controlling, jobs, giving))
        return False, None

    def make_lane(self, orders):
        try:
            pid = os.fork()
        except OSError as error:
            refuse(orders, "fork another lane", error)
            pid = None
        if pid == 0:
            self.leave()
            os.dup2(orders.fileno(), LANE_FD, inheritable=False)
        elif pid is not None:
            self.lanes.add(pid)
        orders.close()
        return pid == 0, None

    def leave(self):
        """Gives up what is the lane's own, in a process that was just forked, and ends with the lane from now on: nobody
        else would end what it runs. (One that the lane did not live to see forked gets no orders and no job.)"""
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        close_all(control for control in self.programs.values() if control is not None)
        self.orders.close()
        os.close(self.awake)
        os.close(self.wake)

    def hear(self, descriptor):
        """Does with a program what the worker says; the program is not reaped yet, so its id cannot be another's."""
        for pid, control in self.programs.items():
            if control is None or control.fileno() != descriptor:
                continue
            try:
                word = control.recv(16)
            except OSError:
                word = b""
            if word == b"i":
                quietly(os.killpg, pid, signal.SIGINT)
            else:
                kill_all(self.processes_of(pid))
            if not word:
                self.poll.unregister(control)
                control.close()
                self.programs[pid] = None
            return

    def reap(self):
        """Reaps whatever has ended."""
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.programs:
                self.ended.append((pid, status, used))
            elif pid in self.lanes:
                self.lanes.remove(pid)
            else:
                self.stray_s += used.ru_utime + used.ru_stime

    def conclude(self, program, status, used):
        """Says how a program ended, once nothing of it is left; says nothing when something stays."""
        leftovers = self.end_leftovers(program)
        control = self.programs.pop(program)
        seconds, self.stray_s = used.ru_utime + used.ru_stime + self.stray_s, 0.0
        if control is None:
            return
        self.poll.unregister(control)
        signalled = os.WIFSIGNALED(status)
        if leftovers is not None:
            tell(control, {"exited": {
                "code": None if signalled else os.WEXITSTATUS(status),
                "signal": os.WTERMSIG(status) if signalled else None,
                "cpu_ms": int(seconds * 1000),
                "memory_peak_bytes": used.ru_maxrss * 1024,
                "leftovers_killed": leftovers,
            }})
        control.close()

    def end_leftovers(self, program):
        """Kills what a program that has ended left behind; how many processes, or None when they would not end."""
        deadline = time.monotonic() + LEFTOVERS_DEADLINE_S
        killed = set()
        poll = select.poll()
        poll.register(self.awake, select.POLLIN)
        while True:
            alive = below(self.strays_of(program))
            if not alive:
                return len(killed)
            if time.monotonic() > deadline:
                return None
            kill_all(alive)
            killed.update(alive)
            poll.poll(10)
            drain(self.awake)
            self.reap()

    def processes_of(self, program):
        """A program that is not reaped yet, and every process of it."""
        return below([program] + self.strays_of(program))

    def strays_of(self, program):
        """Processes of a program that lost their parents: all children of the lane that are not known, if the program
        is the oldest, since no other has had a job."""
        if program != next(iter(self.programs)):
            return []
        return [pid for pid in children(os.getpid()) if pid not in self.programs and pid not in self.lanes]


def below(found):
    """These processes and all their descendants."""
    for pid in found:
        found += children(pid)
    return found


def children(parent):
    """The children of a process, by the kernel's own list. None of the caller's are missing: those that end stay in it
    until the caller reaps them."""
    found = []
    try:
        for thread in os.listdir(f"/proc/{parent}/task"):
            found += map(int, contents(f"/proc/{parent}/task/{thread}/children").split())
    except OSError:
        # It is gone.
        pass
    return found


def receive(channel, size, most):
    """One message, and the descriptors that came with it."""
    data, ancillary, _, _ = channel.recvmsg(size, _socket.CMSG_LEN(4 * most), _socket.MSG_CMSG_CLOEXEC)
    descriptors = []
    for *kind, packed in ancillary:
        if tuple(kind) == RIGHTS:
            descriptors += memoryview(packed[:len(packed) // 4 * 4]).cast("i")
    return data, descriptors


def contents(path):
    """What the kernel says in a file of its own."""
    file, parts = os.open(path, os.O_RDONLY | os.O_CLOEXEC), []
    try:
        while not parts or parts[-1]:
            parts.append(os.read(file, 4096))
    finally:
        os.close(file)
    return b"".join(parts)


def refuse(channel, step, error):
    """Answers a request for which there can be no process, rather than letting it wait for one."""
    tell(channel, {"failed": {"step": step, "errno": error.errno or errno.EIO}})


ENCODER = json.JSONEncoder(separators=(",", ":"))


def tell(channel, event):
    # A worker that is gone is noticed by its socket's end.
    quietly(channel.send, ENCODER.encode(event).encode())


def kill_all(pids):
    for pid in pids:
        quietly(os.kill, pid, signal.SIGKILL)


def close_descriptors(descriptors):
    for each in descriptors:
        quietly(os.close, each)


def close_all(sockets):
    for each in sockets:
        each.close()


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
