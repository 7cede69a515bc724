"""Where LLVM's own tools are, of the very LLVM that the compiler has."""

import subprocess
import sys
from pathlib import Path

# For compilers and tools of which one is built without zlib, as those from PyPI are.
PLAIN_NAMES = "-Cllvm-args=-enable-name-compression=false"


def tools():
    """The directory of llvm-cov and llvm-profdata: rustup's component, else what was installed from PyPI."""
    libraries = subprocess.run(["rustc", "--print", "target-libdir"], capture_output=True, text=True, check=True).stdout
    places = [Path(libraries.strip()).parent / "bin", *(Path(entry) / "llvm/bin" for entry in sys.path)]
    for place in places:
        if (place / "llvm-profdata").exists():
            return place
    sys.exit("there is no llvm-profdata; rustup component add llvm-tools")
