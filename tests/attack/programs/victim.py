"""A session that holds a secret in everything that it can hold one in, and goes on holding it: a kernel."""

import ctypes
import json
import os
import socket
import threading

SECRET = "sibling-secret"
LIBC = ctypes.CDLL(None, use_errno=True)
os.environ["SECRET"] = SECRET
KEPT = [SECRET.encode() * 1000]
KEY, NAME = 0x5EC2E7, "sibling-" + os.urandom(4).hex()
for directory in (".", "/tmp", "/dev/shm", os.environ.get("TMPDIR", "/tmp")):
    try:
        with open(directory + "/secret.txt", "w") as file:
            file.write(SECRET)
        os.chmod(directory + "/secret.txt", 0o666)
    except OSError:
        pass


def serve(listener):
    while True:
        peer, _ = listener.accept()
        peer.sendall(SECRET.encode())
        peer.close()


def listen(family, address):
    try:
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen()
    except OSError:
        return 0
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    KEPT.append(listener)
    return family == socket.AF_INET and listener.getsockname()[1]


port = listen(socket.AF_INET, ("0.0.0.0", 0))
listen(socket.AF_UNIX, "\0" + NAME)
listen(socket.AF_UNIX, "socket")
try:
    KEPT.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    KEPT[-1].bind("\0" + NAME + "-datagram")
except OSError:
    pass
x86 = os.uname().machine == "x86_64"
# What of this is denied here cannot be found either.
for number, *arguments in ((29 if x86 else 194, KEY, 4096, 0o1666), (68 if x86 else 186, KEY, 0o1666), (64 if x86 else 190, KEY, 1, 0o1666)):
    LIBC.syscall(number, *arguments)
LIBC.syscall(240 if x86 else 180, NAME.encode(), 0o102, 0o666, None)
print(json.dumps({"port": port or 1, "abstract": NAME, "key": KEY, "pid": os.getpid()}))
