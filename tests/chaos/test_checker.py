"""The checker finds each kind of violation in a history that was forged, and none in one that is whole."""

import copy
import unittest

import checker
from checker import UNKNOWN, Record, Seen

TASK, SESSION = "tsk_1", "ses_1"


def answer(code, task=TASK, seq=2, **more):
    return {"code": code, "task": task, "seq": seq, "running": False, "state": None, "state_code": None, "text": "", **more}


def call(told, at=10.0, tool="run_python", **more):
    facts = {"client": 0, "tool": tool, "session": SESSION, "sent": at, "alive": at - 1, "ended": at + 1, "answer": told}
    return {**facts, **({"token": "a", "runs": True} if tool.startswith("run") else {}), **more}


def status(state, at=20.0, code=None):
    return call(answer("OK", seq=9, state=state, state_code=code), at, "task_status", about=TASK)


def fault(part, at=10.5, **more):
    return {"part": part, "at": at, "until": {"embedded": at + 1, "far": at + 1}, **more}


def attempt(seq=1, task=TASK, at=10.1, token="a"):
    return Record(seq, "task.attempt", task, None, None, None, at, token)


def end(outcome, seq=2, cites=1, code=None, kind="task.outcome", task=TASK):
    return Record(seq, kind, task, cites, outcome, code, 10.9, None)


UNKNOWN_END = end("unknown", code=UNKNOWN, kind="task.unknown")


def whole(**other):
    """A history in which one call ran and was told so."""
    return Seen(**{
        "calls": [call(answer("OK"))], "faults": [], "runs": {"a": [10.2]}, "records": [attempt(), end("ok")], "files": {},
        "places": {SESSION: "embedded"}, **other,
    })


