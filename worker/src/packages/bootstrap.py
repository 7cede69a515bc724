"""Runs pip for one installation, with connections that the worker makes.

Started by `python -I -c`: neither the workspace nor `PYTHON*` variables nor packages of the user have a part in what is
imported here. Descriptors: 3 is a SOCK_SEQPACKET socket to the worker, 4 the job (JSON), 5 certificates if there are any,
6 pip itself as a wheel if the host has none installed.

The worker trusts nothing that is said here: it decides about every connection, and checks the report.
"""

import ctypes
import fcntl
import json
import os
import site
import socket
import sys
import threading

CHANNEL_FD, JOB_FD, CERTIFICATES_FD, WHEEL_FD = 3, 4, 5, 6
PR_SET_DUMPABLE = 4
REPORT_BYTES_MAX = 60_000


class Nothing:
    """Finds no module, so that what is installed in the session is seen as metadata and never imported here."""

    def find_spec(self, name, target=None):
        return None

    def invalidate_caches(self):
        pass


class Channel:
    """Asks the worker for connections, one question at a time."""

    def __init__(self):
        self.socket = socket.socket(fileno=CHANNEL_FD)
        self.lock = threading.Lock()

    def connect(self, host, port):
        with self.lock:
            question = {"connect": {"host": host, "port": port}}
            self.socket.send(json.dumps(question).encode())
            data, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 1)
        answer = json.loads(data) if data else {"refused": "the worker is gone"}
        if "refused" in answer or len(descriptors) != 1:
            raise ConnectionRefusedError(answer.get("refused", "the worker gave no connection"))
        return socket.socket(fileno=descriptors[0])

    def report(self, report):
        text = json.dumps({"report": report}).encode()
        if len(text) <= REPORT_BYTES_MAX:
            self.socket.send(text)


def main():
    # Other programs of the session have the same user id; they must not reach into this one, which has the channel.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    with open(JOB_FD, "rb") as file:
        job = json.load(file)
    for descriptor in (CHANNEL_FD, CERTIFICATES_FD, WHEEL_FD):
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            pass
    if job["wheel"]:
        sys.path.insert(0, job["wheel"])
    packages = show_packages_of_the_session()
    # One installation of a session at a time; the lock goes with the process.
    lock = os.open(os.path.join(os.environ["PYTHONUSERBASE"], ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    channel = Channel()
    before = versions([packages])
    status = run_pip(channel, job["args"])
    after = versions([packages])
    everything = versions(sys.path)
    channel.report({
        "installed": [[name, version] for name, version in sorted(after.items()) if before.get(name) != version],
        "present": [
            [name, everything[name]] for name in job["names"]
            if name in everything and (name not in after or before.get(name) == after[name])
        ],
    })
    sys.exit(status)


def show_packages_of_the_session():
    """Puts the session's packages where the interpreter has them: before those of the host, for their metadata alone."""
    directory = site.getusersitepackages()
    os.makedirs(directory, exist_ok=True)
    hosts = site.getsitepackages()
    place = min((sys.path.index(path) for path in hosts if path in sys.path), default=len(sys.path))
    sys.path.insert(place, directory)
    sys.path_importer_cache[directory] = Nothing()
    return directory


def versions(path):
    from importlib.metadata import distributions

    found = {}
    for distribution in distributions(path=path):
        try:
            name, version = distribution.metadata["Name"], distribution.version
        except Exception:
            continue
        if isinstance(name, str) and isinstance(version, str):
            found.setdefault(canonical(name), version)
    return found


def canonical(name):
    return "-".join(part for part in name.lower().replace("_", "-").replace(".", "-").split("-") if part)


def run_pip(channel, arguments):
    from pip._internal.cli import cmdoptions
    from pip._internal.cli.main import main as pip
    from pip._internal.commands import install
    from pip._vendor.urllib3.util import connection

    def create_connection(address, timeout=None, *_, **__):
        stream = channel.connect(address[0].strip("[]"), int(address[1]))
        stream.settimeout(timeout if isinstance(timeout, (int, float)) else None)
        return stream

    connection.create_connection = socket.create_connection = create_connection
    # The packages of a session lie outside any virtual environment that the host's interpreter may belong to.
    install.virtualenv_no_global = lambda: False
    command, rest = arguments[0], arguments[1:]
    if hasattr(cmdoptions, "override_externally_managed"):
        rest = ["--break-system-packages", *rest]
    try:
        return pip([command, *rest])
    except SystemExit as leaving:
        return leaving.code


main()
