"""Runs tests with pytest where there is one, else those of unittest; tells counts and failures, and ends as they do."""

import argparse
import importlib
import importlib.util
import re
import unittest

# What pytest imports only when it needs it; by then the workspace comes first.
LATE = """
bdb cmd code codeop doctest getpass pdb pty pyclbr pydoc shlex tomllib unittest.mock xml.etree.ElementTree xml.sax.saxutils
""".split()
FAILURES_MAX = 100
NO_TESTS, USAGE = 5, 4
PLACE = re.compile(r'^(?:E +File ")?([^\s":]+)(?:", line |:)(\d+)', re.MULTILINE)


class Report:
    """What became of the tests so far."""

    def __init__(self, runner, version):
        self.began = time.monotonic()
        self.facts = {"runner": runner, "version": version}
        self.counts = dict.fromkeys(("passed", "failed", "errors", "skipped", "xfailed", "xpassed"), 0)
        self.failures = []
        self.note = None

    def count(self, kind):
        self.counts[kind] += 1

    def fail(self, kind, test, place, message):
        self.count(kind)
        if len(self.failures) < FAILURES_MAX:
            file, line = place
            failure = {"kind": kind, "test": cut(test, 500), "message": cut(message, 2_000)}
            self.failures.append({**failure, "file": cut(shown(file), 500) if file else None, "line": line})

    def tell(self, state):
        took = int((time.monotonic() - self.began) * 1_000)
        report = {**self.facts, "state": state, "duration_ms": took, "counts": self.counts, "note": self.note}
        tell("test", {**report, "failures": self.failures})


def place_in(trace):
    """The last place of the session's own code in a traceback; else the last one."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(trace)]
    own = [place for place in frames if is_own(place[0])]
    return (own or frames or [(None, None)])[-1]


def is_own(file):
    path = shown(file)
    return not os.path.isabs(path) and not path.startswith((".codegen" + os.sep, "<"))


# --- pytest ---------------------------------------------------------------------------------------------------------


class Listener:
    """Hears of every result inside pytest."""

    def __init__(self, report):
        self.report = report

    def pytest_load_initial_conftests(self):
        # pytest and its plugins are imported by now; `python -m pytest` has the workspace first as well.
        sys.path.insert(0, WORKSPACE)

    def pytest_runtest_logreport(self, report):
        expected = hasattr(report, "wasxfail")
        if report.failed:
            kind = "failed" if report.when == "call" else "errors"
            self.report.fail(kind, report.nodeid, *of_pytest(report))
        elif report.skipped:
            self.report.count("xfailed" if expected else "skipped")
        elif report.when == "call":
            self.report.count("xpassed" if expected else "passed")

    def pytest_collectreport(self, report):
        if report.failed:
            self.report.fail("errors", report.nodeid, *of_pytest(report))
        elif report.skipped:
            self.report.count("skipped")


def of_pytest(report):
    """Where it failed, and why."""
    crash = getattr(report.longrepr, "reprcrash", None)
    trace = getattr(report.longrepr, "reprtraceback", None)
    places = [entry.reprfileloc for entry in getattr(trace, "reprentries", ()) if getattr(entry, "reprfileloc", None)]
    own = [(place.path, place.lineno) for place in places if is_own(place.path)]
    location = getattr(report, "location", None) or (report.nodeid.split("::")[0], None)
    named = (location[0], None if location[1] is None else location[1] + 1)
    if crash is not None:
        return (own[-1] if own else named), crash.message
    # What cannot be collected has a text alone.
    text = report.longreprtext.strip()
    found = [(file, int(line)) for file, line in PLACE.findall(text) if is_own(file)]
    reasons = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (found[-1] if found else named), "\n".join(reasons) or text[-2_000:]


def run_pytest(pytest, path, args):
    for name in LATE + [f"_pytest.{plugin}" for plugin in getattr(pytest_config(), "default_plugins", ())]:
        attempt(importlib.import_module, name)
    report = Report("pytest", pytest.__version__)
    report.tell("started")
    # pytest's cache is no result of the session; it stays for `--last-failed` as long as the sandbox does.
    given = ["-q", "--tb=short", "--color=no", "-o", "cache_dir=/tmp/.pytest_cache", *args]
    status = int(pytest.main(given + ([f"./{path}"] if path else []), [Listener(report)]))
    if status == USAGE:
        report.note = "pytest refused its arguments or found no such test"
    report.tell("finished")
    return status


def pytest_config():
    return attempt(importlib.import_module, "_pytest.config")


def attempt(call, *arguments):
    try:
        return call(*arguments)
    except Exception:
        return None


# --- unittest -------------------------------------------------------------------------------------------------------


class Results(unittest.TextTestResult):
    """Hears of every result inside unittest."""

    report = None

    def addSuccess(self, test):
        super().addSuccess(test)
        self.report.count("passed")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.failed("failed", test, error)

    def addError(self, test, error):
        super().addError(test, error)
        self.failed("errors", test, error)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.failed("failed" if issubclass(error[0], test.failureException) else "errors", subtest, error)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.report.count("skipped")

    def addExpectedFailure(self, test, error):
        super().addExpectedFailure(test, error)
        self.report.count("xfailed")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.report.fail("failed", test.id(), (None, None), "it was expected to fail and did not")

    def failed(self, kind, test, error):
        self.report.fail(kind, test.id(), place_in(error[2]), message_of(error[1]))


def without_ours(trace):
    """A traceback from the session's own code on."""
    own = trace
    while own is not None and not is_own(own.tb_frame.f_code.co_filename):
        own = own.tb_next
    return own


