"""To sockets: those that control the product, and the network of every family."""

import socket


def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as peer:
        peer.settimeout(2)
        peer.connect(address)
        if kind == socket.SOCK_DGRAM:
            peer.send(b"attacked")
        return f"connected to {address}"


@attack("connect to the control sockets of the product")
def _():
    return every([lambda n=n: connect(socket.AF_UNIX, f"{FACTS['state_dir']}/{n}.sock") for n in ("server", "control", "worker")])


@attack("connect to the control sockets by a short way to their directory")
def _():
    directory = os.open(FACTS["state_dir"], os.O_PATH)
    return every([lambda n=n: connect(socket.AF_UNIX, f"/proc/self/fd/{directory}/{n}.sock") for n in ("server", "control", "worker")])


@attack("connect to the control sockets of the machine")
def _():
    return every([lambda p=p: connect(socket.AF_UNIX, p) for p in ("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/systemd/private", "/run/dbus/system_bus_socket", "/dev/log")])


@attack("connect to the port of workers")
def _():
    return every([lambda a=a: connect(socket.AF_INET, (a, FACTS["grpc_port"])) for a in ("127.0.0.1", "0.0.0.0")])


@attack("read or write tokens, secrets, keys, records and locks of the server")
def _():
    def through_directory(path, touch):
        directory = os.open(FACTS["state_dir"], os.O_PATH)
        try:
            return touch(f"/proc/self/fd/{directory}/{os.path.relpath(path, FACTS['state_dir'])}")
        finally:
            os.close(directory)

    tries = [(p, t) for p in FACTS["state_files"] for t in (read, write)]
    direct = [lambda p=p, t=t: t(p) is not None and p for p, t in tries]
    return every(direct + [lambda p=p, t=t: through_directory(p, t) is not None and p for p, t in tries])


@attack("connect to a server on the host's loopback")
def _():
    return every([lambda: connect(socket.AF_INET, ("127.0.0.1", FACTS["tcp_port"])), lambda: connect(socket.AF_INET6, ("::ffff:127.0.0.1", FACTS["tcp_port"])), lambda: connect(socket.AF_INET6, ("::1", FACTS["tcp_port"]))])


@attack("connect to abstract sockets of the host")
def _():
    return every([lambda n=n: connect(socket.AF_UNIX, "\0" + n) for n in FACTS["abstract"]])


@attack("reach the metadata of a cloud, and the internet")
def _():
    addresses = [(socket.AF_INET, "169.254.169.254"), (socket.AF_INET, "192.0.2.1"), (socket.AF_INET, "1.1.1.1"), (socket.AF_INET6, "2001:db8::1"), (socket.AF_INET6, "fd00:ec2::254")]
    return every([lambda f=f, a=a, k=k: connect(f, (a, 80), k) for f, a in addresses for k in (socket.SOCK_STREAM, socket.SOCK_DGRAM)])


@attack("send datagrams to the host")
def _():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"attacked", ("127.0.0.1", FACTS["udp_port"]))
    # That it was sent says nothing where the session has a loopback of its own: the harness says whether it came.


@attack("resolve names")
def _():
    try:
        return socket.getaddrinfo("example.com", 80)
    except socket.gaierror as error:
        raise Stopped("EAI " + str(error.errno))


@attack("see addresses and routes of the host", unless="portable reduced")
def _():
    lines = read("/proc/net/route").splitlines()[1:] + [l for l in read("/proc/net/dev").splitlines()[2:] if not l.strip().startswith(b"lo:")]
    return lines


@attack("sockets of every other family")
def _():
    allowed = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6}

    def make(family, kind):
        with socket.socket(family, kind):
            return f"family {family}, kind {kind}"

    return every([lambda f=f, k=k: make(f, k) for f in range(64) if f not in allowed for k in (1, 2, 3, 4, 5, 6, 10)])


@attack("raw sockets, and those of protocols that load modules")
def _():
    def make(family, kind, protocol):
        with socket.socket(family, kind, protocol):
            return f"{family} {kind} {protocol}"

    kinds = [(socket.SOCK_RAW, p) for p in (1, 6, 255)] + [(6, 33), (5, 132), (1, 132), (2, 136), (10, 0x300), (3, 2)]
    return every([lambda f=f, k=k, p=p: make(f, k, p) for f in (socket.AF_INET, socket.AF_INET6) for k, p in kinds])


@attack("pairs of sockets of other families")
def _():
    return every([lambda f=f: socket.socketpair(f, socket.SOCK_STREAM) and f"family {f}" for f in range(64) if f != socket.AF_UNIX])


@attack("send datagrams, and descriptors with them, from an end of a pair")
def _():
    victim = FACTS.get("victim", {}).get("abstract")
    names = [name + "-datagram" for name in (*FACTS["abstract"], victim) if name]

    def send(kind, name, ancillary):
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        with one, other:
            one.sendmsg([b"attacked"], ancillary, socket.MSG_DONTWAIT, "\0" + name)
            return f"sent to {name}"

    descriptor = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, (0).to_bytes(4, "little"))]
    return every([lambda k=k, n=n, a=a: send(k, n, a) for k in (socket.SOCK_DGRAM, socket.SOCK_RAW) for n in names for a in ([], descriptor)])


@attack("sockets behind the filter, by io_uring")
def _():
    parameters = (ctypes.c_char * 120)()
    return syscall(425, 4, ctypes.byref(parameters)) + 1


@attack("change its own network")
def _():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        import fcntl

        # SIOCSIFFLAGS, SIOCSIFADDR, SIOCADDRT
        return every([lambda r=r: fcntl.ioctl(peer, r, b"lo".ljust(40, b"\0")) and hex(r) for r in (0x8914, 0x8916, 0x890B)])


main()
