"""To another session, which holds a secret in everything that it can hold one in: see victim.py."""

import socket

VICTIM = FACTS["victim"]
MARK = b"sibling-" + b"secret"


def find(data):
    return MARK in data and data


@attack("read its workspace")
def _():
    return every([lambda p=p: read(p) for p in (VICTIM["workspace"] + "/secret.txt", f"/workspace/../{VICTIM['id']}/secret.txt", "secret.txt")])


@attack("list its workspace")
def _():
    return os.listdir(VICTIM["workspace"])


@attack("write into its workspace")
def _():
    return os.open(VICTIM["workspace"] + "/planted", os.O_CREAT | os.O_WRONLY)


@attack("find its files in /tmp and /dev/shm")
def _():
    def look(directory):
        return every([lambda n=n: find(read(os.path.join(directory, n))) for n in os.listdir(directory)])

    return every([lambda d=d: look(d) for d in ("/tmp", "/dev/shm", "/var/tmp", os.environ.get("TMPDIR", "/tmp"))])


@attack("see its processes, or read their environment and memory")
def _():
    def look(pid):
        parts = [lambda n=n: find(read(f"/proc/{pid}/{n}", 65536)) for n in ("environ", "cmdline", "comm", "maps", "stack", "syscall")]
        parts.append(lambda: find("".join(os.listdir(f"/proc/{pid}/cwd")).encode()))
        return every(parts)

    own = str(os.getpid())
    return every([lambda p=p: look(p) for p in os.listdir("/proc") if p.isdigit() and p != own])


@attack("signal its processes")
def _():
    return every([lambda p=p: os.kill(p, 0) or f"signalled {p}" for p in VICTIM["pids"] if p != os.getpid()])


@attack("connect to its server on loopback")
def _():
    with socket.create_connection(("127.0.0.1", VICTIM["port"]), timeout=2) as peer:
        return find(peer.recv(64))


@attack("connect to its sockets by path and by abstract name")
def _():
    def connect(name):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(2)
            peer.connect(name)
            return find(peer.recv(64)) or "connected"

    return every([lambda n=n: connect(n) for n in (VICTIM["workspace"] + "/socket", "\0" + VICTIM["abstract"], VICTIM["abstract"])])


@attack("find its shared memory, queues and semaphores of System V")
def _():
    x86 = os.uname().machine == "x86_64"
    shmget, msgget, semget = (29, 68, 64) if x86 else (194, 186, 190)
    key = VICTIM["key"]
    return every([lambda: syscall(shmget, key, 0, 0) + 1, lambda: syscall(msgget, key, 0) + 1, lambda: syscall(semget, key, 0, 0) + 1])


@attack("open its POSIX queue")
def _():
    number = 240 if os.uname().machine == "x86_64" else 180
    return syscall(number, VICTIM["abstract"].encode(), 0, 0, 0)


@attack("find what it keeps as keys of the kernel")
def _():
    x86 = os.uname().machine == "x86_64"
    return syscall(249 if x86 else 218, b"user", VICTIM["abstract"].encode(), 0, 0)


main()
