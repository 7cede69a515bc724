"""Whether what clients saw, what ran, what the log says and what was killed fit together. Pure: it looks at no process or file.

A *call* is an entry of the history, and so is a *fault*. `runs` has the times at which each token was written by the program
that carried it: one for each execution. A *record* is what the log says of a task. Faults touch sessions: those of the
server all of the embedded worker's, those of a worker its own, those of an init its one.
"""

from collections import defaultdict
from typing import NamedTuple

PLACES = ("embedded", "far")
UNKNOWN = "TASK_OUTCOME_UNKNOWN"
# With these, nothing was run.
NOTHING = "othing was run"
REFUSED = {"WORKER_UNAVAILABLE", "NO_CAPACITY", "NO_WORKER_FITS", "SESSION_LOST"}
# A pause is no fault that anybody may notice: whoever stops for less than the keep-alive is waited for.
KILLS_OF_WORKER = {"worker", "launcher", "disk"}
# What may end a program of a session, and nothing else of it.
KILLS_OF_PROGRAM = {"init", "program"}
# That a server was told to stop: before it goes it ends what sessions run, on every worker.
ORDERED = "ordered"
# What the death of a part of a sandbox comes to is seen when that part is needed next.
NEEDED_SECONDS = 2
# Both clocks are the same; a record's time is cut to microseconds.
CLOCK_SECONDS = 0.001
# Tools that tell of a task and are none.
ABOUT = {"task_wait", "task_status"}
ENDS = {"task.outcome", "task.unknown", "task.resolved"}


class Record(NamedTuple):
    """What a record of the log says of a task."""

    seq: int
    kind: str
    task: str
    cites: int | None
    outcome: str | None
    code: str | None
    at: float
    token: str | None


class Seen(NamedTuple):
    """What one run left to look at."""

    calls: list
    faults: list
    runs: dict
    records: list
    # The contents of files at the end, by session and path.
    files: dict
    # Where each session is: "embedded" or "far".
    places: dict


def violations(seen):
    """One sentence for each promise that was broken."""
    world = World(seen)
    found = []
    for look in (executions, answers, outcomes, log, excuses, kernels, files):
        found.extend(look(world))
    return found


class World:
    """What was seen, by token, task and place."""

    def __init__(self, seen):
        self.seen = seen
        self.by_token, self.told = defaultdict(list), defaultdict(list)
        for call in seen.calls:
            if call.get("token") and call["tool"] not in ABOUT:
                self.by_token[call["token"]].append(call)
            answer = call["answer"]
            if answer and answer["task"] and not answer["running"]:
                self.told[answer["task"]].append(call)
        self.tokens = {}
        self.attempts, self.ends, self.by_seq = defaultdict(list), defaultdict(list), {}
        for record in seen.records:
            self.by_seq[record.seq] = record
            if record.kind == "task.attempt":
                self.attempts[record.task].append(record)
                if record.token:
                    self.tokens.setdefault(record.token, record.task)
            elif record.kind in ENDS:
                self.ends[record.task].append(record)

    def faults(self, call, since=None):
        """The faults that may have had to do with a call, by what was hit."""
        begin, end = since or call["sent"], call["ended"] or float("inf")
        place = self.seen.places.get(call.get("session"))
        for fault in self.seen.faults:
            if fault["at"] <= end and begin <= over_at(fault, place) and touches(fault, call, place):
                yield fault["part"]
                if fault.get("ordered"):
                    yield ORDERED


def over_at(fault, place):
    """When a fault was over for sessions of that place; for one that is nowhere yet, everywhere."""
    until = fault["until"]
    later = NEEDED_SECONDS if fault["part"] in KILLS_OF_PROGRAM else 0
    return later + max(until.get(one, float("inf")) for one in ([place] if place else PLACES))


def touches(fault, call, place):
    """Whether a fault is near enough to a call to have to do with it."""
    part = fault["part"]
    if part == "server":
        return True
    if part == "front":
        return fault["client"] == call["client"]
    if part in KILLS_OF_PROGRAM:
        # A spare may have become a session's just then.
        return fault["session"] in (None, call.get("session"))
    # A session that is only being made may come to be on either worker.
    return part in KILLS_OF_WORKER and place in (fault["place"], None)


def code_of(record):
    """The code with which a call is answered whose task ended so."""
    if record.code:
        return record.code
    return "OK" if record.outcome == "ok" else "FAILED"


