"""The main flows through an independent client (PyPI `mcp`), in every revision that it speaks."""

import os
import signal
import socket
import struct
import tempfile
from contextlib import asynccontextmanager
from unittest import mock

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.types import ResourceTemplateReference

REVISIONS = ["2025-06-18", "2025-11-25", "2026-07-28"]


@pytest.fixture
def state_dir():
    with tempfile.TemporaryDirectory(prefix="codegen-mcp-") as path:
        yield path
        pid = server_pid(path)
        if pid:
            os.kill(pid, signal.SIGTERM)
            deadline = 200
            while os.path.exists(f"{path}/server.sock") and deadline:
                anyio.run(anyio.sleep, 0.05)
                deadline -= 1
            assert deadline, "the server did not end after SIGTERM"


def server_pid(state_dir):
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(f"{state_dir}/server.sock")
            return struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    except OSError:
        return None


@asynccontextmanager
async def connect(state_dir, revision, **options):
    server = StdioServerParameters(command=os.environ["COORDINATOR"], args=["--state-dir", state_dir])
    mode = revision if revision >= "2026-07-28" else "legacy"
    with mock.patch("mcp.client.session.LATEST_HANDSHAKE_VERSION", revision):
        async with Client(server, mode=mode, read_timeout_seconds=30, **options) as client:
            assert client.session.protocol_version == revision
            yield client


def text(result):
    return "\n".join(block.text for block in result.content if block.type == "text")


@pytest.mark.parametrize("revision", REVISIONS)
def test_session_files_and_code(state_dir, revision):
    async def flow():
        async with connect(state_dir, revision) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert {"session_create", "fs_write", "run_python", "run_shell"} <= names
            made = await client.call_tool("session_create", {"name": "flow", "metadata": {"n": 1}})
            handle = made.structured_content["session_id"]
            wrote = await client.call_tool("fs_write", {"session_id": handle, "path": "a/b.txt", "contents": "héllo"})
            assert not wrote.is_error, text(wrote)
            ran = await client.call_tool("run_python", {"session_id": handle, "code": "print(open('a/b.txt').read() * 2)"})
            assert "héllohéllo" in text(ran)
            shell = await client.call_tool("run_shell", {"session_id": handle, "command": "wc -c < a/b.txt; exit 3"})
            assert shell.is_error and "6" in text(shell) and "3" in text(shell)
            error = await client.call_tool("run_python", {"session_id": handle, "code": "raise ValueError('no')"})
            assert error.is_error and "ValueError: no" in text(error)
            refused = await client.call_tool("fs_read", {"session_id": handle, "path": "../../etc/passwd"})
            assert refused.is_error and "PATH_VIOLATION" in text(refused)
            listed = await client.call_tool("fs_list", {"session_id": handle, "recursive": True})
            assert "a/b.txt" in text(listed)
            info = await client.call_tool("session_info", {"session_id": handle})
            assert info.structured_content["isolation"]["level"] == "full"
            closed = await client.call_tool("session_close", {"session_id": handle})
            assert not closed.is_error, text(closed)

    anyio.run(flow)


@pytest.mark.parametrize("revision", REVISIONS)
def test_output_streams_while_the_program_runs(state_dir, revision):
    async def flow():
        seen = []

        async def progress(_done, _total, message):
            seen.append((anyio.current_time(), message))

        async with connect(state_dir, revision) as client:
            code = "import time\nprint('early')\ntime.sleep(1)\nprint('late')"
            ran = await client.call_tool("run_python", {"code": code}, progress_callback=progress)
            ended = anyio.current_time()
            assert "late" in text(ran)
            assert any("early" in message and ended - at > 0.5 for at, message in seen), seen

    anyio.run(flow)


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_cancelled_call_stops_its_program(state_dir, revision):
    async def flow():
        async with connect(state_dir, revision) as client:
            started = anyio.Event()

            async def progress(*_):
                started.set()

            async def endless(scope):
                with scope:
                    await client.call_tool(
                        "run_python", {"code": "print('on')\nwhile True: pass", "timeout_seconds": 300}, progress_callback=progress
                    )

            async with anyio.create_task_group() as group:
                scope = anyio.CancelScope()
                group.start_soon(endless, scope)
                await started.wait()
                scope.cancel()
            with anyio.fail_after(15):
                while (await client.call_tool("session_info", {})).structured_content["running"]:
                    await anyio.sleep(0.05)

    anyio.run(flow)


@pytest.mark.parametrize("revision", REVISIONS)
def test_two_clients_do_not_see_each_other_and_a_handle_survives(state_dir, revision):
    async def flow():
        async with connect(state_dir, revision) as one, connect(state_dir, revision) as other:
            await one.call_tool("fs_write", {"path": "mine", "contents": "x"})
            missing = await other.call_tool("fs_read", {"path": "mine"})
            assert missing.is_error and "NOT_FOUND" in text(missing)
            handle = (await one.call_tool("session_info", {})).structured_content["session_id"]
        os.kill(server_pid(state_dir), signal.SIGKILL)
        async with connect(state_dir, revision) as again:
            read = await again.call_tool("fs_read", {"session_id": handle, "path": "mine"})
            assert not read.is_error and "x" in text(read)

    anyio.run(flow)


@pytest.mark.parametrize("revision", REVISIONS)
def test_files_are_resources_that_tell_when_they_change(state_dir, revision):
    async def flow():
        told = anyio.Event()

        async def hear(message):
            if getattr(message, "method", None) == "notifications/resources/updated":
                told.set()

        async with connect(state_dir, revision, message_handler=hear) as client:
            made = await client.call_tool("session_create", {})
            handle = made.structured_content["session_id"]
            write = {"session_id": handle, "path": "data/in.csv", "contents": "a,b\n1,2\n"}
            await client.call_tool("fs_write", write)
            listed = (await client.list_resources()).resources
            assert [resource.name for resource in listed] == ["data/in.csv"]
            uri = str(listed[0].uri)
            read = await client.read_resource(uri)
            assert read.contents[0].text == write["contents"] and read.contents[0].mime_type == "text/csv"
            templates = (await client.list_resource_templates()).resource_templates
            reference = ResourceTemplateReference(uri=templates[0].uri_template)
            argument = {"name": "path", "value": "data/i"}
            completed = await client.complete(reference, argument, {"session": handle})
            assert completed.completion.values == ["data/in.csv"]
            with anyio.fail_after(30):
                if revision >= "2026-07-28":
                    async with client.listen(resource_subscriptions=[uri]) as stream:
                        await client.call_tool("fs_write", {**write, "contents": "more"})
                        async for event in stream:
                            assert str(event.uri) == uri
                            break
                else:
                    await client.subscribe_resource(uri)
                    await client.call_tool("fs_write", {**write, "contents": "more"})
                    await told.wait()
                    await client.unsubscribe_resource(uri)
            assert (await client.read_resource(uri)).contents[0].text == "more"

    anyio.run(flow)


@pytest.mark.parametrize("revision", REVISIONS)
def test_prompts_are_filled_in(state_dir, revision):
    async def flow():
        async with connect(state_dir, revision) as client:
            prompts = (await client.list_prompts()).prompts
            assert {"analyse_data", "plot", "fix_tests", "review_code"} <= {prompt.name for prompt in prompts}
            got = await client.get_prompt("review_code", {"path": "src"})
            assert '"src"' in got.messages[0].content.text
            with pytest.raises(Exception, match="path"):
                await client.get_prompt("review_code", {"path": "../src"})

    anyio.run(flow)