def message_of(error):
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def is_test_file(name):
    return name.startswith("test") or name.endswith("_test.py")


def load(file):
    """The module of a file, imported from the directory above its outermost package."""
    directory, name = os.path.split(file)
    names = [name[: -len(".py")]]
    while os.path.exists(os.path.join(directory, "__init__.py")) and directory != WORKSPACE:
        directory, package = os.path.split(directory)
        names.insert(0, package)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    name = ".".join(names)
    other = sys.modules.get(name)
    if other is None:
        module = importlib.import_module(name)
        if os.path.realpath(getattr(module, "__file__", None) or "") == os.path.realpath(file):
            return module
    # Another module has that name already, such as a test of the same name in another directory.
    spec = importlib.util.spec_from_file_location(f"{name}_{abs(hash(file))}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Options(argparse.ArgumentParser):
    """Those of unittest's own options that choose tests and say how they run."""

    def __init__(self):
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("-k", action="append", dest="names")
        self.add_argument("-v", "--verbose", action="store_true")
        self.add_argument("-f", "--failfast", action="store_true")

    def error(self, message):
        raise ValueError(message)


def run_unittest(path, args):
    report = Report("unittest", ".".join(map(str, sys.version_info[:3])))
    try:
        options = Options().parse_args(args)
    except ValueError as why:
        report.note = (
            f"`args`: {cut(why, 200)}; without pytest, which pkg_install installs, there are only -k PATTERN, -v and -f"
        )
        report.tell("finished")
        return USAGE
    report.tell("started")
    sys.path.insert(0, WORKSPACE)
    path, _, name = path.partition("::")
    start = os.path.join(WORKSPACE, path)
    if not os.path.exists(start):
        sys.exit(f"there is no {path}")
    suite, loader, files = unittest.TestSuite(), unittest.TestLoader(), 0
    if options.names:
        # As unittest reads them: a part of the name, or a pattern that matches all of it.
        loader.testNamePatterns = [name if "*" in name else f"*{name}*" for name in options.names]
    for file in sources(start, is_test_file):
        files += 1
        try:
            module = load(file)
            wanted = name.replace("::", ".")
            suite.addTests(loader.loadTestsFromName(wanted, module) if wanted else loader.loadTestsFromModule(module))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # Broken syntax has no frame of its own.
            place = (error.filename, error.lineno) if isinstance(error, SyntaxError) else place_in(error.__traceback__)
            report.fail("errors", shown(file), place, message_of(error))
            print(f"{shown(file)} cannot be imported:", file=sys.stderr)
            traceback.print_exception(type(error), error, without_ours(error.__traceback__))
    Results.report = report
    verbosity = 2 if options.verbose else 1
    runner = unittest.TextTestRunner(resultclass=Results, stream=sys.stderr, failfast=options.failfast, verbosity=verbosity)
    runner.run(suite)
    if options.names and not any(report.counts.values()):
        report.note = f"no test in {files} test files is named so"
    elif not any(report.counts.values()):
        report.note = (
            f"none of {files} test files has a unittest.TestCase; plain test functions need pytest (pkg_install)"
            if files
            else "no file is named test*.py or *_test.py"
        )
    report.tell("finished")
    counts = report.counts
    return 1 if counts["failed"] or counts["errors"] else 0 if any(counts.values()) else NO_TESTS


def main(path, *args):
    if importlib.util.find_spec("pytest") is None:
        return run_unittest(path, list(args))
    import pytest

    return run_pytest(pytest, path, list(args))


sys.exit(main(*sys.argv[1:]))