def executions(world):
    """Each task at most once; acknowledged success exactly once; what was refused, not at all; and nothing unattempted."""
    for token, times in world.seen.runs.items():
        if len(times) > 1:
            yield f"{token} ran {len(times)} times"
        task = world.tokens.get(token)
        if task is None:
            yield f"{token} ran and no attempt is on record"
        elif min(record.at for record in world.attempts[task]) > min(times) + CLOCK_SECONDS:
            yield f"{token} ran before its attempt was on record"
    for token, calls in world.by_token.items():
        if not any(call.get("runs") for call in calls):
            continue
        codes = {code for call in calls for code in final_codes(world, call)}
        count = len(world.seen.runs.get(token, ()))
        if "OK" in codes and count == 0:
            yield f"{token} was answered with success and never ran"
        refused = [call for call in calls if call["answer"] and is_refusal(call["answer"])]
        denied = len(refused) == len(calls) or (codes <= REFUSED and all(call["answer"] for call in calls))
        if codes and denied and count > 0:
            yield f"{token} was answered with {sorted(codes)}, that nothing was run, and ran"
        # One that was refused is free to run when it is sent again.
        for call in refused:
            if any(call["sent"] <= at <= call["ended"] for at in world.seen.runs.get(token, ())):
                yield f"{token} ran during a call that was answered with {call['answer']['code']}, that nothing was run"


def is_refusal(answer):
    return answer["code"] in REFUSED or NOTHING in answer["text"]


def final_codes(world, call):
    """What a call came to, as it was told: by its own answer, or by asking for its task later."""
    answer = call["answer"]
    if answer is None:
        return
    if not answer["running"]:
        yield answer["code"]
        return
    for later in world.told[answer["task"]]:
        if later["tool"] == "task_wait":
            yield later["answer"]["code"]


def answers(world):
    """The same key, the same task and the same result; a task's answer never changes but once, from unknown to known."""
    for token, calls in world.by_token.items():
        tasks = {call["answer"]["task"] for call in calls if call["answer"] and call["answer"]["task"]}
        if len(tasks) > 1:
            yield f"{token} has {len(tasks)} tasks: {sorted(tasks)}"
    for task, calls in world.told.items():
        told = sorted((call for call in calls if call["tool"] != "task_status"), key=lambda call: call["ended"])
        yield from changes(world, task, [(call, call["answer"]["code"]) for call in told])
        asked = sorted((call for call in calls if call["tool"] == "task_status"), key=lambda call: call["ended"])
        states = [(call, call["answer"]["state_code"] or call["answer"]["state"]) for call in asked]
        yield from changes(world, task, [(call, state) for call, state in states if state != "running"])


def changes(world, task, told):
    for (_, before), (call, after) in zip(told, told[1:], strict=False):
        learnt = before in (UNKNOWN, "unknown") and any(end.kind == "task.resolved" for end in world.ends[task])
        # Who asked before the other was answered may hear of it later.
        if before != after and not learnt:
            yield f"{task} was {before} and then {after} ({call['tool']} of client {call['client']})"


def outcomes(world):
    """Each acknowledged outcome is on record, and the record says the same."""
    for task, calls in world.told.items():
        ends = world.ends[task]
        if not ends:
            yield f"{task} was told to have ended and the log has no end of it"
            continue
        recorded = {code_of(end) for end in ends}
        for call in calls:
            answer = call["answer"]
            if call["tool"] == "task_status":
                if answer["state"] == "running":
                    continue
                wrong = not {said_by(answer)} & {state_of(code) for code in recorded}
            else:
                wrong = answer["code"] not in recorded
            if wrong:
                yield f"{task} was told to be {answer['code']}/{answer['state']}, and the log says {sorted(recorded)}"
            if answer["seq"] and call["tool"] not in ABOUT:
                record = world.by_seq.get(answer["seq"])
                if record is None or record.task != task or record.kind not in ENDS:
                    yield f"{task} names record {answer['seq']}, which is not of its end"


def state_of(code):
    return "finished" if code in ("OK", "FAILED") else "unknown" if code == UNKNOWN else f"failed {code}"


def said_by(answer):
    state = answer["state"]
    return f"failed {answer['state_code']}" if state == "failed" else state


def log(world):
    """Each attempt has exactly one end."""
    ends = defaultdict(int)
    for record in world.seen.records:
        if record.kind in ("task.outcome", "task.unknown"):
            ends[record.cites] += 1
    for records in world.attempts.values():
        for record in records:
            if ends[record.seq] != 1:
                yield f"the attempt {record.seq} of {record.task} has {ends[record.seq]} ends"


