"""Carries packets between two interfaces, late and not all of them: what `tc netem` does, for kernels that lack it.

    relay.py NAME NAME      makes the interfaces, says `ready`, and goes on until standard input ends

A line of standard input says how it is from now on: the percentage that is lost, the delay and its jitter in milliseconds.
"""

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
PACKET_BYTES_MAX = 65536
# Packets on their way; further ones are lost, as in a router.
WAITING_MAX = 10_000


def interface(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def deliver(descriptor: int, packet: bytes) -> None:
    try:
        os.write(descriptor, packet)
    except OSError:
        pass  # The interface is down, or full.


def main() -> None:
    first, second = map(interface, sys.argv[1:3])
    other = {first: second, second: first}
    print("ready", flush=True)
    loss, delay, jitter = 0.0, 0.0, 0.0
    waiting: list[tuple[float, int, int, bytes]] = []
    number = itertools.count()
    while True:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([0, first, second], [], [], patience)
        if 0 in readable:
            line = os.read(0, 256)
            if not line:
                return
            loss, delay, jitter = (float(word) for word in line.decode().splitlines()[-1].split())
        for descriptor in (first, second):
            if descriptor not in readable:
                continue
            packet = os.read(descriptor, PACKET_BYTES_MAX)
            if random.uniform(0, 100) < loss or len(waiting) >= WAITING_MAX:
                continue
            due = time.monotonic() + max(0.0, delay + random.uniform(-jitter, jitter)) / 1000
            heapq.heappush(waiting, (due, next(number), other[descriptor], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, target, packet = heapq.heappop(waiting)
            deliver(target, packet)


main()
