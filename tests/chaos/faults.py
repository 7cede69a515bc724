"""Faults, one a round: who is killed or paused is chosen by the seed, and so is the moment."""

import signal
import time

import processes
from ground import DEATH_SECONDS, FAR, PLACES, alive, poll

# How often each is chosen, of all.
WEIGHTS = {
    "server": 5, "worker": 3, "launcher": 2, "init": 3, "program": 2, "front": 3, "pause": 3, "nothing": 1, "disk": 1,
}
# Mended only when the name of a worker that lost its directory is given to another: in long runs alone.
LONG = {"disk"}
# Where a worker, a launcher or one of their children is chosen.
CHOSEN = ("embedded", "embedded", FAR)
# Until the next fault, at most: enough for some calls of each client.
MOMENT_SECONDS = 0.4
PAUSE_SECONDS = (0.05, 0.3, 1.0)
QUIET_SECONDS = 0.5
# How long a worker may be away that has lost its server, before it is started anew.
AWAY_SECONDS = 1


class Faults:
    """Makes one fault after the other, and sees to it that everything is mended in between."""

    def __init__(self, ground, clients, history, random, long):
        self.ground, self.clients, self.history, self.random = ground, clients, history, random
        self.all = set(WEIGHTS) if long else set(WEIGHTS) - LONG
        # Faults that are not mended yet, each with the lives that ended by it.
        self.open, self.lives = [], ground.wait_whole()
        self.stopped = ground.stopped
        self.wrong, self.made = [], dict.fromkeys(WEIGHTS, 0)

    def round(self, only=None):
        """Waits for a random moment, makes a fault, and waits until all is as it was."""
        time.sleep(self.random.random() * MOMENT_SECONDS)
        weights = {name: weight for name, weight in WEIGHTS.items() if name in (only or self.all)}
        name = self.random.choices(list(weights), list(weights.values()))[0]
        self.made[name] += getattr(self, name)()

    def killed(self, part, pid, **facts):
        """Kills a process, and waits for the end of all that lived by it; whether there was one to be killed."""
        if not pid:
            return False
        # The server may not know yet that a life is over.
        over = self.over(part, facts.get("place"))
        fault = self.history.fault(part, pid=pid, **facts)
        those = self.ground.kill(pid)
        if part == "disk":
            self.ground.lose_far()
        if part == "front":
            # A server that it started lives on for others.
            those = {pid: those[pid]} if pid in those else {}
        if self.random.random() < 0.2:
            # What restarts it may be slow.
            time.sleep(0.1)
        self.open.append((fault, over))
        self.mend()
        deadline = time.monotonic() + DEATH_SECONDS
        while (left := alive(those)) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.wrong += [f"process {one} ({command_of(one)}) outlived the {part} that it lived by" for one in left]
        return True

    def over(self, part, place):
        """The lives that end with what is killed."""
        if part == "server":
            return {self.lives.get("embedded")}
        return {self.lives.get(place)} if part in ("worker", "launcher", "disk") else set()

    def mend(self):
        """Waits until everything is as it was. A worker that waits for long before it tries to join again is begun anew."""
        deadline = time.monotonic() + AWAY_SECONDS

        def mended():
            if self.ground.stopped != self.stopped:
                # A front's server was told to make way for the operator's: what it served ended with it, and nothing
                # that was well while it was there is mended.
                self.stopped = self.ground.stopped
                for fault, _ in self.open:
                    fault["until"].clear()
                self.open.append((self.history.fault("server", pid=self.stopped, ordered=True), set()))
            lives = self.ground.whole(set().union(*(over for _, over in self.open)))
            self.lives |= lives
            for place in lives:
                for fault, _ in self.open:
                    self.history.mended(fault, place)
            if "embedded" in lives and FAR not in lives and time.monotonic() > deadline:
                self.anew()
            return set(lives) == set(PLACES)

        poll("the server and both workers are there", mended)
        self.open.clear()

    def anew(self):
        over = {self.lives.get(FAR)}
        pid = self.ground.worker(FAR)
        if pid and not any(fault["part"] in ("worker", "disk") and fault["place"] == FAR for fault, _ in self.open):
            self.open.append((self.history.fault("worker", pid=pid, place=FAR), over))
            self.ground.kill(pid)

    def server(self):
        return self.killed("server", self.ground.server())

    def worker(self):
        place = self.random.choice(CHOSEN)
        return self.killed("worker", self.ground.worker(place), place=place)

    def disk(self):
        """A worker with everything that it has: it comes back with an empty directory."""
        return self.killed("disk", self.ground.worker(FAR), place=FAR)

    def launcher(self):
        place = self.random.choice(CHOSEN)
        return self.killed("launcher", self.ground.launcher(place), place=place)

    def an_init(self):
        place = self.random.choice(CHOSEN)
        # Sessions are few and spares are many.
        inits = self.ground.inits(place)
        of_sessions = [one for one in inits if one[1]]
        return self.random.choice((of_sessions if self.random.random() < 0.8 else inits) or [(None, None)])

    def init(self):
        pid, session = self.an_init()
        return self.killed("init", pid, session=session)

    def program(self):
        """Anything below an init: an interpreter, a supervisor, a program."""
        init, session = self.an_init()
        below = processes.below(init)[1:] if init else []
        return self.killed("program", self.random.choice(below) if below else None, session=session)

    def front(self):
        """A client's front, which takes its unfinished calls with it."""
        there = [client for client in self.clients if client.kind == "stdio" and not client.stopping.is_set()]
        client = self.random.choice(there)
        return self.killed("front", client.front, client=client.number)

    def pause(self):
        """Stops a process for a while, which nobody may notice but by the time that it takes."""
        place = self.random.choice(CHOSEN)
        which = self.random.choice(("server", "worker", "launcher", "init"))
        ground = self.ground
        choose = {
            "server": ground.server,
            "worker": lambda: ground.worker(place),
            "launcher": lambda: ground.launcher(place),
            "init": lambda: self.an_init()[0],
        }
        pid = choose[which]()
        if not pid:
            return False
        fault = self.history.fault("pause", pid=pid, of=which, place=place)
        processes.send(pid, signal.SIGSTOP)
        time.sleep(self.random.choice(PAUSE_SECONDS))
        processes.send(pid, signal.SIGCONT)
        self.open.append((fault, set()))
        self.mend()
        return True

    def nothing(self):
        """A while in which nothing is killed, and so nothing may be lost."""
        time.sleep(QUIET_SECONDS)
        return True


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()[:120]
    except OSError:
        return "gone"
