"""The main flows through an independent client (PyPI `mcp`), in every revision that it speaks."""

import base64
import io
import os
import re
import shutil
import signal
import socket
import struct
import sys
import tempfile
import zipfile
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


@pytest.fixture(scope="session", autouse=True)
def interpreter():
    """The environment of this suite, for sessions to run: it has what programs draw and calculate with. A sandbox has a
    /tmp of its own and cannot show one that is there."""
    global INTERPRETER_BIN
    if not sys.prefix.startswith("/tmp/"):
        yield
        return
    cache = os.path.expanduser("~/.cache")
    os.makedirs(cache, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="codegen-mcp-", dir=cache) as directory:
        os.chmod(directory, 0o755)
        shutil.copytree(sys.prefix, f"{directory}/python", symlinks=True)
        INTERPRETER_BIN = f"{directory}/python/bin"
        yield


INTERPRETER_BIN = f"{sys.prefix}/bin"


@asynccontextmanager
async def connect(state_dir, revision, **options):
    env = {**os.environ, "PATH": f"{INTERPRETER_BIN}:{os.environ['PATH']}"}
    server = StdioServerParameters(command=os.environ["COORDINATOR"], args=["--state-dir", state_dir], env=env)
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
            assert shell.is_error and text(shell).startswith("exit 3 in ") and "stdout:\n6" in text(shell), text(shell)
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


@pytest.mark.parametrize("revision", REVISIONS)
def test_kernels_keep_variables_and_show_what_they_draw(state_dir, revision):
    async def flow():
        async with connect(state_dir, revision) as client:

            async def kernel(code, **more):
                return await client.call_tool("run_python", {"kernel": "main", "code": code, **more})

            assert not (await kernel("rows = [{'n': n, 'square': n * n} for n in range(3)]")).is_error
            value = await kernel("sum(row['square'] for row in rows)")
            assert "value:\n5" in text(value) and not value.is_error, text(value)
            wide = await kernel("import pandas\npandas.DataFrame([{f'column_{n:02}': n for n in range(14)}])")
            assert "column_00" in text(wide) and re.search(r"column_00 .* column_13$", text(wide), re.MULTILINE), text(wide)
            frame = await kernel("pandas.DataFrame(rows)")
            assert "square" in text(frame) and re.search(r"^2 +2 +4$", text(frame), re.MULTILINE), text(frame)
            figure = await kernel("import matplotlib.pyplot as plt\nplt.plot([row['square'] for row in rows])\nplt.show()")
            images = [block for block in figure.content if block.type == "image"]
            assert [image.mime_type for image in images] == ["image/png"], text(figure)
            assert base64.b64decode(images[0].data).startswith(b"\x89PNG")
            assert figure.structured_content is None, "clients hide pictures beside structure"
            unasked = await client.call_tool("run_python", {"code": "import matplotlib.pyplot as plt\nplt.bar('ab', [1, 2])"})
            assert any(block.type == "image" for block in unasked.content), text(unasked)
            kept = await client.call_tool("artifact_list", {})
            assert text(kept).count(".png") >= 2, text(kept)
            interrupted = await kernel("while True: x = 1", timeout_seconds=1)
            assert interrupted.is_error and "keeps its variables" in text(interrupted), text(interrupted)
            counted = text(await kernel("len(rows)"))
            assert "value:\n3" in counted, counted
            listed = await client.call_tool("kernel_list", {})
            assert [k["name"] for k in listed.structured_content["kernels"]] == ["main"]
            await client.call_tool("kernel_restart", {"kernel": "main"})
            gone = await kernel("rows")
            assert gone.is_error and "NameError" in text(gone) and "started anew" in text(gone), text(gone)

    anyio.run(flow)


