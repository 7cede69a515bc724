#!/usr/bin/env python3
"""Kills any part of the product at any moment under clients that go on, and checks what each of them was told.

    chaos.py BINARY ROUNDS [SEED] [--below LEVEL CONFINED]

A server with its own worker and a second worker over TCP serve clients over stdio and HTTP, each with a session of its own;
or, as on a laptop, clients over stdio alone, whose fronts start the server. Every round kills or pauses one process: server, worker, launcher, the first process of a sandbox, something inside of it,
a front. What is killed is started again as an operator's process manager does. At the end the clients' history is held
against what ran, the files, and the log; and nothing may be left of any process, file or lock. Exits with 1 when a promise
was broken, and says where the history is kept.

`--below portable CONFINED` does the same at that level of isolation, on a product that a program starts which takes from it
what a container forbids.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "bench"), str(HERE.parent / "soak")]

import checker
import leftovers
from clients import GONE, Client, transport
from faults import Faults
from ground import Ground, Level, Stuck, poll
from history import History, seen

# After so many rounds everything is ended, checked and begun anew, so that what is kept stays small.
EPOCH_ROUNDS = 50
PROGRESS_SECONDS = 60
STOP_SECONDS = 120
FAR = {"place": "far"}
SERVED = (("stdio", None), ("stdio", FAR), ("requests", None), ("sessions", FAR))
ON_DEMAND = (("stdio", None), ("stdio", FAR), ("stdio", None))
# What a server may hold more once everybody has gone than it did before anybody came.
DESCRIPTORS_MORE = 2
# What is killed while the server's descriptors are watched.
HELD_THROUGH = ("init", "front", "worker", "front", "launcher")
SHOWN = 40


def say(text):
    print(f"chaos: {text}", file=sys.stderr, flush=True)


class Epoch:
    """One product from its first start to its last end, and what became of its clients."""

    def __init__(self, binary, root, level, seed, number, rounds, long):
        self.ground = Ground(binary, root, number % 2 == 1, level)
        self.random, self.seed = random.Random(f"{seed}/{number}"), f"{seed}/{number}"
        self.history, self.rounds, self.long = History(self.ground.root / "history.jsonl"), rounds, long
        self.clients, self.wrong, self.users = [], [], set()

    def run(self, progress):
        try:
            self.ground.start()
            self.play(progress)
            self.judge()
        except (Stuck, KeyError, subprocess.SubprocessError, *GONE) as failure:
            self.wrong.append(f"{type(failure).__name__}: {failure}")
        finally:
            for client in self.clients:
                client.stop()
            self.ground.remove()
        return self.wrong

    def play(self, progress):
        self.faults = Faults(self.ground, self.clients, self.history, self.random, self.long)
        self.enter()
        for _ in range(self.rounds):
            self.faults.round()
            self.users |= leftovers.users(self.ground)
            progress(1)
        self.leave()
        self.hold()
        self.wrong += self.faults.wrong

    def enter(self):
        """More clients, each of which has a session then."""
        kinds = ON_DEMAND if self.ground.on_demand else SERVED
        numbers = range(len(self.clients), len(self.clients) + len(kinds))
        come = [
            Client(number, kind, labels, self.ground, self.history, self.seed)
            for number, (kind, labels) in zip(numbers, kinds, strict=True)
        ]
        self.clients.extend(come)
        poll("every client has a session", lambda: all(client.session or client.failure for client in come))

    def leave(self):
        """Nothing is killed any more: whatever is open comes to its end, and all clients to theirs."""
        self.ground.wait_whole()
        for client in self.clients:
            client.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for client in self.clients:
            client.thread.join(max(0.1, deadline - time.monotonic()))
        self.wrong += [client.failure for client in self.clients if client.failure]
        stuck = [client.number for client in self.clients if client.thread.is_alive()]
        if stuck:
            raise Stuck(f"clients that did not come to an end: {stuck}")

    def hold(self):
        """That a server holds no descriptor of clients that came and went and of workers that were killed meanwhile."""
        server = self.ground.wait_serving()
        before = leftovers.rest(server)
        self.enter()
        for part in HELD_THROUGH:
            self.faults.round({part})
            self.users |= leftovers.users(self.ground)
        self.leave()
        if server != self.ground.wait_serving():
            self.wrong.append("the server ended of which nothing was killed but workers and clients")
            return
        grown = leftovers.settled(lambda: max(0, leftovers.descriptors(server) - before - DESCRIPTORS_MORE))
        if grown:
            self.wrong.append(f"the server holds {grown + DESCRIPTORS_MORE} more descriptors than before: "
                              f"{leftovers.what_is_open(server)}")

    def judge(self):
        """Holds everything against everything; first with the product alive, then once it has ended."""
        self.ask_again()
        files, runs = self.look_inside()
        sessions = {client.session for client in self.clients}
        places = {session: self.ground.place_of(session) for session in sessions}
        self.wrong += [f"the workspace of {session} is gone" for session, place in places.items() if place is None]
        self.wrong += leftovers.settled(lambda: list(leftovers.closed_sessions(self.ground, sessions)))
        places |= {session: place for client in self.clients for session, (place, _) in client.closed.items()}
        self.wrong += self.ground.end()
        verified = objection(self.ground, "audit", "verify")
        self.wrong += [verified] if verified else []
        records = records_of(self.ground.run("audit", "query", "--json"))
        self.wrong += leftovers.after_the_end(self.ground, self.users)
        history = self.history
        self.wrong += checker.violations(checker.Seen(history.calls, history.faults, runs, records, files, places))

    def ask_again(self):
        """Every task's end once more, of the server that is there now."""
        told = {}
        for call in self.history.calls:
            # What only reads is not kept.
            if call["answer"] and call["answer"]["task"] and call["tool"] != "fs_read":
                told.setdefault(call["client"], []).append(call["answer"]["task"])
        for client, tasks in told.items():
            with_it = transport(self.clients[client].kind)(self.ground)
            for task in list(dict.fromkeys(tasks))[-200:]:
                entry = self.history.call(client=client, tool="task_status", session=None, about=task)
                self.history.answered(entry, with_it.answer("task_status", {"task_id": task})["result"])
            with_it.close()

    def look_inside(self):
        """The files that clients wrote, and the tokens of programs that ran, as the sessions have them now."""
        files, runs = {}, {}
        for client in self.clients:
            with_it = transport(client.kind)(self.ground)
            # Of a session that is lost nobody was told yet who did not call since.
            for number in range(0 if self.ground.is_lost(client.session) else 3):
                path = f"f{number}.txt"
                result = with_it.answer("fs_read", {"session_id": client.session, "path": path})["result"]
                read = seen(result)
                # The first block is the file, and the second is about it.
                files[client.session, path] = result["content"][0]["text"] if read["code"] == "OK" else None
            with_it.close()
            ran = [*self.ground.ran_in(client.session), *(one for _, ran in client.closed.values() for one in ran)]
            for token, at in ran:
                runs.setdefault(token, []).append(at)
        return files, runs


