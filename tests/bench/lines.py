"""MCP over a pair of pipes with as little in between as Python allows: one write and, mostly, one read a call."""

import json
import os
import select
import subprocess

REVISION = "2025-11-25"
END_SECONDS = 10
# Longer than any answer takes.
ANSWER_SECONDS = 120


class Broken(Exception):
    """Something did not work that must work for the figures to mean anything."""


class Hung(Broken):
    """A process gave no answer, and did not go away."""


class LineServer:
    """A process that speaks newline-delimited JSON-RPC, the same code for the product and for every peer."""

    def __init__(self, command, env=None, cwd=None):
        self.name = os.path.basename(command[0])
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=env, cwd=cwd
        )
        self.stdin = self.process.stdin.fileno()
        self.stdout = self.process.stdout.fileno()
        self.readable = select.poll()
        self.readable.register(self.stdout, select.POLLIN)
        self.pending = b""
        self.last_id = 0

    def greet(self):
        hello = {"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        self.request("initialize", hello)
        self.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        return self

    def write(self, data):
        while data:
            data = data[os.write(self.stdin, data) :]

    def line(self):
        """The next whole line, without looking into it."""
        while True:
            end = self.pending.find(b"\n")
            if end >= 0:
                line, self.pending = self.pending[:end], self.pending[end + 1 :]
                return line
            self.wait_readable()
            more = os.read(self.stdout, 1 << 20)
            if not more:
                raise Broken(f"{self.name} went away")
            self.pending += more

    def wait_readable(self):
        # A second at a time: a machine that stood still meanwhile took no time of anybody's.
        if not any(self.readable.poll(1_000) for _ in range(ANSWER_SECONDS)):
            raise Hung(f"{self.name} did not answer within {ANSWER_SECONDS} s")

    def answer(self):
        """The next line that answers a request; notifications are passed over."""
        while True:
            line = self.line()
            if b'"method":"' not in line or "method" not in json.loads(line):
                return line

    def exchange(self, message):
        """What a call costs: a line out, a line in. The answer is looked at afterwards, outside of the measurement."""
        self.write(message)
        return self.answer()

    def message(self, method, params):
        self.last_id += 1
        call = {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}
        return json.dumps(call, separators=(",", ":")).encode() + b"\n"

    def tool_message(self, name, arguments):
        return self.message("tools/call", {"name": name, "arguments": arguments})

    def request(self, method, params):
        answer = json.loads(self.exchange(self.message(method, params)))
        if "result" not in answer:
            raise Broken(f"{self.name} refused {method}: {answer.get('error')}")
        return answer["result"]

    def tool(self, name, **arguments):
        return succeeded(self.exchange(self.tool_message(name, arguments)))

    def close(self):
        """Ends it as a client does, by closing its input; what does not end then is killed, by its process id."""
        self.process.stdin.close()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(END_SECONDS)
        self.process.stdout.close()


def succeeded(line):
    """The result in an answer, which must be one of success: a fast refusal is no figure."""
    answer = json.loads(line)
    result = answer.get("result")
    if result is None or result.get("isError"):
        raise Broken(f"a call failed: {line[:500].decode(errors='replace')}")
    return result


def text_of(result):
    return "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