def wheel():
    info = "greeting-1.0.dist-info"
    files = {
        "greeting.py": "def hello():\n    return 'hello'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, contents in files.items():
            zipped.writestr(name, contents)
    return base64.b64encode(archive.getvalue()).decode()


TESTS = """import greeting


def test_right():
    assert greeting.hello() == "hello"


def test_wrong():
    assert greeting.hello() == "bye"
"""


@pytest.mark.parametrize("revision", REVISIONS)
def test_packages_tests_artifacts_and_what_a_session_used(state_dir, revision):
    async def flow():
        async with connect(state_dir, revision) as client:

            async def tool(name, **arguments):
                return await client.call_tool(name, arguments)

            path = "dist/greeting-1.0-py3-none-any.whl"
            await tool("fs_write", path=path, contents=wheel(), encoding="base64")
            installed = await tool("pkg_install", packages=[path])
            assert not installed.is_error and "installed greeting 1.0" in text(installed), text(installed)
            listed = await tool("pkg_list")
            assert [package["name"] for package in listed.structured_content["packages"]] == ["greeting"]
            await tool("fs_write", path="test_greeting.py", contents=TESTS)
            tested = await tool("test_run")
            assert tested.is_error and "1 failed, 1 passed" in text(tested), text(tested)
            assert "at test_greeting.py:9" in text(tested) and tested.meta["codegen/tests"]["passed"] == 1
            await tool("fs_write", path="src/broken.py", contents="def f(:\n")
            checked = await tool("lint_check", path="src")
            assert checked.is_error and "src/broken.py:1" in text(checked), text(checked)
            await tool("fs_write", path="artifacts/notes.txt", contents="old")
            made = await tool("run_python", code="open('artifacts/sum.txt', 'w').write('42')")
            changed = [{"path": "artifacts/sum.txt", "change": "created", "size_bytes": 2}]
            assert made.meta["codegen/files_changed"] == changed, made.meta
            got = await tool("artifact_get", path="sum.txt")
            assert text(got).startswith("42"), text(got)
            receipt = (await tool("session_info")).structured_content["receipt"]
            assert receipt["packages"] == {"greeting": "1.0"} and receipt["tasks"] >= 8, receipt
            assert (receipt["failed"], receipt["hosts"], receipt["hosts_refused"]) == (2, [], []), receipt

    anyio.run(flow)


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_long_task_yields_and_is_waited_for(state_dir, revision):
    async def flow():
        async with connect(state_dir, revision) as client:
            code = "import time\nfor n in range(8):\n    print('part', n)\n    time.sleep(0.2)"
            running = await client.call_tool("run_python", {"code": code, "yield_after_seconds": 0.3})
            assert not running.is_error and "still running" in text(running)
            task = running.meta["codegen/task_id"]
            with anyio.fail_after(15):
                while "part 0" not in text(await client.call_tool("task_logs", {"task_id": task, "grep": "part"})):
                    await anyio.sleep(0.05)
            done = await client.call_tool("task_wait", {"task_id": task, "timeout_seconds": 20})
            assert "part 7" in text(done) and not done.is_error
            background = await client.call_tool("run_shell", {"command": "sleep 60", "background": True})
            task = background.meta["codegen/task_id"]
            await client.call_tool("task_cancel", {"task_id": task})
            ended = await client.call_tool("task_wait", {"task_id": task, "timeout_seconds": 20})
            assert ended.is_error and "TASK_CANCELLED" in text(ended)
            unknown = await client.call_tool("task_wait", {"task_id": "tsk_00000000000000000000000000000000"})
            assert unknown.is_error and "NOT_FOUND" in text(unknown)

    anyio.run(flow)


@pytest.mark.parametrize("revision", REVISIONS)
def test_files_are_edited_and_searched(state_dir, revision):
    async def flow():
        async with connect(state_dir, revision) as client:
            await client.call_tool("fs_write", {"path": "src/a.py", "contents": "def one():\n    return 1\n"})
            edited = await client.call_tool("fs_edit", {"path": "src/a.py", "old": "return 1", "new": "return 2"})
            assert not edited.is_error, text(edited)
            found = await client.call_tool("fs_search", {"pattern": r"return \d", "glob": "*.py"})
            assert "src/a.py:2" in text(found), text(found)
            missing = await client.call_tool("fs_edit", {"path": "src/a.py", "old": "return 1", "new": "x"})
            assert missing.is_error and "PRECONDITION_FAILED" in text(missing)
            info = await client.call_tool("session_info", {})
            assert "python" in text(info)

    anyio.run(flow)
