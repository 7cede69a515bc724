"""Checks Python files with ruff where there is one, else for broken syntax; tells each finding, and ends with 1 if there are any."""

import shutil
import subprocess
import warnings

FINDINGS_MAX = 500
ANSWER_BYTES_MAX = 16 << 20


def find_ruff():
    try:
        import ruff

        found = ruff.find_ruff_bin() if hasattr(ruff, "find_ruff_bin") else None
        if found is None:
            from ruff.__main__ import find_ruff_bin

            found = find_ruff_bin()
        return os.fsdecode(found)
    except (ImportError, OSError):
        return shutil.which("ruff")


def run_ruff(ruff, path):
    command = [ruff, "check", "--output-format", "json", "--no-cache", "--exit-zero", "--", path]
    with subprocess.Popen(command, cwd=WORKSPACE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        answer = process.stdout.read(ANSWER_BYTES_MAX + 1)
        if len(answer) > ANSWER_BYTES_MAX:
            process.kill()
            sys.exit("ruff has more to say than can be read; name a smaller path")
    if process.returncode != 0:
        sys.exit(f"ruff could not check: it ended with {process.returncode}")
    for found in json.loads(answer):
        where = found.get("location") or {}
        place = (shown(found.get("filename") or ""), where.get("row"), where.get("column"))
        yield finding(place, found.get("code") or "syntax", found.get("message"))


def finding(place, code, message):
    file, line, column = place
    return {"file": cut(file, 500), "line": line, "column": column, "code": cut(code, 60), "message": cut(message, 500)}


def check_syntax(files):
    for file in files:
        place = shown(file)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with open(file, "rb") as source:
                    compile(source.read(), place, "exec", dont_inherit=True)
            except SyntaxError as error:
                yield finding((place, error.lineno, error.offset), type(error).__name__, error.msg)
            except (ValueError, RecursionError, MemoryError, OverflowError, OSError) as error:
                yield finding((place, None, None), type(error).__name__, error)
        for warning in caught:
            yield finding((place, warning.lineno, None), warning.category.__name__, warning.message)


def main(path):
    if not os.path.exists(os.path.join(WORKSPACE, path)):
        sys.exit(f"there is no {path}")
    ruff = find_ruff()
    if ruff is not None:
        version = subprocess.run([ruff, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
        findings, files = list(run_ruff(ruff, f"./{path}" if path else ".")), None
        name, version = "ruff", version.split()[-1] if version.split() else ""
    else:
        checked = list(sources(os.path.join(WORKSPACE, path), lambda name: True))
        findings, files = list(check_syntax(checked)), len(checked)
        name, version = "syntax check", ".".join(map(str, sys.version_info[:3]))
    kept = findings[:FINDINGS_MAX]
    tell("lint", {"linter": name, "version": version, "files": files, "found": len(findings), "findings": kept})
    return 1 if findings else 0


sys.exit(main(*sys.argv[1:]))
