"""One round over REST: files, programs, logs and events that are followed and dropped, archives, and what is refused."""

import http.client
import json
import os

import wire
from actors import Failed

BASE = "/api/v1"
BYTES = 200_000
PROGRAM = "import os\nos.makedirs('made', exist_ok=True)\nopen('made/by_program', 'w').write('42')\nprint(6 * 7)"
GOES_ON = "import time\nprint('begun', flush=True)\ntime.sleep(30)"


class Client:
    """Requests, each of which must be answered as it is said to be."""

    def __init__(self, address):
        self.http = wire.Http(address)

    def ask(self, method, path, body=None, headers=None, status=200):
        answer, said = self.http.exchange(method, BASE + path, body, headers)
        if answer.status != status:
            raise Failed(f"{method} {path} was answered with {answer.status}, not {status}: {said[:200]!r}")
        return said

    def json(self, *request, **more):
        return json.loads(self.ask(*request, **more))

    def refused(self, method, path, body=None, status=400):
        said = self.json(method, path, body, status=status)
        if not said.get("error", {}).get("message"):
            raise Failed(f"{method} {path} was refused without a reason: {said}")

    def close(self):
        self.http.close()


class Following:
    """A stream of events on a connection of its own, which is dropped without a word."""

    def __init__(self, address, path):
        self.connection = http.client.HTTPConnection(address, timeout=wire.SECONDS)
        self.connection.request("GET", BASE + path, headers={"Accept": "text/event-stream"})
        self.events = self.connection.getresponse()
        if self.events.status != 200:
            raise Failed(f"{path} was answered with {self.events.status}: {self.events.read(200)!r}")

    def until(self, words):
        """Reads on until something is told that has these words."""
        while line := self.events.readline():
            if line.startswith(b"data:") and words in line:
                return
        raise Failed(f"the stream ended before {words!r} was told")

    def drop(self):
        # The reader of the answer has the socket, too.
        self.events.close()
        self.connection.close()


def same(what, one, other):
    if one != other:
        raise Failed(f"{what} came back otherwise: {one[:40]!r}, not {other[:40]!r}")


def work_on_files(client, session):
    files, contents = f"/sessions/{session}/files", os.urandom(BYTES)
    client.ask("PUT", f"{files}/data/in.bin", contents, status=201)
    same("a file", client.ask("GET", f"{files}/data/in.bin"), contents)
    part = client.ask("GET", f"{files}/data/in.bin", headers={"Range": "bytes=100-299"}, status=206)
    same("a part of a file", part, contents[100:300])
    client.ask("PUT", f"{files}/data/in.bin", b"shorter")
    client.json("POST", f"/sessions/{session}/move", {"from": "data/in.bin", "to": "data/moved.bin"})
    names = [entry["path"] for entry in client.json("GET", f"{files}?path=data")["entries"]]
    if names != ["data/moved.bin"]:
        raise Failed(f"a listing has {names}")
    client.refused("GET", f"{files}/data/in.bin", status=404)
    client.refused("PUT", f"{files}/..%2Fout", b"x")
    client.json("DELETE", f"{files}/data?recursive=true")


def run_programs(client, session):
    tasks = f"/sessions/{session}/tasks"
    ended = client.json("POST", f"{tasks}?wait=60", {"kind": "python", "code": PROGRAM})
    same("the output of a program", ended["result"]["stdout"]["text"], "42\n")
    client.json("POST", f"{tasks}?wait=60", {"kind": "python", "code": "x = [0] * 100_000", "kernel": "one"})
    client.json("POST", f"{tasks}?wait=60", {"kind": "shell", "command": "seq 20000; exit 3"})
    running = client.json("POST", tasks, {"kind": "python", "code": GOES_ON}, status=202)["task_id"]
    logs = Following(client.http.address, f"/tasks/{running}/logs")
    try:
        logs.until(b"begun")
    finally:
        logs.drop()
    client.json("POST", f"/tasks/{running}/cancel")
    if client.json("GET", f"/tasks/{running}?wait=60")["state"] == "running":
        raise Failed("a cancelled task runs on")
    client.json("GET", f"/tasks?session_id={session}")


def copy_as_archive(client, session):
    archive = client.ask("GET", f"/sessions/{session}/archive?path=made")
    client.json("PUT", f"/sessions/{session}/archive?path=copy", archive)
    names = [entry["path"] for entry in client.json("GET", f"/sessions/{session}/files?path=copy&recursive=true")["entries"]]
    if not any(name.endswith("by_program") for name in names):
        raise Failed(f"an archive that was written has {names}")
    client.refused("PUT", f"/sessions/{session}/archive", b"no archive at all" * 64)


def look_on(client, session):
    for path in ("/sessions", f"/sessions/{session}", "/tasks?state=finished&limit=10"):
        client.json("GET", path)
    client.refused("GET", f"/audit/records?session={session}", status=403)
    client.refused("GET", "/sessions/ses_unknown", status=404)
    client.refused("POST", "/sessions", {"nonsense": 1})


def play(address):
    client = Client(address)
    events = Following(address, "/events")
    try:
        session = client.json("POST", "/sessions", {}, status=201)["session_id"]
        work_on_files(client, session)
        run_programs(client, session)
        copy_as_archive(client, session)
        look_on(client, session)
        client.json("DELETE", f"/sessions/{session}")
        events.until(session.encode())
    finally:
        events.drop()
        client.close()
