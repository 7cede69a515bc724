"""Installs the peers below a cache directory, pinned; one that cannot be had is named with the reason."""

import glob
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
from pathlib import Path

import processes
from contenders import Missing

HERE = Path(__file__).resolve().parent
FILESYSTEM = "@modelcontextprotocol/server-filesystem@2026.8.31"
DOCKER_IMAGE = "python:3.11-slim"
INSTALL_SECONDS = 300
ENGINE_SECONDS = 30


def run(*command, seconds=INSTALL_SECONDS, env=None):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)[:160]) from error
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise Missing(f"{Path(command[0]).name}: {last[:160]}")
    return done.stdout.strip()


def jupyter_python(cache):
    """An interpreter with ipykernel."""
    return run(str(HERE.parent / "setup"), str(cache), "jupyter", "-r", str(HERE / "requirements.txt"))


def sdk_python(cache):
    """An interpreter with the Python SDK of the protocol."""
    return run(str(HERE.parent / "setup"), str(cache), "sdk", "-r", str(HERE / "requirements-sdk.txt"))


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
    """A container with Python that idles, for `docker exec`: of the engine that answers and has the image, else of one
    that the bench starts for itself, where it is root and dockerd is there."""

    def __init__(self, scratch):
        docker = shutil.which("docker")
        if not docker:
            raise Missing("there is no docker")
        self.docker, self.engine = [docker], None
        try:
            run(*self.docker, "image", "inspect", "--format", "{{.Id}}", DOCKER_IMAGE, seconds=20)
            image = DOCKER_IMAGE
        except Missing:
            self.engine = Engine(scratch / "docker")
            self.docker = [docker, "--host", self.engine.host]
        try:
            if self.engine:
                image = self.engine.image(self.docker)
            idle = ["python3", "-c", "import time; time.sleep(3600)"]
            run_idle = ["run", "--rm", "--detach", "--network", "none", image, *idle]
            self.container = run(*self.docker, *run_idle).splitlines()[-1]
        except Missing:
            self.end_engine()
            raise

    def command(self):
        return [*self.docker, "exec", self.container, "python3", "-c", "pass"]

    def close(self):
        subprocess.run([*self.docker, "rm", "--force", self.container], capture_output=True, timeout=60)
        self.end_engine()

    def end_engine(self):
        if self.engine:
            self.engine.close()


class Engine:
    """A Docker engine of the bench's own, without networks; everything of it is below one directory."""

    def __init__(self, directory):
        dockerd = shutil.which("dockerd")
        if not dockerd or os.geteuid() != 0:
            raise Missing("no Docker engine answers, and none can be started here")
        directory.mkdir()
        self.directory, self.host = directory, f"unix://{directory}/docker.sock"
        command = [dockerd, "--bridge=none", "--iptables=false", "--ip6tables=false", "--host", self.host]
        for option, name in (("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")):
            command += [option, str(directory / name)]
        with open(directory / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + ENGINE_SECONDS
        while not (directory / "docker.sock").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                last = (directory / "log").read_text(errors="replace").strip().splitlines() or ["no word"]
                raise Missing(f"dockerd does not start: {last[-1][:160]}")
            time.sleep(0.05)

    def image(self, docker):
        """An image of this machine's own Python: the interpreter, its libraries, and nothing else."""
        python = os.path.realpath(sys._base_executable)
        stdlib = sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix})
        extensions = glob.glob(f"{stdlib}/lib-dynload/*.so")
        words = " ".join(run("ldd", python, *extensions).split()).split(" ")
        libraries = sorted({word for word in words if word.startswith("/") and not word.endswith(":")})
        archive = self.directory / "image.tar"
        with tarfile.open(archive, "w", dereference=True) as tar:
            for path in (python, *libraries):
                tar.add(path)
            tar.add(stdlib, filter=lambda entry: None if "/site-packages" in entry.name else entry)
            tar.add(python, "usr/bin/python3")
        change = f"ENV PYTHONHOME={sys.base_prefix}"
        run(*docker, "import", "--change", change, str(archive), "bench-python")
        archive.unlink()
        return "bench-python"

    def close(self):
        """Ends the engine with everything below it, by process id, and lets go of what it left mounted."""
        processes.end(self.process.pid)
        self.process.wait(20)
        mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for place in reversed([place for place in mounted if place.startswith(f"{self.directory}/")]):
            subprocess.run(["umount", "--lazy", place], capture_output=True, timeout=20)
