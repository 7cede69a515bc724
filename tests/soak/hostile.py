"""Clients that mean harm: what their sessions use up, and what they send and do not read. Each is one round of an actor.

None of them may be answered with success where a limit was passed, and none may cost another anything.
"""

import json
import random
import socket
import time

import actors
import wire

# Each ends by a limit, by its own time or by being cut off, and none as a success.
# Its processes are told from others by this name, which those that it forks inherit.
FORKS_NAME = "forks-on"
FORKS = f"import ctypes, os\nctypes.CDLL(None).prctl(15, b'{FORKS_NAME}')\nwhile True:\n    try: os.fork()\n    except OSError: pass"
EATS = "a = []\nwhile True: a.append(bytearray(8 << 20))"
TALKS = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
FILLS = "while True: open('big', 'ab').write(bytes(8 << 20))"
DIES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
GREEDY = (FORKS, EATS, TALKS, FILLS, DIES)
SECONDS = 3
# Answers that nobody reads, in bytes, and so many that no pair of sockets holds them all.
UNREAD_BYTES, UNREAD_CALLS = 500_000, 200
# The same of a stream, of whose answers a connection may be owed a number. Where the machine is slow most are refusals, of
# which the socket of the server holds many; the client's own takes little.
STREAM_BYTES, STREAM_CALLS, STREAM_RECEIVE_BYTES = 30_000, 20_000, 64 << 10
SOCKET_SECONDS = 5
BROKEN = (b"{", b"[]", b'{"jsonrpc":"2.0"', b"\xff\xfe\x00", b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":7}', b"[" * 4000)


def greedy(address):
    """A session that uses up what it may, in a fresh interpreter or in a kernel."""
    client = wire.Requests(address)
    try:
        session = actors.session_of(client.tool("session_create"))
        more = random.choice(({}, {"kernel": "greedy"}))
        code = random.choice(GREEDY)
        try:
            client.tool("run_python", session_id=session, code=code, timeout_seconds=SECONDS, **more)
        except wire.Refused:
            pass
        else:
            raise actors.Failed(f"it was a success: {code!r}")
        client.tool("session_close", session_id=session)
    finally:
        client.close()


def connected(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=SOCKET_SECONDS)


def request(address, body, length=None):
    lines = {"Host": address, "Accept": wire.ACCEPT, "Content-Type": "application/json", "Mcp-Protocol-Version": "2025-11-25"}
    lines["Content-Length"] = length or len(body)
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body


def broken(address):
    """Bodies that are no message, each refused and none a success."""
    for body in BROKEN:
        with connected(address) as stream:
            stream.sendall(request(address, body))
            status = stream.recv(64).split(b" ")[1:2]
            if status not in ([b"400"], [b"413"], [b"415"], [b"422"], [b"404"]):
                raise actors.Failed(f"{body[:40]!r} was answered with {status}")


def slow(address):
    """A body that comes in drops, and never whole."""
    with connected(address) as stream:
        stream.sendall(request(address, b"{", length=1 << 16))
        for _ in range(10):
            stream.sendall(b" ")
            # The pace of a slow client, not a wait for anything.
            time.sleep(0.05)


def unread(address):
    """Calls whose answers nobody reads, one after the other on one connection, until it is full or cut off."""
    client = wire.Requests(address)
    echoes(client, UNREAD_BYTES)
    message, headers = client.call("echo", {"message": "x" * UNREAD_BYTES})
    client.close()
    body = json.dumps(message).encode()
    lines = {"Host": address, "Accept": wire.ACCEPT, "Content-Type": "application/json", "Content-Length": len(body), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with connected(address) as stream:
        stream.settimeout(1)
        try:
            for _ in range(UNREAD_CALLS):
                stream.sendall(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
        except OSError:
            return  # It is full, or was cut off: the server holds no more of it.
    raise actors.Failed(f"{UNREAD_CALLS} calls were taken of a client that reads no answer")


def echoes(client, size):
    """That answers are as large as they must be for it to matter that nobody reads them."""
    answered = client.tool("echo", message="x" * size)
    if len(answered["content"][0]["text"]) != size:
        raise actors.Failed(f"an echo of {size} bytes was answered with {answered}"[:400])


def unread_stream(address):
    """The same over HTTP+SSE: calls are posted, and the stream with their answers is not read."""
    client = wire.Stream(address, receive_bytes=STREAM_RECEIVE_BYTES)
    try:
        echoes(client, STREAM_BYTES)
        for _ in range(STREAM_CALLS):
            client.last += 1
            params = {"name": "echo", "arguments": {"message": "x" * STREAM_BYTES}}
            call = {"jsonrpc": "2.0", "id": client.last, "method": "tools/call", "params": params}
            answer, _ = client.http.exchange("POST", client.endpoint, call)
            if answer.status != 202:
                return
        raise actors.Failed(f"{STREAM_CALLS} calls were taken of a client that reads no answer")
    except OSError:
        pass  # It was cut off.
    finally:
        client.close()


def plays(address):
    """Every kind, by its name."""
    kinds = {"greedy": greedy, "broken": broken, "slow": slow, "unread": unread, "unread stream": unread_stream}
    return {name: (lambda play=play: play(address)) for name, play in kinds.items()}
