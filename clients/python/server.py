"""A server of our own: `tidewire dev` on a free port, in a directory that goes away."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from websockets.sync.client import connect

# The server that all tests of a run share; set before the first.
shared = None

# Seconds for anything that should happen at once; a busy machine may take its time.
SOON = 10

# Seconds for the server and its database, which is made from nothing.
START = 60


class Server:
    """Runs from `with` to its end, or until the program is told to end."""

    def __enter__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="tidewire-clients-"))
        # PostgreSQL does not run as root, so its user must be able to get in.
        self.dir.chmod(0o711)
        self.port = free_port()
        self.output = open(self.dir / "log", "w")
        self.process = subprocess.Popen(
            [os.environ["TIDEWIRE"], "dev", "--no-demo"]
            + ["--listen", f"127.0.0.1:{self.port}", "--dir", str(self.dir / "dev")],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )
        try:
            until("the server is ready", self.is_ready, START)
        except BaseException as error:
            self.__exit__()
            raise error
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(SOON)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def log(self):
        return (self.dir / "log").read_text()

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()}")
        try:
            return "postgresql://" in self.log() and self.get("/ready").status == 200
        except OSError:
            return False

    def get(self, path, headers={}):
        """The answer to a GET, its body unread: it may have no end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        connection.request("GET", path, headers=headers)
        return connection.getresponse()

    def get_json(self, path):
        answer = self.get(path)
        return answer.status, json.loads(answer.read())

    def post(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        text = body if isinstance(body, str) else json.dumps(body)
        connection.request("POST", path, text, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def socket(self, path):
        # Without a limit of its own, this client can close although it has not read everything.
        url = f"ws://127.0.0.1:{self.port}{path}"
        return Socket(connect(url, open_timeout=SOON, max_queue=None))

    def database(self):
        """The database's address as the server printed it."""
        return re.search(r"postgres(?:ql)?://[^\s'\"]+", self.log())[0]

    def sql(self, statement):
        """Runs a statement by psql; gives the rows as lists of texts."""
        psql_quietly = [psql(), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--csv", "-t"]
        done = subprocess.run(
            psql_quietly + [self.database(), "-c", statement],
            check=True,
            timeout=SOON,
            capture_output=True,
            text=True,
        )
        return [line.split(",") for line in done.stdout.splitlines()]

    def command(self, *words):
        """Runs the program with these words on the server's database."""
        program = [os.environ["TIDEWIRE"], *words, "--postgres-url", self.database()]
        subprocess.run(program, check=True, timeout=SOON, capture_output=True)


class Socket:
    """A WebSocket that speaks JSON."""

    def __init__(self, connection):
        self.connection = connection

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def send(self, frame):
        self.connection.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame))

    def receive(self):
        return json.loads(self.connection.recv(timeout=SOON))

    def ask(self, frame):
        """The next frame after this one was sent."""
        self.send(frame)
        return self.receive()


class Stream:
    """Server-Sent Events, read line by line; comments are left out."""

    def __init__(self, answer):
        self.answer = answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answer.close()

    def next(self):
        """The next event as `(name, data, id)`; the id is the last one seen, as in a browser."""
        name, data = "message", []
        for raw in iter(self.answer.readline, b""):
            field, _, value = raw.decode().rstrip("\r\n").partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                self.id = value
            elif raw.strip() == b"" and data:
                return name, json.loads("\n".join(data)), getattr(self, "id", None)
            elif raw.strip() == b"":
                name = "message"
        raise EOFError("the stream ended")

    def next_named(self, wanted):
        while True:
            name, data, place = self.next()
            if name == wanted:
                return data, place


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def psql():
    found = shutil.which("psql") or max(Path("/usr/lib/postgresql").glob("*/bin/psql"), default=None)
    if found is None:
        raise FileNotFoundError("psql, of the package postgresql-client, is not there")
    return found


def until(what, condition, patience=SOON):
    """Waits for a condition; looks twenty times a second."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after {patience} s: {what}")
        time.sleep(0.05)
