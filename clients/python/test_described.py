"""The server answers as /v1/openapi.json says, whatever it is asked: tried by schemathesis."""

import subprocess
import sys
import unittest
from pathlib import Path

from . import server

# A bounded time: what is found in it is found by a developer, and the seed is always the same.
SECONDS = 40

# A poll waits by default, and a stream has no end, so of the streams only the refusals could be
# read; the generated clients read their beginnings.
SETTINGS = """
[[operations]]
include-operation-id = "poll"
parameters = { "query.timeout" = 0 }
"""
ENDLESS = ["stream", "alleEvents", "alleSse"]

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


class Described(unittest.TestCase):
    def test_every_answer_fits_the_description_of_the_api(self):
        origin = f"http://127.0.0.1:{server.shared.port}"
        # Then /ready has a source of row changes, too.
        server.shared.sql("CREATE TABLE public.described (id int PRIMARY KEY)")
        status, _ = server.shared.get_json("/v1/poll?table=public.described&timeout=0")
        self.assertEqual(status, 200)
        settings = server.shared.dir / "schemathesis.toml"
        settings.write_text(SETTINGS)
        program = Path(sys.executable).parent / "schemathesis"
        words = ["--config-file", settings, "run", f"{origin}/v1/openapi.json"]
        words += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"]
        words += ["--max-examples", "15", "--max-time", str(SECONDS), "--seed", "1"]
        words += ["--no-shrink", "--continue-on-failure", "--warnings", "off", "--no-color"]
        words += ["--request-timeout", str(server.SOON)]
        for name in ENDLESS:
            words += ["--exclude-operation-id", name]
        # It leaves files of its own where it is.
        done = subprocess.run(
            [program, *words],
            cwd=server.shared.dir,
            timeout=SECONDS * 3,
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-8_000:] + done.stderr[-2_000:])
