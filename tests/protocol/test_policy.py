"""The policy through an independent client (PyPI `mcp`): its user approves and declines, an operator does from another
process, silence denies, and the log tells the order."""

import json
import os
import signal
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.types import ElicitResult

POLICY = """
[[rule]]
name = "shell"
tool = "run_shell"
effect = "require_approval"
reason = "a shell can do much"

[[rule]]
name = "deploy"
tool = "fs_write"
path = "deploy/**"
effect = "require_approval"
approvers = ["operator"]
timeout = "TIMEOUT"

[[rule]]
name = "keys"
path = "keys/**"
effect = "deny"
reason = "keys stay closed"
"""
# A server whose calls do not wait for long.
POLLS = "polls"
REVISIONS = ["2025-06-18", "2025-11-25", "2026-07-28"]


class Server:
    def __init__(self, state_dir, url, policy, process):
        self.state_dir, self.url, self.policy, self.process = state_dir, url, policy, process

    def run(self, *arguments):
        command = [os.environ["COORDINATOR"], "--state-dir", self.state_dir, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    def records(self):
        output = self.run("audit", "query", "--json")
        return [json.loads(line) for line in output.stdout.splitlines()]

    async def pending(self):
        with anyio.fail_after(20):
            while True:
                listed = await anyio.to_thread.run_sync(lambda: json.loads(self.run("approvals", "ls", "--json").stdout))
                if listed:
                    return listed[0]
                await anyio.sleep(0.02)


@pytest.fixture()
def server(request):
    with tempfile.TemporaryDirectory(prefix="codegen-mcp-") as state_dir:
        policy = Path(state_dir) / "policy.toml"
        param = getattr(request, "param", "5m")
        polls = param == POLLS
        policy.write_text(POLICY.replace("TIMEOUT", "5m" if polls else param))
        environment = {**os.environ, **({"YIELD_AFTER": "1s"} if polls else {})}
        command = [os.environ["COORDINATOR"], "--state-dir", state_dir, "--grpc-port", "0", "--policy", str(policy)]
        command = [*command, "serve", "--http", "127.0.0.1:0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        said = process.stderr.readline()
        assert "http://" in said, said
        yield Server(state_dir, said.split()[-1], policy, process)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0


@asynccontextmanager
async def connect(server, revision, answer=None):
    async def asked(_context, params):
        assert "run_shell" in params.message and "a shell can do much" in params.message, params.message
        return answer

    mode = revision if revision >= "2026-07-28" else "legacy"
    callback = asked if answer else None
    with mock.patch("mcp.client.session.LATEST_HANDSHAKE_VERSION", revision):
        async with Client(server.url, mode=mode, read_timeout_seconds=30, elicitation_callback=callback) as client:
            yield client


def text(result):
    return "\n".join(block.text for block in result.content if block.type == "text")


async def session(client):
    return (await client.call_tool("session_create", {})).structured_content["session_id"]


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_user_of_a_client_approves_and_declines(server, revision):
    async def flow():
        yes = ElicitResult(action="accept", content={"approve": True, "reason": "fine"})
        async with connect(server, revision, yes) as client:
            handle = await session(client)
            ran = await client.call_tool("run_shell", {"session_id": handle, "command": "echo $((6*7))"})
            assert not ran.is_error and "42" in text(ran), text(ran)
        async with connect(server, revision, ElicitResult(action="decline")) as client:
            refused = await client.call_tool("run_shell", {"session_id": handle, "command": "echo no"})
            assert refused.is_error and "PERMISSION_DENIED" in text(refused), text(refused)
            denied = await client.call_tool("fs_read", {"session_id": handle, "path": "./keys/a"})
            assert denied.is_error and "keys stay closed" in text(denied), text(denied)

    anyio.run(flow)
    told = [(one["type"], one.get("detail", {}).get("decision")) for one in server.records() if one.get("tool") == "run_shell"]
    kinds = [kind for kind, _ in told if kind != "call.refused"]
    assert kinds == [
        "approval.requested", "approval.decided", "task.attempt", "task.outcome", "approval.requested", "approval.decided",
    ], told
    assert [decision for kind, decision in told if kind == "approval.decided"] == ["approved", "denied"]


def test_an_operator_decides_from_another_process(server):
    async def flow():
        async with connect(server, "2025-11-25") as client:
            handle = await session(client)
            for verb, why in [("approve", "release day"), ("deny", "not now")]:
                call = {"session_id": handle, "path": "deploy/x", "contents": verb}
                results = []

                async def write():
                    results.append(await client.call_tool("fs_write", call))

                async with anyio.create_task_group() as group:
                    group.start_soon(write)
                    pending = await server.pending()
                    assert pending["rule"] == "deploy" and pending["arguments"]["path"] == "deploy/x", pending
                    decided = await anyio.to_thread.run_sync(server.run, "approvals", verb, pending["id"], "--why", why)
                    assert decided.returncode == 0, decided.stderr
                    again = await anyio.to_thread.run_sync(server.run, "approvals", verb, pending["id"])
                    assert again.returncode == 1, again.stdout
                assert results[0].is_error == (verb == "deny"), text(results[0])
                assert (why in text(results[0])) == (verb == "deny")

    anyio.run(flow)
    decided = [one for one in server.records() if one["type"] == "approval.decided"]
    assert [one["detail"]["why"] for one in decided] == ["release day", "not now"]
    assert all(one["detail"]["way"] == "command" and one["principal"].startswith("os:") for one in decided)


@pytest.mark.parametrize("server", ["1s"], indirect=True)
def test_silence_denies(server):
    async def flow():
        async with connect(server, "2026-07-28") as client:
            call = {"session_id": await session(client), "path": "deploy/x", "contents": ""}
            denied = await client.call_tool("fs_write", call)
            assert denied.is_error and "nobody approved" in text(denied), text(denied)

    anyio.run(flow)
    [decided] = [one for one in server.records() if one["type"] == "approval.decided"]
    assert decided["detail"]["decision"] == "expired"


def test_the_policy_is_read_again_and_a_bad_one_changes_nothing(server):
    def loads():
        return [one for one in server.records() if one["type"] == "policy.loaded"]

    async def reread(rules):
        before = len(loads())
        server.policy.write_text(rules)
        server.process.send_signal(signal.SIGHUP)
        with anyio.fail_after(20):
            while len(await anyio.to_thread.run_sync(loads)) == before:
                await anyio.sleep(0.02)

    async def flow():
        async with connect(server, "2025-11-25") as client:
            handle = await session(client)

            async def lists():
                result = await client.call_tool("fs_list", {"session_id": handle})
                return not result.is_error

            async def lists_or_not(may):
                # What is on record holds a moment later.
                with anyio.fail_after(20):
                    while await lists() != may:
                        await anyio.sleep(0.02)

            assert await lists()
            await reread("[[rule]]\nname = 'all'\ntool = 'fs_*'\neffect = 'deny'\n")
            await lists_or_not(False)
            await reread("[[rule]]\nname = 'all'\ntool = 'fs_*'\neffect = 'perhaps'\n")
            assert not await lists()
            await reread("default = 'allow'\n")
            await lists_or_not(True)

    anyio.run(flow)
    assert [one["outcome"] for one in loads()] == ["ok", "ok", "refused", "ok"]


@pytest.mark.parametrize("server, ending", [("5m", signal.SIGKILL), (POLLS, signal.SIGTERM)], indirect=["server"])
def test_the_end_of_the_server_denies_what_was_pending_and_whoever_asks_again_is_told(server, ending):
    call = {"path": "deploy/x", "contents": "x" * 1000}
    seen = {}

    async def flow():
        async with connect(server, "2025-11-25") as client:
            call["session_id"] = await session(client)
            if ending == signal.SIGTERM:
                waits = await client.call_tool("fs_write", call)
                assert "the request is apr_" in text(waits), text(waits)
            async with anyio.create_task_group() as group:
                if ending == signal.SIGKILL:
                    group.start_soon(client.call_tool, "fs_write", call)
                seen.update(await server.pending())
                server.process.send_signal(ending)
                await anyio.to_thread.run_sync(server.process.wait)
                group.cancel_scope.cancel()

    async def until_its_end():
        try:
            await flow()
        except* httpx2.TransportError:
            # A client may see that its server is gone before it is cancelled.
            assert ending == signal.SIGKILL

    anyio.run(until_its_end)
    approval = seen["id"]
    command = [*server.process.args]
    again = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = again.stderr.readline()
        assert "http://" in said, said
        server.url = said.split()[-1]
        [decided] = [one for one in server.records() if one["type"] == "approval.decided"]
        assert decided["detail"]["approval"] == approval and decided["detail"]["decision"] == "withdrawn"
        assert json.loads(server.run("approvals", "ls", "--json").stdout) == []

        async def asks_again():
            async with connect(server, "2025-11-25") as client:
                told = await client.call_tool("fs_write", {**call, "idempotency_key": "k"})
                assert told.is_error and "the server was restarted" in text(told), text(told)
                async with anyio.create_task_group() as group:
                    group.start_soon(client.call_tool, "fs_write", call)
                    pending = await server.pending()
                    shown = server.run("approvals", "show", pending["id"])
                    assert "contents:\n  xxx" in shown.stdout, shown.stderr
                    group.cancel_scope.cancel()

        anyio.run(asks_again)
    finally:
        again.send_signal(signal.SIGTERM)
        assert again.wait(timeout=30) == 0
