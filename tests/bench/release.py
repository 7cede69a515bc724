#!/usr/bin/env python3
"""Builds the binary as it is released: laid out by what it does most, which a first build of it counts.

    release.py TARGET_DIR [CARGO_ARGUMENT...]     (run by the interpreter that `make release` prepares)

Profile-guided optimisation, as rustc's book has it: a binary that counts, some seconds of work for it, and the one that
is built with the counts, at TARGET_DIR/guided/coordinator. What is up to date is kept.
"""

import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

import llvm  # noqa: E402
import processes  # noqa: E402
from lines import Broken, succeeded  # noqa: E402
from product import Product  # noqa: E402
from web import HttpProduct  # noqa: E402

OFTEN, SOMETIMES, SESSIONS = 300, 30, 10
PAUSE = 0.003
SCRIPT = "import json, math\nrows = [{'n': n, 'root': math.sqrt(n)} for n in range(50)]\nprint(json.dumps(rows[:5]))\nlen(rows)"
# What agents do all the time, and what they do now and then.
HOT = [
    ("run_python", {"code": SCRIPT}),
    ("run_python", {"code": SCRIPT, "kernel": "work"}),
    ("fs_write", {"path": "notes.txt", "content": "a line of text\n" * 70}),
    ("fs_read", {"path": "notes.txt"}),
    ("echo", {"message": "x" * 64}),
]
WARM = [
    ("run_shell", {"command": "ls -l | wc -l; echo done >&2"}),
    ("fs_edit", {"path": "notes.txt", "old": "text", "new": "text.", "replace_all": True}),
    ("fs_list", {}),
    ("fs_search", {"pattern": "line", "glob": "*.txt"}),
    ("session_info", {}),
    ("task_list", {}),
]


def say(text):
    print(f"release: {text}", file=sys.stderr, flush=True)


def build(target_dir, host, rustflags, arguments):
    """The binary that these flags make."""
    flags = f"{os.environ.get('RUSTFLAGS', '')} {rustflags}".strip()
    # With a target of their own, flags are not for what runs while the build does.
    command = ["cargo", "build", "--locked", "--release", "--target", host, "--target-dir", target_dir, "-p", "coordinator"]
    done = subprocess.run([*command, *arguments], cwd=TOP, env={**os.environ, "RUSTFLAGS": flags})
    if done.returncode != 0:
        sys.exit(f"release: cargo build ended with {done.returncode}")
    return Path(target_dir) / host / "release/coordinator"


def over_stdio(product):
    with product.running() as client:
        for name, arguments in HOT:
            for pause in (0, PAUSE):
                for _ in range(OFTEN):
                    time.sleep(pause)
                    succeeded(client.exchange(client.tool_message(name, arguments)))
        for name, arguments in WARM:
            for _ in range(SOMETIMES):
                succeeded(client.exchange(client.tool_message(name, arguments)))
        for _ in range(SESSIONS):
            session = client.tool("session_create")["structuredContent"]["session_id"]
            client.tool("run_python", code=SCRIPT, session_id=session)
            client.tool("session_close", session_id=session)


def over_http(product):
    server = HttpProduct(product)
    try:
        url = urlsplit(server.url)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
        head = {
            "Authorization": f"Bearer {server.token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }

        def post(message):
            connection.request("POST", url.path, json.dumps({"jsonrpc": "2.0", **message}), head)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise Broken(f"HTTP {answer.status}: {text[:200]}")
            return answer

        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "release", "version": "1"}}
        opened = post({"id": 0, "method": "initialize", "params": hello})
        head["Mcp-Session-Id"] = opened.headers["Mcp-Session-Id"]
        post({"method": "notifications/initialized"})
        for number in range(1, OFTEN):
            name, arguments = HOT[number % len(HOT)]
            post({"id": number, "method": "tools/call", "params": {"name": name, "arguments": arguments}})
        connection.close()
    finally:
        server.close()


def work(binary):
    """Makes a binary do what its users do, and ends it so that it leaves what it counted."""
    scratch = Path(tempfile.mkdtemp(prefix="codegen-release-"))
    try:
        for name, way in (("stdio", over_stdio), ("http", over_http)):
            state = scratch / name
            state.mkdir(mode=0o700)
            way(Product(binary, state))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def up_to_date(directory, counting):
    """The profile of that binary at this work, if there is one."""
    newest = max(path.stat().st_mtime for path in (counting, Path(__file__)))
    return next((path for path in directory.glob("profile-*") if path.stat().st_mtime > newest), None)


def profiled(directory, counting, counts):
    """A new profile, by a name of its own: cargo looks at the path of a profile, and not into it."""
    say("letting it work")
    for old in directory.glob("profile-*"):
        old.unlink()
    shutil.rmtree(counts, ignore_errors=True)
    work(counting)
    merged = directory / "merged"
    subprocess.run([llvm.tools() / "llvm-profdata", "merge", "-o", merged, counts], check=True)
    return merged.rename(directory / f"profile-{hashlib.sha256(merged.read_bytes()).hexdigest()[:16]}")


def main():
    directory, arguments = Path(sys.argv[1]) / "guided", sys.argv[2:]
    said = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    host = next(line.split()[1] for line in said.splitlines() if line.startswith("host: "))
    counts = directory / "counts"
    say("building the binary that counts")
    counting = f"-Cprofile-generate={counts} {llvm.PLAIN_NAMES}"
    # A profile belongs to functions as they are built with the very same settings.
    counting = build(directory / "counting", host, counting, arguments)
    profile = up_to_date(directory, counting) or profiled(directory, counting, counts)
    say("building the binary")
    built = build(directory, host, f"-Cprofile-use={profile}", arguments)
    shutil.copy2(built, directory / "coordinator")


if __name__ == "__main__":
    sys.exit(main())
