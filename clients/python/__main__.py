"""Runs the tests against one server and prints a line for each; with ONLY=name, one file of them."""

import os
import signal
import sys
import unittest

from . import server


class Lines(unittest.TestResult):
    """`ok` or `FAILED`, and the test's name as the sentence that it is."""

    def addSuccess(self, test):
        self.line("ok", test)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.line("FAILED", test)
        print(self.failures[-1][1])

    def addError(self, test, error):
        super().addError(test, error)
        self.line("FAILED", test)
        print(self.errors[-1][1])

    @staticmethod
    def line(word, test):
        name = test.id().rsplit(".", 1)[-1].removeprefix("test_").replace("_", " ")
        print(f"{word:6} {name}", flush=True)


def end(*_):
    sys.exit(143)


signal.signal(signal.SIGTERM, end)
with server.Server() as shared:
    server.shared = shared
    # The last one asks for whatever can be asked.
    names = ["alle", "fluxbase", "resume", "poll", "operating", "generated", "described"]
    only = [name for name in names if os.environ.get("ONLY", "") in name]
    tests = unittest.defaultTestLoader.loadTestsFromNames(f"python.test_{name}" for name in only)
    result = tests.run(Lines())
    if not result.wasSuccessful():
        print(shared.log(), file=sys.stderr)
sys.exit(0 if result.wasSuccessful() else 1)
