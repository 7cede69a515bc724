"""The protocol over HTTP in each of its forms, by hand, so that connections can be broken off in the middle."""

import http.client
import json
import socket

ACCEPT = "application/json, text/event-stream"
SECONDS = 60


class Refused(Exception):
    """A call was not answered with success."""


def answer_in(body, kind):
    """The answer in a body: JSON, or the last event of a stream that is one."""
    if kind.startswith("application/json"):
        return json.loads(body)
    for event in reversed(body.decode().replace("\r", "").split("\n\n")):
        data = "\n".join(line[5:].strip() for line in event.split("\n") if line.startswith("data:"))
        if data and "id" in (answer := json.loads(data)):
            return answer
    raise Refused(f"no answer in {body[:200]!r}")


def result_of(answer):
    if "error" in answer or answer["result"].get("isError"):
        raise Refused(json.dumps(answer)[:400])
    return answer["result"]


class Http:
    """Requests to one server, each a connection's next."""

    def __init__(self, address):
        self.address = address
        self.connection = http.client.HTTPConnection(address, timeout=SECONDS)

    def exchange(self, method, path, body=None, headers=None):
        # Bytes are sent as they are.
        is_plain = body is None or isinstance(body, bytes)
        data = body if is_plain else json.dumps(body).encode()
        headers = {"Accept": ACCEPT, **(headers or {})}
        if not is_plain:
            headers["Content-Type"] = "application/json"
        try:
            self.connection.request(method, path, data, headers)
        except (BrokenPipeError, ConnectionResetError):
            # It was closed while it was idle.
            self.connection.close()
            self.connection.request(method, path, data, headers)
        answer = self.connection.getresponse()
        return answer, answer.read()

    def abandon(self, path, body, headers):
        """Sends a request and closes the connection without waiting for its answer."""
        data = json.dumps(body).encode()
        lines = {"Host": self.address, "Accept": ACCEPT, "Content-Type": "application/json", **headers}
        lines["Content-Length"] = len(data)
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        host, port = self.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=SECONDS) as stream:
            stream.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data)

    def close(self):
        self.connection.close()


class Sessions:
    """A client of 2025-11-25 with a session of the protocol."""

    REVISION = "2025-11-25"

    def __init__(self, address):
        self.http, self.last = Http(address), 0
        params = {"protocolVersion": self.REVISION, "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
        answer, body = self.http.exchange("POST", "/mcp", self.message("initialize", params))
        result_of(answer_in(body, answer.headers["content-type"]))
        self.headers = {"Mcp-Session-Id": answer.headers["mcp-session-id"], "Mcp-Protocol-Version": self.REVISION}
        self.notify("notifications/initialized")

    def message(self, method, params):
        self.last += 1
        return {"jsonrpc": "2.0", "id": self.last, "method": method, "params": params}

    def notify(self, method, params=None):
        message = {"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})}
        answer, _ = self.http.exchange("POST", "/mcp", message, self.headers)
        if answer.status != 202:
            raise Refused(f"{method} was answered with {answer.status}")

    def tool(self, name, **arguments):
        return result_of(self.answer(name, arguments))

    def answer(self, name, arguments):
        """What a call is answered with, whatever it is."""
        message = self.message("tools/call", {"name": name, "arguments": arguments})
        answer, body = self.http.exchange("POST", "/mcp", message, self.headers)
        return answer_in(body, answer.headers["content-type"])

    def abandon(self, name, **arguments):
        """A call whose connection is lost, and that is cancelled afterwards, since that alone ends it in this era."""
        message = self.message("tools/call", {"name": name, "arguments": arguments})
        self.http.abandon("/mcp", message, self.headers)
        self.notify("notifications/cancelled", {"requestId": message["id"]})

    def close(self):
        self.http.exchange("DELETE", "/mcp", None, self.headers)
        self.http.close()


class Requests:
    """A client of 2026-07-28: no session of the protocol."""

    REVISION = "2026-07-28"

    def __init__(self, address):
        self.http, self.last = Http(address), 0

    def call(self, name, arguments):
        self.last += 1
        prefix = "io.modelcontextprotocol/"
        meta = {
            f"{prefix}protocolVersion": self.REVISION,
            f"{prefix}clientInfo": {"name": "soak", "version": "1"},
            f"{prefix}clientCapabilities": {},
        }
        params = {"name": name, "arguments": arguments, "_meta": meta}
        headers = {"Mcp-Protocol-Version": self.REVISION, "Mcp-Method": "tools/call", "Mcp-Name": name}
        return {"jsonrpc": "2.0", "id": self.last, "method": "tools/call", "params": params}, headers

    def tool(self, name, **arguments):
        return result_of(self.answer(name, arguments))

    def answer(self, name, arguments):
        """What a call is answered with, whatever it is."""
        message, headers = self.call(name, arguments)
        answer, body = self.http.exchange("POST", "/mcp", message, headers)
        return answer_in(body, answer.headers["content-type"])

    def abandon(self, name, **arguments):
        """A call whose connection is lost, which cancels it."""
        self.http.abandon("/mcp", *self.call(name, arguments))

    def close(self):
        self.http.close()


class Stream:
    """A client of HTTP+SSE: messages go out on one connection and come in on another."""

    def __init__(self, address, receive_bytes=None):
        """The system chooses how many bytes wait to be read, unless `receive_bytes` says it."""
        self.http, self.last = Http(address), 0
        self.listening = http.client.HTTPConnection(address, timeout=SECONDS)
        if receive_bytes:
            self.listening.connect()
            self.listening.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.listening.request("GET", "/sse", headers={"Accept": "text/event-stream"})
        self.events = self.listening.getresponse()
        self.endpoint = self.event().split(address, 1)[-1]
        params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
        result_of(self.request("initialize", params))
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def event(self):
        while True:
            line = self.events.readline()
            if not line:
                raise Refused("the stream ended")
            if line.startswith(b"data:"):
                return line[5:].decode().strip()

    def post(self, message):
        answer, _ = self.http.exchange("POST", self.endpoint, message)
        if answer.status != 202:
            raise Refused(f"a message was answered with {answer.status}")

    def request(self, method, params):
        self.last += 1
        self.post({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params})
        while True:
            message = json.loads(self.event())
            if message.get("id") == self.last:
                return message

    def tool(self, name, **arguments):
        return result_of(self.request("tools/call", {"name": name, "arguments": arguments}))

    def abandon(self, name, **arguments):
        self.last += 1
        params = {"name": name, "arguments": arguments}
        self.post({"jsonrpc": "2.0", "id": self.last, "method": "tools/call", "params": params})
        self.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": self.last}})

    def close(self):
        # The reader of the answer has the socket, too.
        self.events.close()
        self.listening.close()
        self.http.close()
