"""To the kernel: every call that is denied, and every file by which it is told something."""

X86 = os.uname().machine == "x86_64"


def denied(number, arguments, answer):
    def action():
        try:
            result = syscall(number, *arguments)
        except OSError as error:
            if errno.errorcode.get(error.errno) == answer:
                raise
            return f"stopped by {how_of(error)} instead of {answer}"
        return f"gave {result}"

    return action


for call, number, arguments, answer in FACTS["denied"]:
    attack(f"call {call}")(denied(number, arguments, answer))


@attack("call by the numbers of another architecture")
def _():
    import mmap

    if not X86:
        raise Stopped("this processor has no other")
    # mov eax, 20 (getpid of i386); int 0x80; ret
    code = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()


@attack("call by the numbers of x32, and those of the future")
def _():
    return every([lambda n=n: syscall(n, 0, 0, 0) + 1 for n in (0x40000000 + 39, 0x40000000 + 2, 470, 600, 1000, -1)])


@attack("write anything in /proc/sys and /sys")
def _():
    writable = []
    for top in ("/proc/sys", "/sys"):
        for directory, _, names in os.walk(top):
            for name in names:
                try:
                    os.close(os.open(os.path.join(directory, name), os.O_WRONLY | os.O_NONBLOCK))
                    writable.append(os.path.join(directory, name))
                except OSError:
                    pass
    return writable[:5]


@attack("read the kernel's memory, messages and addresses")
def _():
    def addresses():
        return any(int(line.split()[0], 16) for line in read("/proc/kallsyms").splitlines()[:20]) and "addresses"

    places = ("/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/proc/vmallocinfo", "/sys/kernel/debug", "/proc/1/stack", "/proc/iomem")

    def told(place):
        data = read(place)
        # What names no address but zero tells nothing.
        return place != "/proc/iomem" and data or any(int(line.split(b"-")[0], 16) for line in data.splitlines()) and data

    return every([addresses, *[lambda p=p: told(p) for p in places]])


@attack("trigger what the machine does")
def _():
    return every([lambda p=p: write(p, b"h") for p in ("/proc/sysrq-trigger", "/sys/power/state", "/proc/sys/vm/drop_caches", "/proc/acpi/wakeup", "/proc/irq/0/smp_affinity", "/proc/mtrr")])


@attack("map other ids into its user namespace")
def _():
    return every([lambda p=p, t=t: write(f"/proc/{p}/{t}", b"0 0 1\n") for p in ("self", GUARD, 1) for t in ("uid_map", "gid_map", "projid_map")] + [lambda: write("/proc/self/setgroups", b"allow")])


@attack("open devices")
def _():
    harmless = {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm"}
    return every([lambda n=n: os.open("/dev/" + n, os.O_RDWR | os.O_NONBLOCK) and n for n in set(os.listdir("/dev")) | {"kvm", "fuse", "net/tun", "vhost-net", "loop-control", "sda", "vda", "tty", "ptmx", "console"} if n not in harmless])


main()
