"""Clients that are generated from /v1/openapi.json: they compile, and every call of them works."""

import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

from . import server

CLIENTS = Path(__file__).parent.parent

# Seconds for a generator or a compiler; a busy machine may take its time.
LONG = 90


def run(*words, cwd=None):
    done = subprocess.run(words, cwd=cwd, timeout=LONG, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}")


class Generated(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.origin = f"http://127.0.0.1:{server.shared.port}"
        cls.document = server.shared.dir / "openapi.json"
        cls.document.write_bytes(server.shared.get("/v1/openapi.json").read())
        server.shared.sql(
            "CREATE TABLE public.generated (id int PRIMARY KEY);"
            "INSERT INTO public.generated VALUES (1), (2)"
        )

    def test_no_name_stands_twice_in_an_object_of_the_description(self):
        def once(pairs):
            names = [name for name, _ in pairs]
            self.assertEqual(len(names), len(set(names)), names)
            return dict(pairs)

        json.loads(self.document.read_text(), object_pairs_hook=once)

    def test_a_client_generated_for_typescript_compiles_and_every_call_of_it_works(self):
        # Below node_modules, where what it imports is found.
        place = CLIENTS / "node_modules" / ".generated"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        programs = CLIENTS / "node_modules" / ".bin"
        run(programs / "openapi-typescript", self.document, "--output", place / "schema.d.ts")
        shutil.copy(CLIENTS / "typescript" / "every_call.ts", place / "every_call.mts")
        words = ["--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]
        run(programs / "tsc", *words, "every_call.mts", cwd=place)
        run("node", place / "every_call.mjs", self.origin)

    def test_a_client_generated_for_python_compiles_and_every_call_of_it_works(self):
        place = server.shared.dir / "generated"
        place.mkdir()
        words = ["generate", "--path", self.document, "--meta", "none", "--overwrite"]
        program = Path(sys.executable).parent / "openapi-python-client"
        run(program, *words, "--output-path", place / "tidewire_api", cwd=place)
        sys.path.insert(0, str(place))
        self.addCleanup(sys.path.remove, str(place))
        package = importlib.import_module("tidewire_api")
        found = pkgutil.walk_packages(package.__path__, "tidewire_api.")
        calls = {}
        for module in found:
            imported = importlib.import_module(module.name)
            if hasattr(imported, "sync_detailed"):
                calls[module.name.rsplit(".", 1)[-1]] = imported
        models = importlib.import_module("tidewire_api.models")
        client = package.Client(base_url=self.origin, timeout=server.SOON)

        def call(name, expected=200, **words):
            answer = calls.pop(name).sync_detailed(client=client, **words)
            self.assertEqual(answer.status_code, expected, f"{name}: {answer.content}")
            return answer.parsed

        published = call("publish", body=models.Publication(topic="python", data={"n": 1}))
        self.assertIsInstance(published, models.Published)
        page = call("history", topic="python", after="earliest")
        [event] = page.events
        self.assertIsInstance(event, models.Message)
        self.assertEqual(event.position, published.position)
        polled = call("poll", table=["public.generated"], snapshot=True, timeout=5)
        rows = [row["id"] for event in polled.events for row in event.to_dict().get("rows", [])]
        self.assertEqual(sorted(rows), [1, 2])
        self.assertEqual(call("presence", topic="python").members, [])
        body = models.AlleNotifyBody(channel="python", payload="hi")
        self.assertTrue(call("alle_notify", body=body).success)
        for name in ["websocket", "alle_websocket", "fluxbase_websocket"]:
            call(name, 426)
        for name in ["stats", "openapi", "health", "ready", "metrics", "root"]:
            call(name)
        for name in ["fluxbase_stats", "fluxbase_connections"]:
            call(name)
        # A stream has no end, so only its beginning is read.
        streams = {"stream": {"notify": ["python"], "snapshot": False}}
        streams |= {name: {"channels": "python"} for name in ["alle_events", "alle_sse"]}
        for name, words in streams.items():
            request = calls.pop(name)._get_kwargs(**words)
            with client.get_httpx_client().stream(**request) as answer:
                self.assertEqual(answer.status_code, 200, name)
        self.assertEqual(list(calls), [], "every call was made")
