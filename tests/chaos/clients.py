"""Clients that work on a session each, over any transport, and write down what they asked for and were told.

A program writes its token into the session's `runs.txt` at the moment at which it runs, in one write at the end of the file:
whatever happens to it and to its answer, its executions can be counted.
"""

import random
import threading
import time

import wire
from lines import Broken, Hung, LineServer

RUN = "import os,sys,time;os.write(os.open('runs.txt',os.O_CREAT|os.O_WRONLY|os.O_APPEND),f'{sys.argv[1]} {time.time()}\\n'.encode())"
COUNT = "n=globals().get('n',0)+1;print('count',n)"
# A client asks again in this time whether it is served again.
REST_SECONDS = 0.02
# Calls that are repeated, and tasks that are asked for again.
REMEMBERED = 40
# What a call that closes a session is answered with once it is closed.
CLOSED = {"OK", "SESSION_CLOSED"}
GONE = (Broken, OSError, ValueError, wire.Refused, wire.http.client.HTTPException)


class Gone(Exception):
    """The connection went away."""


class Front:
    """A client over stdio: a front that it starts."""

    def __init__(self, ground):
        self.server = LineServer(ground.command, ground.env)
        try:
            self.server.greet()
        except BaseException:
            self.close()
            raise

    def answer(self, name, arguments):
        return wire.json.loads(self.server.exchange(self.server.tool_message(name, arguments)))

    @property
    def pid(self):
        return self.server.process.pid

    def close(self):
        self.server.process.kill()
        self.server.process.wait()
        self.server.process.stdin.close()
        self.server.process.stdout.close()


def transport(kind):
    """How a client of that kind connects."""
    return {
        "stdio": Front,
        "requests": lambda ground: wire.Requests(ground.http),
        "sessions": lambda ground: wire.Sessions(ground.http),
    }[kind]