def excuses(world):
    """Nothing is lost, unknown, refused or failed where nothing was killed."""
    for call in world.seen.calls:
        answer = call["answer"]
        since = first_sent(world, call)
        if answer is None:
            if call["ended"] is None:
                yield f"{describe(call)} was never answered and its connection never broke"
                continue
            # A connection may have been gone for as long as nothing came over it.
            what, may, since = "was lost", {"server", "front"}, call["alive"]
        elif answer["code"] == "OK" or is_absence(call) or is_closed(call):
            continue
        elif answer["code"] == "SESSION_LOST" and is_bereft(world, call):
            continue
        else:
            what, may = f"came to {answer['code']}", excuses_of(answer["code"], world.seen.places.get(call.get("session")))
        if not set(world.faults(call, since)) & may:
            yield f"{describe(call)} {what}, and nothing of {sorted(may)} was killed: {(answer or {}).get('text')!r}"


def excuses_of(code, place):
    """What must have been killed for an answer with this code."""
    of_session = KILLS_OF_WORKER | KILLS_OF_PROGRAM
    if code in ("FAILED", "INTERNAL"):
        return of_session | {ORDERED}
    if code == UNKNOWN:
        # A worker that runs by itself goes on without its server, and tells it how its tasks ended.
        return of_session if place == "far" else of_session | {"server"}
    if code == "TASK_CANCELLED":
        return {"front", "server"}
    if code == "SESSION_LOST":
        return {"disk"}
    if code in REFUSED:
        return KILLS_OF_WORKER | {"server"} | ({"init"} if code == "WORKER_UNAVAILABLE" else set())
    return set()


def is_bereft(world, call):
    """Whether the files of a call's session were taken away at any time before it was answered."""
    place = world.seen.places.get(call.get("session"))
    return any(f["part"] == "disk" and f["place"] == place and f["at"] < call["ended"] for f in world.seen.faults)


def first_sent(world, call):
    """When what a call is about began: the first call under its key, or that of its task."""
    token = call.get("token")
    sent = [other["sent"] for other in world.by_token.get(token, ())] if token else []
    return min([call["sent"], *sent])


def describe(call):
    of = call.get("token") or call.get("path") or call.get("about") or ""
    return f"{call['tool']} {of} of client {call['client']}"


def kernels(world):
    """A kernel forgets what it knew only where its session, worker or server was killed."""
    before = {}
    for call in world.seen.calls:
        if "kernel" not in call or not call["answer"] or call["answer"]["code"] != "OK":
            continue
        if "stored result" in call["answer"]["text"]:
            continue
        count = count_in(call["answer"]["text"])
        session = call["session"]
        known = before.get(session)
        if known is not None and count is not None and count <= known[0]:
            parts = set(world.faults(call, known[1]["sent"]))
            may = KILLS_OF_WORKER | KILLS_OF_PROGRAM | {"server"}
            if not parts & may:
                yield f"the kernel of {session} counted {count} after {known[0]}, and nothing was killed"
        if count is not None:
            before[session] = (count, call)


def count_in(text):
    """The number that the kernel's program printed."""
    for line in text.splitlines():
        if line.startswith("count "):
            return int(line.split()[1])
    return None


def files(world):
    """A file has what was written last, or what may have been written since."""
    written = defaultdict(list)
    for call in world.seen.calls:
        if call["tool"] == "fs_write":
            written[call["session"], call["path"]].append(call)
    for place, calls in written.items():
        if place not in world.seen.files:
            # Its session was closed.
            continue
        last, open_ones = latest(calls)
        contents = world.seen.files[place]
        if contents != last and contents not in open_ones:
            yield f"{place} has {contents!r}, not {last!r} that was written last"
    for call in world.seen.calls:
        if call["tool"] != "fs_read" or not call["answer"] or not (call["answer"]["code"] == "OK" or is_absence(call)):
            continue
        text = "" if is_absence(call) else call["answer"]["text"]
        calls = [other for other in written[call["session"], call["path"]] if other["sent"] < call["ended"]]
        last, open_ones = latest([other for other in calls if other["ended"] and other["ended"] <= call["sent"]])
        open_ones += [other["contents"] for other in calls if not other["ended"] or other["ended"] > call["sent"]]
        if last is not None and not text.startswith((last, *open_ones)):
            yield f"{describe(call)} gave {text[:60]!r}, not {last!r} that was written before"


def is_absence(call):
    """A file that is not there is an answer like any other."""
    return call["tool"] == "fs_read" and call["answer"]["code"] == "NOT_FOUND"


def is_closed(call):
    """That a session is closed already is an answer to whoever closes it again."""
    return call["tool"] == "session_close" and call["answer"]["code"] == "SESSION_CLOSED"


def latest(calls):
    """What was certainly written last, and what may have been written at any time since it was sent."""
    sure = [call for call in calls if call["answer"] and call["answer"]["code"] == "OK"]
    open_ones = [call["contents"] for call in calls if not call["answer"] or call["answer"]["code"] in (UNKNOWN, "TASK_CANCELLED")]
    return (sure[-1]["contents"] if sure else None), open_ones