def objection(ground, *arguments):
    """What is wrong by the word of a command; nothing when it succeeds."""
    done = ground.ask(*arguments)
    return None if done.returncode == 0 else f"{' '.join(arguments)}: {(done.stdout + done.stderr)[-600:]}"


def records_of(lines):
    """The records of tasks in a log, as the checker knows them."""
    found = []
    for line in lines.splitlines():
        record = json.loads(line)
        if not record["type"].startswith("task."):
            continue
        args = record.get("args") or {}
        token = (args.get("args") or [None])[0] or in_command(args.get("command"))
        at = datetime.fromisoformat(record["ts"]).timestamp()
        found.append(checker.Record(
            record["seq"], record["type"], record.get("task"), record.get("cites"), record.get("outcome"),
            record.get("code"), at, token,
        ))
    return found


def in_command(command):
    return command.split()[1] if isinstance(command, str) and command.startswith("echo ") else None


class Progress:
    """Says once a minute how far it is."""

    def __init__(self, rounds):
        self.rounds, self.done, self.began, self.said = rounds, 0, time.monotonic(), time.monotonic()

    def __call__(self, more):
        self.done += more
        now = time.monotonic()
        if now - self.said > PROGRESS_SECONDS:
            self.said = now
            say(f"{self.done} of {self.rounds} rounds after {now - self.began:.0f} s")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("rounds", type=int)
    parser.add_argument("seed", nargs="?")
    parser.add_argument("--below", nargs=2, metavar=("LEVEL", "CONFINED"), default=())
    return parser.parse_args()


def main():
    # Whoever gives up waiting leaves no process of ours.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    given = arguments()
    binary, rounds, level = os.path.abspath(given.binary), given.rounds, Level(*given.below)
    seed = given.seed or str(random.SystemRandom().randrange(1 << 32))
    say(f"{rounds} rounds at level {level.name} with seed {seed}")
    progress, wrong, made, calls, number = Progress(rounds), [], {}, 0, 0
    # Both kinds have their turn, however few rounds there are.
    at_once, long = min(EPOCH_ROUNDS, max(1, rounds // 2)), rounds > 2 * EPOCH_ROUNDS
    while rounds > 0 and not wrong:
        root = tempfile.mkdtemp(prefix="codegen-chaos-")
        epoch = Epoch(binary, root, level, seed, number, min(rounds, at_once), long)
        wrong = epoch.run(progress)
        for name, count in epoch.faults.made.items() if epoch.clients else ():
            made[name] = made.get(name, 0) + count
        calls += len(epoch.history.calls)
        rounds, number = rounds - at_once, number + 1
        if not wrong:
            shutil.rmtree(root)
    say(f"{calls} calls under {', '.join(f'{count} {name}' for name, count in made.items())}, {progress.done} rounds "
        f"in {time.monotonic() - progress.began:.0f} s")
    for line in wrong[:SHOWN]:
        say(f"BROKEN: {line}")
    if wrong:
        say(f"{len(wrong)} promises were broken with seed {seed}; history, log and files are kept in {root}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
