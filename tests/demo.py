#!/usr/bin/env python3
"""The main job, as an MCP client does it: launch `coordinator` over stdio, get a session, write files, run code.

Standard library only. Prints what happens; exits non-zero on the first surprise.
"""

import base64
import io
import json
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

ANSWER_SECONDS = 30
REVISION = "2025-11-25"


class Surprise(Exception):
    """Something went otherwise than promised."""


def expect(condition, what):
    if not condition:
        raise Surprise(what)


class Client:
    """One MCP client: it launches the front and speaks newline-delimited JSON-RPC with it."""

    def __init__(self, binary, state_dir, name):
        self.process = subprocess.Popen(
            [binary, "--state-dir", str(state_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.answers = {}
        self.answered = threading.Condition()
        self.progress = queue.Queue()
        self.last_id = 0
        self.ended = False
        threading.Thread(target=self._read, daemon=True).start()
        hello = self.request(
            "initialize",
            {"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": name, "version": "1"}},
        )
        self.server = hello["serverInfo"]
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def _read(self):
        for line in self.process.stdout:
            message = json.loads(line)  # Not one byte of anything else belongs on stdout.
            if message.get("method") == "notifications/progress":
                self.progress.put((time.monotonic(), message["params"].get("message", "")))
            elif "id" in message:
                with self.answered:
                    self.answers[message["id"]] = message
                    self.answered.notify_all()
        with self.answered:
            self.ended = True
            self.answered.notify_all()

    def send(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def start(self, method, params):
        self.last_id += 1
        self.send({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})
        return self.last_id

    def wait(self, request_id):
        with self.answered:
            done = self.answered.wait_for(lambda: self.ended or request_id in self.answers, ANSWER_SECONDS)
            expect(done, f"no answer to request {request_id} within {ANSWER_SECONDS} s")
            expect(request_id in self.answers, "the server went away before it answered")
            return self.answers.pop(request_id)

    def request(self, method, params):
        answer = self.wait(self.start(method, params))
        expect("result" in answer, f"{method} was refused: {answer.get('error')}")
        return answer["result"]

    def start_tool(self, name, arguments, progress=False):
        params = {"name": name, "arguments": arguments}
        if progress:
            params["_meta"] = {"progressToken": f"p{self.last_id + 1}"}
        return self.start("tools/call", params)

    def tool(self, name, /, **arguments):
        return self.request("tools/call", {"name": name, "arguments": arguments})

    def close(self):
        self.process.stdin.close()
        return self.process.wait(ANSWER_SECONDS)


def text_of(result):
    return "\n".join(block["text"] for block in result["content"] if block["type"] == "text")


def ok(result):
    expect(not result.get("isError"), f"a call failed: {text_of(result)}")
    return text_of(result)


def failed(result):
    expect(result.get("isError"), f"a call that had to fail did not: {text_of(result)}")
    return text_of(result)


def step(title):
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}", flush=True)


def show(text):
    for line in text.rstrip().splitlines():
        print(f"    {line}", flush=True)


def server_pid(state_dir):
    """Who listens on the server's socket, by the kernel's word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(str(state_dir / "server.sock"))
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", credentials)[0]


LIVE_SCRIPT = """import time
for n in range(1, 4):
    print("step", n, "of 3")
    time.sleep(0.6)
"""


def tour(binary, state_dir):
    step("A client connects over stdio")
    first = Client(binary, state_dir, "demo")
    tools = [tool["name"] for tool in first.request("tools/list", {})["tools"]]
    show(f"{first.server['name']} {first.server['version']} offers {len(tools)} tools: {', '.join(tools)}")

    step("It makes a session")
    session = first.tool("session_create", name="demo", metadata={"purpose": "a tour"})
    show(ok(session))
    handle = session["structuredContent"]["session_id"]
    level = session["structuredContent"]["isolation"]["level"]
    expect(level == "full", f"the session's isolation is `{level}`; `coordinator doctor` says what is missing")

    step("It writes a file and reads it back")
    show(ok(first.tool("fs_write", session_id=handle, path="data/numbers.txt", contents="1\n2\n3\n")))
    read = ok(first.tool("fs_read", session_id=handle, path="data/numbers.txt"))
    expect("1\n2\n3" in read, f"the file reads back as something else: {read!r}")
    show(ok(first.tool("fs_list", session_id=handle, recursive=True)))

    step("It runs a script and sees its output while it runs")
    ok(first.tool("fs_write", session_id=handle, path="live.py", contents=LIVE_SCRIPT))
    request = first.start_tool("run_python", {"session_id": handle, "file": "live.py"}, progress=True)
    answer = first.wait(request)
    answered = time.monotonic()
    live = []
    while not first.progress.empty():
        live.append(first.progress.get())
    early = [message for at, message in live if answered - at > 0.5 and "step 1" in message]
    expect(early, f"no output came before the end: {live}")
    show(f"live, {answered - live[0][0]:.1f} s before the result: {live[0][1].strip()!r}")
    show(ok(answer["result"]))

    step("It computes with the file")
    code = "print(sum(map(int, open('data/numbers.txt'))))\nopen('sum.txt', 'w').write('6')"
    computed = ok(first.tool("run_python", session_id=handle, code=code))
    expect("6" in computed and "sum.txt" in computed, f"the result or the changed file is missing: {computed}")
    show(computed)

    step("Its mistake comes back with the traceback")
    error = failed(first.tool("run_python", session_id=handle, code="def f(x):\n    return 1 / x\n\nf(0)\n"))
    expect("ZeroDivisionError" in error and "line 4" in error, f"no traceback: {error}")
    show(error)

    toolbox(first, handle)

    step("A path that leaves the workspace is refused")
    refused = failed(first.tool("fs_read", session_id=handle, path="../../etc/passwd"))
    expect("PATH_VIOLATION" in refused, f"refused with another code: {refused}")
    show(refused)
    shell = ok(first.tool("run_shell", session_id=handle, command="id; ls /; ls /proc | grep -c '^[0-9]'; ls /sys/class/net 2>/dev/null; true"))
    show(shell)

    step("An endless loop is cancelled")
    endless = first.start_tool("run_python", {"session_id": handle, "code": "print('on and on')\nwhile True: pass"}, progress=True)
    first.progress.get(timeout=ANSWER_SECONDS)
    cancelled_at = time.monotonic()
    first.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": endless, "reason": "enough"}})
    ok(first.tool("echo", message="still here"))
    while True:
        info = first.tool("session_info", session_id=handle)["structuredContent"]
        if not info["running"]:
            break
        expect(time.monotonic() - cancelled_at < 10, "the loop still runs ten seconds after it was cancelled")
        time.sleep(0.05)
    show(f"gone {time.monotonic() - cancelled_at:.1f} s after the cancellation")

    step("A second client sees none of it")
    second = Client(binary, state_dir, "other")
    missing = failed(second.tool("fs_read", path="data/numbers.txt"))
    expect("NOT_FOUND" in missing, f"the second client's own session is not empty: {missing}")
    show(missing)

    step("The server is killed; the same handle works again")
    pid = server_pid(state_dir)
    os.kill(pid, signal.SIGKILL)
    for client in (first, second):
        expect(client.process.wait(ANSWER_SECONDS) != 0, "a front exited as if nothing had happened")
    third = Client(binary, state_dir, "demo")
    expect(server_pid(state_dir) != pid, "the killed server still listens")
    again = ok(third.tool("fs_read", session_id=handle, path="sum.txt"))
    expect("6" in again, f"the file is not what it was: {again}")
    show(ok(third.tool("run_shell", session_id=handle, command="ls -R; cat sum.txt")))

    step("Everything ends when the client does")
    ok(third.tool("session_close", session_id=handle))
    expect(third.close() == 0, "the front did not end cleanly")
    os.kill(server_pid(state_dir), signal.SIGTERM)

    step("The log proves what happened")
    audit(binary, state_dir)


# A figure needs no more than this; where matplotlib is installed, that draws it.
PLOT = """try:
    import matplotlib.pyplot as plt
    plt.bar(["a", "b", "c"], numbers)
except ImportError:
    class Bars:
        def _repr_svg_(self):
            bars = "".join(f'<rect x="{60 * n}" y="{180 - 60 * v}" width="50" height="{60 * v}"/>'
                           for n, v in enumerate(numbers))
            return f'<svg xmlns="http://www.w3.org/2000/svg" width="180" height="180">{bars}</svg>'
    display(Bars())
"""


def toolbox(client, handle):
    step("A kernel keeps variables between calls")
    ok(client.tool("run_python", session_id=handle, kernel="main", code="numbers = [1, 2, 3]\ntotal = sum(numbers)"))
    value = ok(client.tool("run_python", session_id=handle, kernel="main", code="total * 7"))
    expect("42" in value, f"the value of the last expression is missing: {value}")
    show(value)
    show(ok(client.tool("kernel_list", session_id=handle)))

    step("A plot comes back as a picture, and stays in the workspace")
    plot = client.tool("run_python", session_id=handle, kernel="main", code=PLOT)
    pictures = [block for block in plot["content"] if block["type"] == "image"]
    expect(len(pictures) == 1 and pictures[0]["mimeType"] == "image/png", f"no picture came: {text_of(plot)}")
    show(ok(plot))
    kept = ok(client.tool("artifact_list", session_id=handle))
    expect("artifacts/" in kept, f"the picture is not kept: {kept}")

    step("A local wheel is installed without any network")
    wheel = "wheels/demo_greeting-1.0-py3-none-any.whl"
    contents = base64.b64encode(greeting_wheel()).decode()
    ok(client.tool("fs_write", session_id=handle, path=wheel, contents=contents, encoding="base64"))
    installed = ok(client.tool("pkg_install", session_id=handle, packages=[wheel]))
    show(installed)
    greeted = ok(client.tool("run_python", session_id=handle, code="import demo_greeting\ndemo_greeting.hello()"))
    expect("hello from a wheel" in greeted, f"the package cannot be imported: {greeted}")
    show(ok(client.tool("pkg_list", session_id=handle)))

    step("A long task yields, goes on, and is waited for")
    long = "import time\nfor n in range(4):\n    print('part', n)\n    time.sleep(0.4)\n"
    running = client.tool("run_python", session_id=handle, code=long, yield_after_seconds=0.5)
    show(ok(running))
    task = running["_meta"]["codegen/task_id"]
    done = ok(client.tool("task_wait", task_id=task, timeout_seconds=20))
    expect("exit 0" in done and "part 3" in done, f"the task's result is missing: {done}")
    show(done)


def greeting_wheel():
    """A wheel, made here: two files of metadata and a module."""
    info = "demo_greeting-1.0.dist-info"
    files = {
        "demo_greeting.py": "def hello():\n    return 'hello from a wheel'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: demo-greeting\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel.getvalue()


def audit(binary, state_dir):
    deadline = time.monotonic() + ANSWER_SECONDS
    while (state_dir / "server.sock").exists():
        expect(time.monotonic() < deadline, "the server did not end after SIGTERM")
        time.sleep(0.05)
    for arguments in (["audit", "tail", "-n", "6"], ["audit", "verify"]):
        done = subprocess.run([binary, "--state-dir", str(state_dir), *arguments], capture_output=True, text=True)
        expect(done.returncode == 0, f"`{' '.join(arguments)}` exited {done.returncode}: {done.stderr}{done.stdout}")
        show(done.stdout)


def main():
    binary = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "bin" / "coordinator")
    state_dir = Path(tempfile.mkdtemp(prefix="codegen-demo-"))
    started = time.monotonic()
    try:
        tour(binary, state_dir)
    except Surprise as surprise:
        print(f"\nsurprise: {surprise}", file=sys.stderr)
        print(f"state and diagnostics are kept in {state_dir}", file=sys.stderr)
        return 1
    shutil.rmtree(state_dir)
    print(f"\nAll as promised, in {time.monotonic() - started:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
