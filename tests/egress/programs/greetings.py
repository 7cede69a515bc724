"""Greetings of TLS clients, honest and not, each said in a tunnel of its own: a line for each says whether it passed.

NAMED and ADDRESSED are hosts that repeat what they hear: one that has a name, and one that has an address alone.
"""

import socket
import ssl

ALERT = bytes.fromhex("15030300020270")
RECORD_BYTES_MAX = 1 << 14


def greeting(name):
    """What a TLS client says first to a host of this name; without a name, to none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    said = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return said.read()


def in_records(message, size):
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def with_extension(hello, kind, body):
    """The same greeting with one more extension at its end."""
    message = hello[5:]
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + int.from_bytes(message[at : at + 2], "big")
    at += 1 + message[at]
    extensions = message[at + 2 :] + kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
    rest = message[4:at] + len(extensions).to_bytes(2, "big") + extensions
    return in_records(message[:1] + len(rest).to_bytes(3, "big") + rest, RECORD_BYTES_MAX)


def names(*those):
    """An extension that names several hosts."""
    listed = b"".join(b"\0" + len(name).to_bytes(2, "big") + name.encode() for name in those)
    return len(listed).to_bytes(2, "big") + listed


def tunnel(host):
    line = socket.create_connection(("127.0.0.1", 3128), timeout=60)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.sendall(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += line.recv(1)
    assert b" 200 " in head, head
    return line


def say(host, said, piece=None):
    """What becomes of these bytes in a tunnel, said in pieces of so many."""
    with tunnel(host) as line:
        heard = b""
        try:
            for at in range(0, len(said), piece or len(said)):
                line.sendall(said[at : at + (piece or len(said))])
            line.shutdown(socket.SHUT_WR)
            while more := line.recv(65536):
                heard += more
        except TimeoutError:
            return "late"
        except OSError:
            # Whoever still speaks when it is refused may miss why.
            return "broken off" if heard in (b"", ALERT) else f"cut: {heard[:20]}"
        return {said: "passed", ALERT: "refused"}.get(heard, f"neither: {heard[:20]}")


HOST = NAMED.rsplit(":", 1)[0]
right, other, nameless = greeting(HOST), greeting("other.example"), greeting(None)
closing = b"\x15\x03\x03\x00\x02\x01\x00"
# Records of a greeting that claims to be far longer than any, and is never whole.
endless = in_records(b"\x01\x00\xff\xf0" + bytes(60_000), 100)
for what, host, said, piece in [
    ("the right name", NAMED, right, None),
    ("the right name in capitals", NAMED, greeting(HOST.upper()), None),
    ("the right name byte by byte", NAMED, right, 1),
    ("the right name in many records", NAMED, in_records(right[5:], 7), None),
    ("20,000 further bytes", NAMED, with_extension(right, 0xFAFA, bytes(20_000)), None),
    ("no TLS", NAMED, b"SSH-2.0-session\r\n", None),
    ("an address without a name", ADDRESSED, nameless, None),
    ("another name", NAMED, other, None),
    ("another name byte by byte", NAMED, other, 1),
    ("another name in many records", NAMED, in_records(other[5:], 7), None),
    ("no name", NAMED, nameless, None),
    ("no name byte by byte", NAMED, nameless, 1),
    ("two names", NAMED, with_extension(nameless, 0, names(HOST, "other.example")), None),
    ("the name of a name below", NAMED, greeting("other." + HOST), None),
    ("a name twice", NAMED, with_extension(right, 0, names("other.example")), None),
    ("a name for an address", ADDRESSED, other, None),
    ("a greeting that ends too soon", NAMED, right[:-1], None),
    ("an alert before a greeting", NAMED, closing + right, None),
    ("40,000 further bytes", NAMED, with_extension(right, 0xFAFA, bytes(40_000)), None),
    ("a greeting without end", NAMED, endless, None),
]:
    print(f"{what}: {say(host, said, piece)}")
