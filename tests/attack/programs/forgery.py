"""To the product's own protocols: what a program writes where it should not."""

import fcntl
import socket
import struct

OWN = [int(n) for n in os.listdir("/proc/self/fd")]


def flood(descriptor, data):
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        for _ in range(64):
            os.write(descriptor, data)
    except OSError:
        pass


@attack("write events, results and frames into every descriptor")
def _():
    forged = [json.dumps(event).encode() for event in ({"exited": {"code": 0, "signal": None, "cpu_ms": 0, "memory_peak_bytes": 0, "leftovers_killed": 0}}, {"code": 0, "memory_peak_bytes": 1}, {"started": {"pid": 1}}, {"finished": {"result": "forged-by-a-program"}}, {"spare": {"pid": 1}})]
    frame = json.dumps({"mime": "text/plain"}).encode()
    forged += [struct.pack("!II", len(frame), 19) + frame + b"forged-by-a-program", b"\xff" * 4096, b"k", b"i", b"s", b"l", b"x", b"go"]
    for descriptor in OWN:
        if descriptor not in (0, 1, 2):
            for data in forged:
                flood(descriptor, data)
    # Whatever came of it, the harness sees it in the answer to this call and the next.


@attack("write into descriptors that are not open")
def _():
    return every([lambda n=n: os.write(n, b"{}") and f"wrote to {n}" for n in range(3, 1024) if n not in OWN and n not in map(int, os.listdir("/proc/self/fd"))])


@attack("read what is for others from every descriptor")
def _():
    def take(descriptor):
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        return os.read(descriptor, 65536)

    return every([lambda n=n: take(n) for n in OWN if n > 2])


@attack("be given descriptors by its guards")
def _():
    def ask(descriptor):
        with socket.socket(fileno=os.dup(descriptor)) as peer:
            peer.settimeout(0.2)
            for word in (b"s", b"l", b"g"):
                peer.send(word)
            try:
                return socket.recv_fds(peer, 4096, 16)[1]
            except TimeoutError:
                return None

    return every([lambda n=n: ask(n) for n in OWN if n > 2])


@attack("put a link in place of the directory that the product writes into")
def _():
    import shutil

    shutil.rmtree(".codegen", ignore_errors=True)
    os.symlink(FACTS["outside_dir"], ".codegen")
    # Afterwards the harness has the product keep a long output, which would be written there, and looks at what lies outside.


main()
