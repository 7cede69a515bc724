"""Runs pip for one installation, with connections that the worker makes.

Started by `python -I -c`: neither the workspace nor `PYTHON*` variables nor packages of the user have a part in what is
imported here. Descriptors: 3 is a SOCK_SEQPACKET socket to the worker, 4 the job (JSON), 5 certificates if there are any,
6 a file for pip itself as a wheel if the host has none: with it in there, or empty until it was fetched.

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
PAGE_BYTES_MAX = 8 << 20
REDIRECTS_MAX = 5
FETCH_TIMEOUT = 60


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
    channel = Channel()
    if job["fetch"]:
        fetch_pip(channel, job["fetch"])
    if job["wheel"]:
        sys.path.insert(0, job["wheel"])
    packages = show_packages_of_the_session()
    # One installation of a session at a time; the lock goes with the process.
    lock = os.open(os.path.join(os.environ["PYTHONUSERBASE"], ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
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


def fetch_pip(channel, wanted):
    """Puts the one wheel of pip that the worker knows into the file that it gave; whoever serves it, the digest decides."""
    import hashlib
    import http.client

    try:
        url, page = fetch(channel, wanted["page"], PAGE_BYTES_MAX, wanted["certificates"])
        link = find_link(url, page.decode("utf-8", "replace"), wanted["file"])
        if link is None:
            sys.exit(f"the index has no {wanted['file']}")
        _, wheel = fetch(channel, link, wanted["bytes"], wanted["certificates"])
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.exit(f"{wanted['file']} could not be fetched: {error}")
    digest = hashlib.sha256(wheel).hexdigest()
    if digest != wanted["sha256"]:
        sys.exit(f"{wanted['file']} is not what it should be and was not used: its SHA-256 is {digest}, not {wanted['sha256']}")
    written = 0
    while written < len(wheel):
        written += os.pwrite(WHEEL_FD, wheel[written:], written)


def fetch(channel, url, bytes_max, certificates):
    """What a URL leads to, and where that is in the end."""
    from urllib.parse import urljoin, urlsplit

    for _ in range(REDIRECTS_MAX + 1):
        parts = urlsplit(url)
        connection = connect(channel, parts, certificates)
        path = parts.path or "/"
        connection.request("GET", f"{path}?{parts.query}" if parts.query else path, headers={"Accept": "text/html"})
        answer = connection.getresponse()
        place = answer.getheader("Location")
        if answer.status in (301, 302, 303, 307, 308) and place:
            connection.close()
            url = urljoin(url, place)
            continue
        if answer.status != 200:
            raise ValueError(f"{parts.hostname} answered {answer.status}")
        body = answer.read(bytes_max + 1)
        connection.close()
        if len(body) > bytes_max:
            raise ValueError(f"{parts.hostname} gave more than {bytes_max} bytes")
        return url, body
    raise ValueError("too many redirects")


def connect(channel, parts, certificates):
    import http.client
    import ssl

    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("its address is none of http or https")
    connection = http.client.HTTPConnection(parts.netloc.rpartition("@")[2])
    stream = channel.connect(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    stream.settimeout(FETCH_TIMEOUT)
    if parts.scheme == "https":
        # Where the host names no certificates, those that pip would bring are what is being fetched. What comes is public,
        # and is used only when its digest is the one that the worker knows.
        context = ssl.create_default_context(cafile=certificates) if certificates else ssl._create_unverified_context()
        stream = context.wrap_socket(stream, server_hostname=parts.hostname)
    connection.sock = stream
    return connection


def find_link(url, page, file):
    """The address of a file on a page of an index (PEP 503)."""
    from html.parser import HTMLParser
    from urllib.parse import unquote, urldefrag, urljoin, urlsplit

    found = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attributes):
            target = dict(attributes).get("href") if tag == "a" else None
            if target and unquote(urlsplit(target).path).rpartition("/")[2] == file:
                found.append(urldefrag(urljoin(url, target)).url)

    Links().feed(page)
    return found[0] if found else None


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


def install_wheels_only():
    """What an index offers is picked by `--only-binary`; the metadata of a wheel can name archives, directories and
    repositories besides, which pip would build, and so run."""
    from pip._internal.exceptions import InstallationError
    from pip._internal.resolution.resolvelib.factory import Factory

    def guarded(make):
        def make_from_wheel(self, *args, **named):
            link = named["link"] if "link" in named else args[0]
            if link.is_vcs or not link.is_wheel:
                raise InstallationError(f"{link.filename} is no wheel, and only wheels are installed")
            return make(self, *args, **named)

        return make_from_wheel

    names = [name for name in ("_make_base_candidate_from_link", "_make_candidate_from_link") if hasattr(Factory, name)]
    if not names:
        sys.exit("this release of pip cannot be held to wheels; nothing was installed")
    for name in names:
        setattr(Factory, name, guarded(getattr(Factory, name)))


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
    # Newer releases refuse `--user` when the interpreter itself was told to leave those packages out.
    site.ENABLE_USER_SITE = True
    install_wheels_only()
    command, rest = arguments[0], arguments[1:]
    if hasattr(cmdoptions, "override_externally_managed"):
        rest = ["--break-system-packages", *rest]
    try:
        return pip([command, *rest])
    except SystemExit as leaving:
        return leaving.code


main()
