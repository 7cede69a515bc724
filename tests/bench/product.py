"""The product: one installation with a state directory of its own, everything switched on as users have it."""

import os
import time
from contextlib import contextmanager

import processes
from lines import Broken, LineServer

# More than the sessions that the bench makes, in place of the default of 64.
SESSIONS_MAX = 256


class Product:
    def __init__(self, binary, state_dir):
        self.binary, self.state_dir = str(binary), state_dir
        # A port that the system chooses, so that a server of the user's own is not disturbed.
        self.env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(state_dir.parent),
            "GRPC_PORT": "0",
            "MAX_SESSIONS": str(SESSIONS_MAX),
        }

    def front(self):
        """Launches a front; the first one starts the server."""
        return LineServer([self.binary, "--state-dir", str(self.state_dir)], self.env)

    def client(self):
        return self.front().greet()

    def server(self):
        pid = processes.listener(self.state_dir / "server.sock")
        if pid is None:
            raise Broken("no server listens")
        return pid

    def stop(self):
        pid = processes.listener(self.state_dir / "server.sock")
        if pid is not None and not processes.end(pid):
            raise Broken("the server did not end after SIGTERM")

    @contextmanager
    def running(self):
        client = self.client()
        try:
            yield client
        finally:
            client.close()
            self.stop()


def started_seconds(product):
    """From launching a front to `initialize` answered."""
    start = time.perf_counter()
    client = product.front()
    client.greet()
    seconds = time.perf_counter() - start
    return client, seconds
