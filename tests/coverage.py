#!/usr/bin/env python3
"""Runs the tests of the crates that decide and that record, and says how much of each they reach, by line.

    coverage.py TARGET_DIR [--missed]     (run by the interpreter that `make coverage` prepares)

Tests are not counted: neither files of tests nor the modules of tests at the end of a file. Below a crate's floor this
exits with 1. --missed lists the lines that nothing reached.
"""

import os
import subprocess
import sys
from pathlib import Path

import llvm

TOP = Path(__file__).resolve().parent.parent
# Percent of lines, by the crate's directory.
FLOORS = {"coordinator/core": 90.0, "audit": 90.0}
PACKAGES = ["coordinator-core", "codegen-audit"]
INLINE_TESTS = "\n#[cfg(test)]\nmod tests {"


def measure(target_dir):
    """Runs the tests, built in a directory of their own below the target directory; returns the file of hits."""
    tools = llvm.tools()
    lcov = Path(target_dir) / "llvm-cov-target/lcov.info"
    lcov.parent.mkdir(parents=True, exist_ok=True)
    env = os.environ | {
        "LLVM_COV": str(tools / "llvm-cov"),
        "LLVM_PROFDATA": str(tools / "llvm-profdata"),
        "CARGO_TARGET_DIR": str(target_dir),
        "RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} {llvm.PLAIN_NAMES}".strip(),
    }
    command = [Path(sys.prefix) / "bin/cargo-llvm-cov", "llvm-cov", "--locked", "--lcov", "--output-path", lcov]
    for package in PACKAGES:
        command += ["-p", package]
    done = subprocess.run(command, cwd=TOP, env=env)
    if done.returncode != 0:
        sys.exit(f"coverage: cargo llvm-cov ended with {done.returncode}")
    return lcov


def counted_lines(path):
    """How many lines of a file are production, by the same rule as tests/tidy."""
    text = path.read_text()
    end = text.find(INLINE_TESTS)
    return text[: end if end >= 0 else len(text)].count("\n") + 1


def hits(lcov):
    """Hits by file and line, without tests."""
    found, lines, end = {}, None, 0
    for record in Path(lcov).read_text().splitlines():
        kind, _, rest = record.partition(":")
        if kind == "SF":
            path = Path(rest)
            inside = path.is_relative_to(TOP) and not {"tests", "tests.rs"} & set(path.relative_to(TOP).parts)
            lines = found.setdefault(str(path.relative_to(TOP)), {}) if inside else None
            end = counted_lines(path) if inside else 0
        elif kind == "DA" and lines is not None:
            number, count = (int(part) for part in rest.split(",")[:2])
            if number <= end:
                lines[number] = max(count, lines.get(number, 0))
    return found


def main():
    files = hits(measure(sys.argv[1]))
    short = []
    print(f"{'crate':<20}{'lines':>8}{'reached':>9}{'percent':>9}{'floor':>8}")
    for crate, floor in FLOORS.items():
        own = {path: lines for path, lines in files.items() if path.startswith(f"{crate}/src/")}
        total = sum(len(lines) for lines in own.values())
        reached = sum(count > 0 for lines in own.values() for count in lines.values())
        percent = 100 * reached / total if total else 0.0
        print(f"{crate:<20}{total:>8}{reached:>9}{percent:>8.1f}%{floor:>7.0f}%")
        if percent < floor:
            short.append(crate)
        if "--missed" in sys.argv:
            for path, lines in sorted(own.items()):
                missed = [number for number, count in sorted(lines.items()) if not count]
                if missed:
                    print(f"  {path}: {len(missed)} of {len(lines)}: {' '.join(map(str, missed))}")
    for crate in short:
        print(f"{crate}: below its floor", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