class Client:
    """One client, in a thread of its own."""

    def __init__(self, number, kind, labels, ground, history, seed):
        self.number, self.kind, self.labels = number, kind, labels
        self.ground, self.history, self.random = ground, history, random.Random(f"{seed}/{number}")
        self.connection, self.session, self.last = None, None, 0
        # When the connection was certainly there, last.
        self.alive = None
        self.unanswered, self.keyed, self.tasks, self.failure = [], [], [], None
        # Sessions before this one, each with where it was and what had run in it when it was closed.
        self.closed, self.sessions = {}, 0
        # Whether the files of its session are gone, as it was told.
        self.bereft = False
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not (self.stopping.is_set() and self.session and not self.unanswered):
                try:
                    self.work()
                except Gone:
                    self.disconnect()
                    time.sleep(REST_SECONDS)
        except Exception as failure:  # noqa: BLE001: whatever it is, the run has failed, and says with what.
            self.failure = f"client {self.number}: {type(failure).__name__}: {failure}"
        finally:
            self.disconnect()

    def disconnect(self):
        connection, self.connection = self.connection, None
        if connection:
            try:
                connection.close()
            except GONE:
                pass  # It is the other side that is gone.

    @property
    def front(self):
        """The process of its front, if it has one now."""
        connection = self.connection
        return connection.pid if isinstance(connection, Front) else None

    def work(self):
        """One connection's worth of calls; until it is gone."""
        if self.connection is None:
            try:
                self.connection = transport(self.kind)(self.ground)
                self.alive = time.time()
            except Hung:
                raise
            except GONE as gone:
                raise Gone from gone
        self.work_off()
        while True:
            if self.bereft:
                self.leave_lost()
            while self.session is None:
                self.begin()
            if self.stopping.is_set():
                return
            self.random.choices(*zip(*self.plays(), strict=True))[0]()
            self.stopping.wait(0.002)

    def plays(self):
        return (
            (self.run_keyed, 5), (self.run_bare, 3), (self.run_kernel, 2), (self.run_later, 2), (self.write, 3),
            (self.read, 1), (self.ask, 1), (self.repeat_one, 1), (self.renew, 0.1),
        )

    def begin(self):
        arguments = {"idempotency_key": f"session-{self.number}.{self.sessions}", "wait_seconds": 20}
        if self.labels:
            arguments["labels"] = self.labels
        answer = self.call("session_create", arguments)
        if answer["code"] == "OK":
            self.session = self.session_in(answer)
        else:
            time.sleep(0.1)

    def session_in(self, answer):
        words = answer["text"].replace(",", " ").replace(".", " ").replace("`", " ").split()
        return next(word for word in words if word.startswith("ses_"))

    def call(self, tool, arguments, **facts):
        """Asks, waits and writes down; gives what was seen of the answer."""
        entry = self.history.call(client=self.number, tool=tool, session=self.session, alive=self.alive, **facts)
        try:
            answer = self.connection.answer(tool, arguments)
            result = answer["result"]
        except Hung:
            raise
        except GONE as gone:
            self.history.lost(entry)
            raise Gone from gone
        except KeyError:
            result = {"isError": True, "_meta": {"codegen/error": {"code": f"JSON-RPC {answer}"}}}
        self.history.answered(entry, result)
        # What it is answered last may be that its front is gone.
        self.alive = entry["sent"]
        self.bereft |= entry["answer"]["code"] == "SESSION_LOST"
        return entry["answer"]

    def next_token(self):
        self.last += 1
        return f"c{self.number}n{self.last}"

    def program(self, token):
        """A program that writes its token, and may take a while before or after."""
        before, after = (self.random.choice((0, 0, 0, 0.05, 0.2)) for _ in range(2))
        code = f"import time;time.sleep({before});" * bool(before) + RUN + f";time.sleep({after})" * bool(after)
        return {"session_id": self.session, "code": code, "args": [token]}

    def command(self, token):
        nap = self.random.choice(("", "; sleep 0.1", "; sleep 0.3"))
        return {"session_id": self.session, "command": f"echo {token} $EPOCHREALTIME >> runs.txt{nap}"}

    def tool_of(self, token):
        if self.random.random() < 0.6:
            return "run_python", self.program(token)
        return "run_shell", self.command(token)

    def run_keyed(self):
        token = self.next_token()
        tool, arguments = self.tool_of(token)
        self.keep((tool, {**arguments, "idempotency_key": token}, {"token": token, "runs": True}))

    def keep(self, call):
        """A call under a key, which is repeated until it is answered."""
        self.unanswered.append(call)
        self.work_off()
        if self.session:
            self.remember(self.keyed, call)

    def work_off(self):
        """Repeats what is not answered, over as many connections as it takes, and waits for tasks that go on."""
        while self.unanswered:
            tool, _, facts = call = self.unanswered[-1]
            answer = self.repeat(call)
            if tool == "session_close" and answer["code"] not in CLOSED:
                time.sleep(REST_SECONDS)
                continue
            self.unanswered.pop()
            if tool == "session_close":
                # Over whichever connection it was answered.
                self.session, self.sessions, self.bereft = None, self.sessions + 1, False
                self.keyed.clear()
            if answer["running"]:
                about = {"token": facts["token"], "about": answer["task"]}
                self.unanswered.append(("task_wait", {"task_id": answer["task"]}, about))

    def repeat(self, call):
        tool, arguments, facts = call
        answer = self.call(tool, arguments, **facts)
        if answer["task"]:
            self.remember(self.tasks, answer["task"])
        return answer

    def remember(self, things, thing):
        things.append(thing)
        del things[:-REMEMBERED]

    def run_bare(self):
        token = self.next_token()
        tool, arguments = self.tool_of(token)
        self.repeat((tool, arguments, {"token": token, "runs": True}))

    def run_kernel(self):
        token = self.next_token()
        arguments = {"session_id": self.session, "code": f"{RUN};{COUNT}", "args": [token], "kernel": "k"}
        self.keep(("run_python", {**arguments, "idempotency_key": token}, {"token": token, "runs": True, "kernel": "k"}))

    def run_later(self):
        """A task in the background."""
        token = self.next_token()
        tool, arguments = self.tool_of(token)
        arguments |= {"background": True, "idempotency_key": token}
        self.keep((tool, arguments, {"token": token, "runs": True}))

    def write(self):
        token = self.next_token()
        path, contents = f"f{self.random.randrange(3)}.txt", f"{token}\n"
        arguments = {"session_id": self.session, "path": path, "contents": contents}
        self.call("fs_write", arguments, token=token, path=path, contents=contents)

    def read(self):
        path = f"f{self.random.randrange(3)}.txt"
        self.call("fs_read", {"session_id": self.session, "path": path}, path=path)

    def ask(self):
        """How a task is that was answered before."""
        if self.tasks:
            task = self.random.choice(self.tasks)
            self.call("task_status", {"task_id": task}, about=task)

    def repeat_one(self):
        """A call under a key that was answered before: the same again, and nothing runs."""
        if self.keyed:
            self.repeat(self.random.choice(self.keyed))

    def renew(self):
        """Closes the session for good, and goes on in another."""
        self.closed[self.session] = (self.ground.place_of(self.session), self.ground.ran_in(self.session))
        self.keep(("session_close", {"session_id": self.session, "idempotency_key": "close"}, {"token": f"x{self.session}"}))

    def leave_lost(self):
        """Goes on in another session, since the files of this one are gone."""
        self.closed[self.session] = (self.ground.place_of(self.session), self.ground.ran_in(self.session))
        self.session, self.sessions, self.bereft = None, self.sessions + 1, False
        self.keyed.clear()

    def stop(self):
        self.stopping.set()