class Forged(unittest.TestCase):
    def found(self, *words, **other):
        """That one violation is found at least, and that it is this one."""
        found = checker.violations(whole(**copy.deepcopy(other)))
        self.assertTrue(any(all(word in line for word in words) for line in found), f"{words} is not in {found}")

    def nothing(self, **other):
        self.assertEqual(checker.violations(whole(**copy.deepcopy(other))), [])

    def test_a_session_is_lost_with_its_files_alone_and_for_good(self):
        refused = [call(answer("SESSION_LOST", None, None), 30.0)]
        for part, place, other in (("worker", "far", "far"), ("disk", "far", "embedded")):
            self.found("SESSION_LOST", "disk", calls=refused, runs={}, records=[], places={SESSION: other}, faults=[fault(part, place=place)])
        self.nothing(calls=refused, runs={}, records=[], places={SESSION: "far"}, faults=[fault("disk", place="far")])

    def test_a_whole_history_has_no_violation(self):
        self.nothing()
        self.nothing(calls=[call(answer("OK")), status("finished")])

    def test_what_ran_twice_is_found(self):
        self.found("a ran 2 times", runs={"a": [10.2, 10.3]})

    def test_what_was_told_and_did_not_run_is_found(self):
        self.found("never ran", runs={})

    def test_what_ran_without_an_attempt_or_before_it_is_found(self):
        self.found("no attempt", records=[attempt(token="b"), end("ok")])
        self.found("before its attempt", runs={"a": [10.0]})

    def test_what_ran_though_it_was_refused_is_found(self):
        refused = [call(answer("WORKER_UNAVAILABLE"))]
        records = [attempt(), end("failed", code="WORKER_UNAVAILABLE")]
        self.found("nothing was run, and ran", calls=refused, records=records, faults=[fault("server")])
        denied = [call(answer("INTERNAL", text="INTERNAL: the interpreter is gone. Nothing was run."))]
        records = [attempt(), end("failed", code="INTERNAL")]
        self.found("nothing was run, and ran", calls=denied, records=records, faults=[fault("init", session=SESSION)])
        self.nothing(calls=denied, records=records, faults=[fault("init", session=SESSION)], runs={})

    def test_what_was_refused_may_run_when_it_is_sent_again_and_not_before(self):
        killed = [fault("server")]
        again = [call(answer("WORKER_UNAVAILABLE", task=None, seq=None)), call(answer("OK"), 14.0)]
        self.nothing(calls=again, faults=killed, records=[attempt(at=14.1), end("ok")], runs={"a": [14.2]})
        self.found("ran during a call", calls=again, faults=killed)

    def test_what_a_server_ends_that_is_told_to_stop_is_excused_and_what_is_lost_with_one_that_is_killed_is_not(self):
        ended = {"calls": [call(answer("INTERNAL"))], "records": [attempt(), end("failed", code="INTERNAL")]}
        for place in ("embedded", "far"):
            self.nothing(**ended, places={SESSION: place}, faults=[fault("server", ordered=True)])
            self.found("came to INTERNAL", **ended, places={SESSION: place}, faults=[fault("server")])

    def test_an_answer_that_is_on_no_record_or_on_another_is_found(self):
        self.found("no end of it", records=[attempt()])
        self.found("the log says ['FAILED']", records=[attempt(), end("failed")])
        self.found("names record 7", calls=[call(answer("OK", seq=7))])

    def test_an_answer_that_changes_is_found(self):
        killed = [fault("worker", place="embedded")]
        unknown = [attempt(), UNKNOWN_END]
        changed = [call(answer(UNKNOWN)), call(answer("OK"), 12.0)]
        self.found("was TASK_OUTCOME_UNKNOWN and then OK", calls=changed, records=unknown, faults=killed)
        self.found("was finished and then unknown", calls=[call(answer("OK")), status("finished"), status("unknown", 30.0)])
        resolved = [*unknown, end("ok", 3, kind="task.resolved")]
        self.nothing(calls=changed, records=resolved, faults=killed)
        self.found("was OK and then TASK", calls=[changed[1], call(answer(UNKNOWN), 15.0)], records=resolved, faults=killed)

    def test_a_key_with_two_tasks_is_found(self):
        twice = [call(answer("OK")), call(answer("OK", "tsk_2", 4), 12.0)]
        self.found("a has 2 tasks", calls=twice, records=[attempt(), end("ok"), attempt(3, "tsk_2"), end("ok", 4, 3, task="tsk_2")])

    def test_an_attempt_without_one_end_is_found(self):
        self.found("has 0 ends", records=[attempt(), end("ok"), attempt(3, "tsk_2", token=None)])
        self.found("has 2 ends", records=[attempt(), end("ok"), end("ok", 3)])

    def test_an_unknown_outcome_needs_a_kill_of_what_it_lived_by(self):
        unknown = {"calls": [call(answer(UNKNOWN))], "records": [attempt(), UNKNOWN_END]}
        self.found("came to TASK_OUTCOME_UNKNOWN", **unknown)
        self.found("came to TASK_OUTCOME_UNKNOWN", **unknown, faults=[fault("worker", at=30.0, place="embedded")])
        self.found("came to TASK_OUTCOME_UNKNOWN", **unknown, faults=[fault("worker", place="far")])
        self.found("came to TASK_OUTCOME_UNKNOWN", **unknown, faults=[fault("init", session="ses_2")])
        self.found("came to TASK_OUTCOME_UNKNOWN", **unknown, faults=[fault("pause")])
        self.nothing(**unknown, faults=[fault("worker", place="embedded")])
        self.nothing(**unknown, faults=[fault("server")])
        self.found("came to TASK_OUTCOME_UNKNOWN", **unknown, faults=[fault("server")], places={SESSION: "far"})

    def test_a_lost_answer_needs_a_kill_of_the_server_or_of_its_front(self):
        lost = {"calls": [call(None)]}
        self.found("was lost", **lost)
        self.found("was lost", **lost, faults=[fault("front", client=1)])
        self.nothing(**lost, faults=[fault("front", client=0)])
        self.nothing(**lost, faults=[fault("front", at=8.5, client=0)])
        self.found("was lost", **lost, faults=[fault("front", at=7.5, client=0)])
        self.nothing(**lost, faults=[fault("server")])
        self.found("never answered", calls=[call(None, ended=None)])

    def test_any_other_failure_needs_its_reason(self):
        self.found("came to QUOTA_EXCEEDED", calls=[call(answer("QUOTA_EXCEEDED", None, None))], runs={}, faults=[fault("server")])
        failed = {"calls": [call(answer("FAILED"))], "records": [attempt(), end("failed")]}
        self.found("came to FAILED", **failed, faults=[fault("server")])
        self.nothing(**failed, faults=[fault("program", session=SESSION)])

    def test_a_kernel_that_forgets_is_found(self):
        counts = [call(answer("OK", text=f"count {count}"), 10.0 + at, kernel="k") for at, count in enumerate((1, 2, 1))]
        self.found("counted 1 after 2", calls=counts)
        self.nothing(calls=counts, faults=[fault("init", at=12.2, session=SESSION)])

    def test_a_file_that_is_lost_or_old_is_found(self):
        def write(contents, at, told="OK"):
            return call(answer(told, None, None) if told else None, at, "fs_write", path="f", contents=contents)

        def wrote(*calls, holds, **other):
            return {"calls": [call(answer("OK")), *calls], "files": {(SESSION, "f"): holds}, **other}

        self.nothing(**wrote(write("1", 20.0), write("2", 30.0), holds="2"))
        self.found("not '2'", **wrote(write("1", 20.0), write("2", 30.0), holds="1"))
        self.found("not '1'", **wrote(write("1", 20.0), holds=None))
        killed = [fault("server", 30.5)]
        for holds in ("1", "2"):
            self.nothing(**wrote(write("1", 20.0), write("2", 30.0, None), holds=holds, faults=killed))
        read = call(answer("OK", None, None, text="1"), 40.0, "fs_read", path="f")
        self.found("gave '1', not '2'", **wrote(write("1", 20.0), write("2", 30.0), read, holds="2"))
        absent = call(answer("NOT_FOUND", None, None), 40.0, "fs_read", path="f")
        self.found("gave '', not '1'", **wrote(write("1", 20.0), absent, holds="1"))


if __name__ == "__main__":
    unittest.main()
