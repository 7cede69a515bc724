"""Looks for a way to HOST through the proxy of another session, of which FACTS is known: each that leads there is printed."""

import ctypes
import os
import re
import socket
import urllib.error
import urllib.request

ADDRESSES = ["127.0.0.1", "127.0.0.2", "127.1.2.3", "0.0.0.0", "::1"]
libc = ctypes.CDLL(None, use_errno=True)


def ask(line, way):
    """Whether HOST answers a request on this connection, which says by what way it came."""
    with line:
        line.settimeout(60)
        try:
            line.sendall(f"GET http://{HOST}/{way} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            return line.recv(4096).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def connect(family, address, kind=socket.SOCK_STREAM):
    line = socket.socket(family, kind)
    try:
        line.connect(address)
        return line
    except OSError:
        line.close()
        return None


def leads(family, address, way):
    line = connect(family, address)
    return line is not None and ask(line, way)


def by_port(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return leads(family, (address, port), f"{address}-{port}")


def sockets():
    """Those that are known, and those that this session is told of."""
    seen = re.findall(r" (@\S+|/\S+)$", open("/proc/net/unix").read() + FACTS["tables"][2], re.MULTILINE)
    return {*FACTS["sockets"], *(name.replace("@", "\0") for name in seen)}


def by_environment():
    proxy = urllib.request.ProxyHandler({"http": FACTS["environment"]["HTTP_PROXY"]})
    try:
        return urllib.request.build_opener(proxy).open(f"http://{HOST}/environment", timeout=60).status == 200
    except OSError:
        return False


def by_descriptor(number):
    """A socket that was left open, connected or listening."""
    try:
        return ask(socket.socket(fileno=os.dup(number)), f"descriptor-{number}")
    except OSError:
        return False


def by_network_of(pid):
    """Enters the network of another process, and goes on from there."""
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    except OSError:
        return False
    return libc.setns(namespace, 0x40000000) == 0 and by_port("127.0.0.1", 3128)


for port in range(1, 1 << 16):
    if by_port("127.0.0.1", port):
        print("reached by port", port)
for address in ADDRESSES[1:]:
    for port in FACTS["ports"]:
        if by_port(address, port):
            print("reached by address", address, port)
for name in sorted(sockets()):
    if leads(socket.AF_UNIX, name, "socket"):
        print("reached by socket", repr(name))
if by_environment():
    print("reached by environment")
for number in sorted(int(name) for name in os.listdir("/proc/self/fd")):
    if number > 2 and by_descriptor(number):
        print("reached by descriptor", number)
for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
    if pid != os.getpid() and by_network_of(pid):
        print("reached by the network of", pid)
print("all ways were tried")
