"""Installs the peers below a cache directory, pinned; one that cannot be had is named with the reason."""

import shutil
import subprocess
from pathlib import Path

from contenders import Missing

HERE = Path(__file__).resolve().parent
FILESYSTEM = "@modelcontextprotocol/server-filesystem@2026.8.31"
DOCKER_IMAGE = "python:3.11-slim"
INSTALL_SECONDS = 300


def run(*command, seconds=INSTALL_SECONDS):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)[:160]) from error
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise Missing(f"{Path(command[0]).name}: {last[:160]}")
    return done.stdout.strip()


def jupyter_python(cache):
    """An interpreter with ipykernel."""
    return run(str(HERE.parent / "setup"), str(cache), "jupyter", "-r", str(HERE / "requirements.txt"))


def filesystem_script(cache):
    """Node and the script of the file system server from npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise Missing("there is no node with npm")
    directory = cache / FILESYSTEM.rsplit("@", 1)[1]
    script = directory / "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js"
    if not script.exists():
        directory.mkdir(parents=True, exist_ok=True)
        run(npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(directory), FILESYSTEM)
    return node, script


class Docker:
    """A container with Python that idles, for `docker exec`; only where an engine answers and has the image."""

    def __init__(self):
        docker = shutil.which("docker")
        if not docker:
            raise Missing("there is no docker")
        try:
            run(docker, "version", "--format", "{{.Server.Version}}", seconds=20)
        except Missing as error:
            raise Missing("no Docker engine answers") from error
        self.docker = docker
        self.container = run(docker, "run", "--rm", "--detach", DOCKER_IMAGE, "sleep", "3600").splitlines()[-1]

    def command(self):
        return [self.docker, "exec", self.container, "python3", "-c", "pass"]

    def close(self):
        subprocess.run([self.docker, "rm", "--force", self.container], capture_output=True, timeout=60)
