"""What docs/operating.md shows to copy works as it stands there."""

import os
import re
import socket
import subprocess
import unittest
from pathlib import Path

from . import server

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "operating.md").read_text()


def block(words):
    """The block of the page that begins with these words after its backticks."""
    _, _, rest = PAGE.partition(f"\n```{words}\n")
    assert rest, f"there is a block of {words}"
    return rest.split("\n```")[0] + "\n"


def program(*words, **more):
    """Runs the program to its end."""
    words = [os.environ["TIDEWIRE"], *words]
    return subprocess.run(words, timeout=server.SOON, capture_output=True, text=True, **more)


class Operating(unittest.TestCase):
    def test_the_settings_of_the_page_are_good_ones(self):
        place = server.shared.dir / "etc"
        place.mkdir()
        (place / "jwt.secret").write_text("a secret of the tests that is long enough")
        text = block("toml server").replace("/etc/tidewire", str(place))
        (place / "tidewire.toml").write_text(text)
        shown = program("config", "--config", str(place / "tidewire.toml"))
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertIn('slot = "tidewire"', shown.stdout)

    def test_the_metrics_of_the_alerts_are_those_there_are(self):
        known = "".join((DOCS / name).read_text() for name in ["metrics.md", "history.md", "row-changes.md"])
        known = set(re.findall(r"`(tidewire_\w+)`", known))
        used = set(re.findall(r"tidewire_\w+", block("yaml alerts")))
        self.assertGreater(len(used), 5)
        self.assertEqual(used - known, set())

    def test_the_role_of_the_page_serves_rows_and_can_do_nothing_else(self):
        shared = server.shared
        shared.sql("CREATE DATABASE shop")
        shop = re.sub(r"/postgres$", "/shop", shared.database())
        run = [server.psql(), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", shop]
        for statements in [
            "CREATE TABLE public.orders (id int PRIMARY KEY); INSERT INTO public.orders VALUES (1)",
            block("sql roles"),
        ]:
            subprocess.run([*run, "-c", statements], check=True, timeout=server.SOON)
        url = shop.replace("postgres@", "tidewire@")
        port = server.free_port()
        settings = {
            "TIDEWIRE_POSTGRES_URL": url,
            "TIDEWIRE_WAL_PUBLICATION": "tidewire_live",
            "TIDEWIRE_LISTEN": f"127.0.0.1:{port}",
        }
        words = [os.environ["TIDEWIRE"], "serve"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = subprocess.Popen(words, env={**os.environ, **settings}, **quiet)
        try:
            server.until("the server serves", lambda: answers(port))
            other = server.Server.__new__(server.Server)
            other.port = port
            path = "/v1/poll?table=public.orders&snapshot=true&timeout=8"
            status, polled = other.get_json(path)
            self.assertEqual((status, polled["events"][0]["rows"]), (200, [{"id": 1}]))
            since = f"/v1/poll?table=public.orders&timeout=8&since={polled['cursor']}"
            insert = "INSERT INTO public.orders VALUES (2)"
            subprocess.run([*run, "-c", insert], check=True, timeout=server.SOON)
            _, polled = other.get_json(since)
            self.assertEqual([event["record"] for event in polled["events"]], [{"id": 2}])
            status, _ = other.get_json("/v1/poll?table=pg_catalog.pg_authid&timeout=0")
            self.assertNotEqual(status, 200)
        finally:
            running.terminate()
            running.wait(server.SOON)
        doctor = program("doctor", env={**os.environ, **settings})
        self.assertEqual(doctor.returncode, 0, doctor.stdout + doctor.stderr)


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False
