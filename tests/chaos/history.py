"""What was done and seen, an entry for each call and each fault, written down as it happens: a run that fails is read there.

Times are seconds since the epoch by the one clock of this machine, which the log and the programs in sessions read, too.
"""

import json
import threading
import time

# Of an answer, what is kept of its text.
TEXT_CHARS = 400


class History:
    """All entries so far, and their file: a line when an entry begins, and one when it ends."""

    def __init__(self, path):
        self.calls, self.faults = [], []
        self.lock, self.file = threading.Lock(), open(path, "w", encoding="utf-8")  # noqa: SIM115: it lives as long as this.

    def call(self, **facts):
        """A call that is sent now."""
        entry = {"sent": time.time(), "ended": None, "answer": None, **facts}
        return self.keep(self.calls, entry)

    def fault(self, part, **facts):
        """A fault that is made now; `until` says when each worker was seen to work again."""
        entry = {"part": part, "at": time.time(), "until": {}, **facts}
        return self.keep(self.faults, entry)

    def keep(self, entries, entry):
        with self.lock:
            entries.append(entry)
            self.write(entry)
        return entry

    def answered(self, entry, result):
        """What a call came to, by the result of its tool."""
        with self.lock:
            entry["answer"], entry["ended"] = seen(result), time.time()
            self.write(entry)

    def lost(self, entry):
        """The connection went away before the answer came."""
        with self.lock:
            entry["ended"] = time.time()
            self.write(entry)

    def mended(self, fault, place):
        with self.lock:
            fault["until"].setdefault(place, time.time())
            self.write(fault)

    def write(self, entry):
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()


def seen(result):
    """What matters of a result: its code, its task, the place of its record."""
    meta = result.get("_meta") or {}
    code = (meta.get("codegen/error") or {}).get("code") or ("FAILED" if result.get("isError") else "OK")
    text = "\n".join(block.get("text", "") for block in result.get("content", ()))
    structured = result.get("structuredContent") or {}
    return {
        "code": code,
        "task": meta.get("codegen/task_id"),
        "seq": meta.get("codegen/audit_seq"),
        "running": meta.get("codegen/state") == "running",
        "state": structured.get("state"),
        "state_code": structured.get("code"),
        "text": text[:TEXT_CHARS],
    }
