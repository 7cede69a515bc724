"""The main flows through an independent client (PyPI `mcp`) over HTTP: Streamable HTTP in every revision that it speaks,
and the deprecated HTTP+SSE."""

import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from unittest import mock

import anyio
import pytest
from mcp import Client
from mcp.client.sse import sse_client

WITH_HANDSHAKE = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
WAYS = [("/mcp", revision) for revision in [*WITH_HANDSHAKE, "2026-07-28"]]
WAYS += [("/sse", revision) for revision in WITH_HANDSHAKE]


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory(prefix="codegen-mcp-") as state_dir:
        command = [os.environ["COORDINATOR"], "--state-dir", state_dir, "--grpc-port", "0", "serve", "--http", "127.0.0.1:0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = process.stderr.readline()
        assert "http://" in said, said
        yield said.split()[-1].removesuffix("/mcp")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@asynccontextmanager
async def connect(server, way, revision, **options):
    target = sse_client(f"{server}{way}") if way == "/sse" else f"{server}{way}"
    mode = revision if revision >= "2026-07-28" else "legacy"
    with mock.patch("mcp.client.session.LATEST_HANDSHAKE_VERSION", revision):
        async with Client(target, mode=mode, read_timeout_seconds=30, **options) as client:
            assert client.session.protocol_version == revision
            yield client


def text(result):
    return "\n".join(block.text for block in result.content if block.type == "text")


def test_the_server_says_that_it_lives_and_is_ready(server):
    with urllib.request.urlopen(f"{server}/healthz") as answer:
        assert json.load(answer)["status"] == "ok"
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"{server}/readyz") as answer:
                assert json.load(answer) == {"status": "ok", "checks": {"store": "ok", "log": "ok", "worker": "ok"}}
                return
        except urllib.error.HTTPError as early:
            # The worker joins a moment after the port is open.
            assert early.code == 503 and json.load(early)["checks"]["worker"] == "failing"
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("way,revision", WAYS)
def test_session_files_code_and_progress(server, way, revision):
    async def flow():
        seen = []

        async def progress(_done, _total, message):
            seen.append(message)

        async with connect(server, way, revision) as client:
            assert len((await client.list_tools()).tools) > 20
            unnamed = await client.call_tool("run_python", {"code": "1"})
            assert unnamed.is_error and "session_create" in text(unnamed)
            handle = (await client.call_tool("session_create", {})).structured_content["session_id"]
            wrote = await client.call_tool("fs_write", {"session_id": handle, "path": "a.txt", "contents": "héllo"})
            assert not wrote.is_error, text(wrote)
            code = "import time\nprint(open('a.txt').read())\ntime.sleep(0.6)\nprint('late')"
            arguments = {"session_id": handle, "code": code}
            ran = await client.call_tool("run_python", arguments, progress_callback=progress)
            assert "héllo" in text(ran) and "late" in text(ran)
            assert "héllo" in seen[0] and "late" not in seen[0], seen
        async with connect(server, way, revision) as client:
            again = await client.call_tool("fs_read", {"session_id": handle, "path": "a.txt"})
            assert "héllo" in text(again)
            closed = await client.call_tool("session_close", {"session_id": handle})
            assert not closed.is_error, text(closed)

    anyio.run(flow)


@pytest.mark.parametrize("way,revision", WAYS)
def test_a_call_that_its_client_gives_up_is_cancelled(server, way, revision):
    async def flow():
        async with connect(server, way, revision) as client:
            handle = (await client.call_tool("session_create", {})).structured_content["session_id"]
            with anyio.move_on_after(1):
                await client.call_tool("run_python", {"session_id": handle, "code": "while True: pass"})
            with anyio.fail_after(20):
                while True:
                    listed = await client.call_tool("task_list", {"session_id": handle, "state": "running"})
                    if not listed.structured_content["tasks"]:
                        break
                    await anyio.sleep(0.05)

    anyio.run(flow)
