#!/usr/bin/env python3
"""Verifies an audit log of CodeGen-MCP without any of its code, by what README.md beside this file says.

Needs Python 3.9 or later and nothing else. Exit codes: 0 whole, 10 tampered, 11 cut after a checkpoint, 12 torn tail,
13 unreadable. It does not ask whether a server is writing the log just now; let it stop first, or copy the directory.
"""

import argparse
import base64
import hashlib
import json
import pathlib
import re
import sys

WHOLE, TAMPERED, CUT, TORN, UNREADABLE = 0, 10, 11, 12, 13
RECORD_BYTES_MAX = 64 * 1024
ORIGIN = "codegen-mcp/audit/"
HASH_SUFFIX = re.compile(rb',"hash":"([0-9a-f]{64})"}\Z')


class Verdict(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


# --- Ed25519 as in RFC 8032, section 6, verification only -------------------------------------------------------------

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
I = pow(2, (P - 1) // 4, P)


def point_add(a, b):
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    s, u = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    v, w = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = u - s, w - v, w + v, u + s
    return e * f % P, g * h % P, f * g % P, e * h % P


def point_mul(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = point_add(result, point)
        point = point_add(point, point)
        scalar >>= 1
    return result


def point_decode(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if x2 == 0:
        return None if sign else (0, y, 1, 0)
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * I % P
    if (x * x - x2) % P:
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = point_decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_verify(key, message, signature):
    a, r, s = point_decode(key), point_decode(signature[:32]), int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or a is None or r is None or s >= Q:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % Q
    left, right = point_mul(s, BASE), point_add(r, point_mul(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# --- The Merkle tree of RFC 6962 over the record lines ----------------------------------------------------------------


class Frontier:
    """The roots of the full subtrees so far, largest first."""

    def __init__(self, size=0, roots=()):
        self.size, self.roots = size, list(roots)

    def push(self, line):
        carried, rest = hashlib.sha256(b"\0" + line).digest(), self.size
        while rest & 1:
            carried = hashlib.sha256(b"\1" + self.roots.pop() + carried).digest()
            rest >>= 1
        self.roots.append(carried)
        self.size += 1

    def root(self):
        if not self.roots:
            return hashlib.sha256(b"").digest()
        result = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            result = hashlib.sha256(b"\1" + left + result).digest()
        return result


# --- Checkpoints: C2SP signed notes -----------------------------------------------------------------------------------


def read_key(path):
    name, key_id, data = path.read_text().strip().split("+", 2)
    key = base64.b64decode(data, validate=True)
    expected = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
    if key[:1] != b"\x01" or len(key) != 33 or bytes.fromhex(key_id) != expected or not name.startswith(ORIGIN):
        raise ValueError("not an Ed25519 key of an audit log")
    return name, expected, key[1:]


def read_checkpoint(path, key):
    name, key_id, public = key
    text, _, signatures = path.read_text().rpartition("\n\n")
    text += "\n"
    for line in signatures.splitlines():
        dash, signer, data = line.split(" ")
        data = base64.b64decode(data, validate=True)
        if dash == "\u2014" and signer == name and data[:4] == key_id:
            if ed25519_verify(public, text.encode(), data[4:]):
                break
            raise ValueError("the signature is not that of the key")
    else:
        raise ValueError("it is not signed by the key")
    origin, size, root, head, frontier, _time = text.splitlines()
    if origin != name or not head.startswith("head ") or not frontier.startswith("frontier "):
        raise ValueError("it is no checkpoint of this log")
    roots = base64.b64decode(frontier[9:], validate=True)
    tree = Frontier(int(size), [roots[at : at + 32] for at in range(0, len(roots), 32)])
    if len(tree.roots) != bin(tree.size).count("1") or tree.root() != base64.b64decode(root, validate=True):
        raise ValueError("its frontier does not make its root")
    return {"size": tree.size, "head": bytes.fromhex(head[5:]), "tree": tree}


# --- The chain --------------------------------------------------------------------------------------------------------


class Chain:
    def __init__(self, log_id, head, tree, checkpoints):
        self.log_id, self.head, self.tree, self.checkpoints = log_id, head, tree, checkpoints

    def follow(self, line, where):
        seq = self.tree.size + 1

        def tampered(why):
            return Verdict(TAMPERED, f"record {seq} ({where}): {why}")

        suffix = HASH_SUFFIX.search(line)
        if len(line) > RECORD_BYTES_MAX or suffix is None:
            raise tampered("the line is no record")
        try:
            record = json.loads(line)
        except ValueError as error:
            raise tampered("the line is not JSON") from error
        if record["v"] != 1 or record["log_id"] != self.log_id or record["seq"] != seq:
            raise tampered("it is of another version, log or place")
        if record["prev"] != self.head.hex():
            raise tampered("it does not follow the record before it")
        digest = hashlib.sha256(b"audit/v1" + self.head + line[: suffix.start()]).digest()
        if digest.hex().encode() != suffix.group(1):
            raise tampered("its bytes do not match its hash")
        self.head = digest
        self.tree.push(line)
        for checkpoint in self.checkpoints:
            if checkpoint["size"] == seq and (checkpoint["head"] != digest or checkpoint["tree"].roots != self.tree.roots):
                raise tampered("the records up to here are not those that a checkpoint covers")


def lines_of(path):
    """Yields (number, offset, bytes up to the newline, whether there was one); a bounded read for each."""
    offset = 0
    with path.open("rb") as file:
        for number in range(1, sys.maxsize):
            line = file.readline(RECORD_BYTES_MAX + 2)
            if not line:
                return
            yield number, offset, line.removesuffix(b"\n"), line.endswith(b"\n")
            offset += len(line)


def walk(segments, chain):
    """Follows every record; gives where the torn tail begins, if there is one."""
    for index, (first, path) in enumerate(segments):
        if first != chain.tree.size + 1:
            raise Verdict(TAMPERED, f"a segment that begins with record {chain.tree.size + 1} is missing before {path.name}")
        for number, offset, line, whole in lines_of(path):
            where = f"{path.name}, line {number}, byte {offset}"
            if whole and b"\0" not in line:
                chain.follow(line, where)
                continue
            if index + 1 < len(segments) or not only_padding_follows(path, offset):
                raise Verdict(TAMPERED, f"record {chain.tree.size + 1} ({where}): the line is not whole")
            return where
    return None


def only_padding_follows(path, offset):
    with path.open("rb") as file:
        file.seek(offset)
        line = file.read(RECORD_BYTES_MAX + 1)
        text = line.split(b"\0", 1)[0]
        if b"\n" in text or len(text) > RECORD_BYTES_MAX:
            return False
        file.seek(offset + len(text))
        while chunk := file.read(1 << 16):
            if chunk.strip(b"\0"):
                return False
    return True


def numbered(directory, pattern):
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        if match := re.fullmatch(pattern, path.name):
            found.append((int(match.group(1)), path))
    return sorted(found)


def verify(options):
    try:
        key = read_key(options.key or options.dir / "keys" / "checkpoint.vkey")
        notes = numbered(options.dir / "checkpoints", r"(\d{20})(?:-segment)?\.note")
        segments = numbered(options.dir, r"segment-(\d{20})\.jsonl")
        elsewhere = [read_checkpoint(options.checkpoint, key)] if options.checkpoint else []
    except (OSError, ValueError) as error:
        raise Verdict(UNREADABLE, str(error)) from error
    checkpoints, bad_note = list(elsewhere), None
    for size, path in notes:
        try:
            checkpoint = read_checkpoint(path, key)
            if checkpoint["size"] != size:
                raise ValueError("its name says another size")
            checkpoints.append(checkpoint)
        except ValueError as error:
            bad_note = bad_note or Verdict(TAMPERED, f"{path.name}: {error}")
    if not segments and not checkpoints:
        raise Verdict(UNREADABLE, f"there is no audit log in {options.dir}")
    chain = Chain(key[0][len(ORIGIN) :], bytes(32), Frontier(), checkpoints)
    if segments and segments[0][0] != 1:
        before = [checkpoint for checkpoint in checkpoints if checkpoint["size"] == segments[0][0] - 1]
        if not before:
            raise Verdict(TAMPERED, f"the records before {segments[0][0]} are missing, and no checkpoint covers exactly them")
        chain.head, chain.tree = before[0]["head"], Frontier(before[0]["size"], before[0]["tree"].roots)
    torn = walk(segments, chain)
    if bad_note:
        raise bad_note
    covered = max((checkpoint["size"] for checkpoint in checkpoints), default=0)
    if covered > chain.tree.size:
        raise Verdict(CUT, f"the log ends at record {chain.tree.size}, and a signed checkpoint covers {covered}")
    if torn:
        raise Verdict(TORN, f"all {chain.tree.size} records are whole; an unfinished one begins at {torn}")
    raise Verdict(WHOLE, f"OK: {chain.tree.size} records, {len(checkpoints)} checkpoints, root {chain.tree.root().hex()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=pathlib.Path, help="the log's directory")
    parser.add_argument("--checkpoint", type=pathlib.Path, help="a checkpoint that was stored elsewhere")
    parser.add_argument("--key", type=pathlib.Path, help="the public key, if not the one beside the log")
    try:
        verify(parser.parse_args())
    except Verdict as verdict:
        print(verdict)
        sys.exit(verdict.code)


if __name__ == "__main__":
    main()
