#!/usr/bin/env python3
"""Measures a Tidewire server a second time, by a program that shares nothing with tidewire-bench.

A measuring program can be wrong in ways that look like a fast server. This one was written from
the documentation of the native dialect alone: plain sockets, its own WebSocket handshake and
frames, and /proc for what the server used. `make bench-agreement` runs both in turns.

  second-generator.py paced --subscribers 1000 --rate 20 --seconds 8
  second-generator.py topics --subscribers 2000 --rate 1000
  second-generator.py idle --subscribers 10000
  second-generator.py paced --url http://127.0.0.1:8080 --pid 4711
  second-generator.py agree first.jsonl second.jsonl       ratios of two files of reports

One thread, Python 3, nothing to install. Its own cost for each delivery is reported; above about
half a core of it the scenario asks for more than it can drive, and says so.
"""

import argparse
import base64
import contextlib
import gc
import hashlib
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

# From RFC 6455, section 1.3.
ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# Seconds after the last acknowledgement (and after the last delivery) that still count as the
# server's work for them, and that let its memory settle.
SETTLE = 0.5

# Seconds of messages before the counted ones, so that nothing happens for the first time in them.
WARM_UP = 1.0

# Seconds without any progress after which a run has failed.
PATIENCE = 20.0

# Each message is this many bytes of JSON.
PAYLOAD = 128

READ = 1 << 18


class Failed(Exception):
    """The run cannot be counted."""


# --- what the server uses ---------------------------------------------------------------------


class Watched:
    """A process whose processor time (all threads) and memory are read from /proc."""

    TICK = 1.0 / os.sysconf("SC_CLK_TCK")

    def __init__(self, pid):
        self.pid = pid

    def cpu(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            # The name may hold spaces; what follows its bracket begins with field 3.
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * self.TICK

    def sleeps(self):
        """How often its threads had nothing to do and went to sleep."""
        count = 0
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{thread}/status", encoding="ascii") as file:
                count += next(int(line.split()[1]) for line in file
                              if line.startswith("voluntary_ctxt_switches:"))
        return count

    def resident_kib(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        raise Failed("the server has no VmRSS; has it ended?")


@contextlib.contextmanager
def server(args):
    """(host, port, Watched) of the server to measure, started here unless one is named."""
    if args.url:
        parts = urlsplit(args.url)
        if not args.pid:
            raise Failed("--url needs --pid, the process to charge")
        yield parts.hostname, parts.port or 80, Watched(args.pid)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {"PATH": os.environ["PATH"], "TIDEWIRE_LIMITS_CONNECTIONS": "1000000",
            "TIDEWIRE_LOG_LEVEL": "warn"}
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile() as log:
        command = [os.path.abspath(args.server), "serve", "--listen", f"127.0.0.1:{port}"]
        child = subprocess.Popen(command, cwd=directory, env=kept, stdout=log, stderr=log)
        try:
            await_port(port, child, log)
            yield "127.0.0.1", port, Watched(child.pid)
        finally:
            child.kill()
            child.wait()


def await_port(port, child, log):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if child.poll() is not None:
            log.seek(0)
            raise Failed("the server ended: " + log.read().decode(errors="replace")[-500:])
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise Failed("the server does not listen")


# --- the native dialect on a WebSocket --------------------------------------------------------


def masked(opcode, payload):
    """One client frame of less than 64 KiB."""
    size = len(payload)
    head = struct.pack("!BB", 0x80 | opcode, 0x80 | size) if size < 126 \
        else struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    mask = os.urandom(4)
    repeated = (mask * (size // 4 + 1))[:size]
    hidden = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + mask + hidden.to_bytes(size, "big")


class Subscriber:
    """One client: connects, upgrades, subscribes, and checks each message it gets."""

    __slots__ = ("socket", "fileno", "topic", "key", "rest", "step", "next", "run")

    def __init__(self, run, topic):
        self.run = run
        self.topic = topic
        self.rest = b""
        self.step = self.upgraded
        self.next = 0
        self.key = base64.b64encode(os.urandom(16))
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.fileno = self.socket.fileno()
        self.socket.connect_ex(run.address)
        run.watch(self, select.EPOLLOUT)

    def writable(self):
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise Failed(f"a client could not connect: {os.strerror(error)}")
        host, port = self.run.address
        self.socket.send(
            b"GET /v1/ws HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
            % (host.encode(), port, self.key)
        )
        self.run.poll.modify(self.fileno, select.EPOLLIN)

    def readable(self):
        try:
            data = self.socket.recv(READ)
        except BlockingIOError:
            return
        if not data:
            raise Failed(f"the server ended the connection of a client of {self.topic}")
        self.run.reads += 1
        self.step(self.rest + data if self.rest else data)

    def upgraded(self, data):
        head, end, after = data.partition(b"\r\n\r\n")
        if not end:
            self.rest = data
            return
        expected = base64.b64encode(hashlib.sha1(self.key + ACCEPT_SUFFIX).digest())
        if not head.startswith(b"HTTP/1.1 101 ") or expected not in head:
            raise Failed("no upgrade: " + head.decode(errors="replace"))
        ask = json.dumps({"type": "subscribe", "id": 1, "topic": self.topic}).encode()
        self.socket.send(masked(1, ask))
        self.step = self.frames
        self.rest = b""
        self.frames(after)

    def frames(self, data):
        at, size = 0, len(data)
        while size - at >= 2:
            opcode, length = data[at], data[at + 1]
            start = at + 2
            if length == 126:
                if size < at + 4:
                    break
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                if size < at + 10:
                    break
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if start + length > size:
                break
            at = start + length
            if opcode == 0x81:
                self.text(data, start, at)
            elif opcode == 0x89:
                self.socket.send(masked(10, data[start:at]))
            else:
                raise Failed(f"a frame with the first byte {opcode:#x}: {data[start:at]!r}")
        self.rest = data[at:]

    def text(self, data, start, end):
        found = data.find(b'"n":"', start, end)
        if found < 0:
            self.said(json.loads(data[start:end]))
            return
        number = int(data[found + 5 : found + 15])
        run = self.run
        run.delivered += 1
        if number == self.next:
            self.next = number + 1
        elif number > self.next:
            # Those between may still come, late: then they count as out of order, not as lost.
            run.skipped += number - self.next
            self.next = number + 1
        else:
            run.backwards += 1
        if run.sampling:
            sent = int(data[found + 23 : found + 38])
            run.latencies.append(time.monotonic_ns() // 1000 - sent)

    def said(self, frame):
        kind = frame["type"]
        if kind == "subscribed":
            self.run.subscribed += 1
        elif kind != "welcome":
            raise Failed(f"the server said {frame}")


def payload(number):
    """JSON of PAYLOAD bytes: a number that counts up for each topic, and the moment."""
    text = b'{"n":"%010d","at":"%015d","fill":""}' % (number, time.monotonic_ns() // 1000)
    return text[:-2] + b"x" * (PAYLOAD - len(text)) + text[-2:]


class Publisher:
    """One kept-alive HTTP connection that has one publication under way at a time."""

    def __init__(self, run):
        self.run = run
        self.busy = False
        self.rest = b""
        self.socket = socket.create_connection(run.address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.fileno = self.socket.fileno()
        run.watch(self, select.EPOLLIN)

    def publish(self, topic, number):
        body = b'{"topic":"%s","data":%s}' % (topic.encode(), payload(number))
        request = (
            b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        if self.socket.send(request) != len(request):
            raise Failed("the server does not take a publication of 250 bytes")
        self.busy = True

    def readable(self):
        data = self.rest + self.socket.recv(READ)
        head, end, after = data.partition(b"\r\n\r\n")
        if not data:
            raise Failed("the server ended the publisher's connection")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n")
                       if line.startswith(b"content-length:")), 0) if end else 1
        if len(after) < length:
            self.rest = data
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Failed("a publication was refused: " + data.decode(errors="replace"))
        self.rest = b""
        self.busy = False
        self.run.accepted += 1
        self.run.free.append(self)


# --- a run ------------------------------------------------------------------------------------


class Run:
    """All clients of one run, on one epoll, and what was counted."""

    def __init__(self, address, watched):
        self.address = address
        self.watched = watched
        self.poll = select.epoll()
        self.at = {}
        self.free = []
        self.subscribed = self.delivered = self.accepted = 0
        self.skipped = self.backwards = self.reads = 0
        self.sampling = False
        self.latencies = []
        self.late = 0.0

    def watch(self, client, events):
        self.at[client.fileno] = client
        self.poll.register(client.fileno, events)

    def turn(self, wait):
        for fileno, events in self.poll.poll(wait):
            client = self.at[fileno]
            if events & select.EPOLLOUT:
                client.writable()
            else:
                client.readable()

    def until(self, done, what):
        progress, deadline = None, 0.0
        while not done():
            now = (self.subscribed, self.delivered, self.accepted)
            if now != progress:
                progress, deadline = now, time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                raise Failed(f"waited for {what} in vain: {now}")
            self.turn(0.05)

    def connect(self, topics, handshakes):
        started = 0
        while started < len(topics):
            while started < len(topics) and started - self.subscribed < handshakes:
                Subscriber(self, topics[started])
                started += 1
            self.turn(1.0)
        self.until(lambda: self.subscribed == len(topics), "the last subscriptions")

    def settle(self):
        end = time.monotonic() + SETTLE
        while time.monotonic() < end:
            self.turn(0.05)

    def say(self, topics, numbers, rate, seconds):
        """Publishes each message when it is due, or as soon after it as a publisher is free."""
        begun = time.monotonic()
        for turn in range(int(rate * seconds)):
            due = begun + turn / rate
            while (left := due - time.monotonic()) > 0 or not self.free:
                self.turn(max(left, 0) if self.free else 1.0)
            self.late = max(self.late, time.monotonic() - due)
            which = turn % len(topics)
            self.free.pop(0).publish(topics[which], numbers[which])
            numbers[which] += 1
            self.turn(0)

    def measure(self, topics, listeners, args):
        """Messages on `topics`, each of which so many listen to; adds to the report."""
        self.free = [Publisher(self) for _ in range(args.publishers)]
        numbers = [0] * len(topics)
        self.say(topics, numbers, args.rate, WARM_UP)
        self.arrived(numbers, listeners)
        before, said, reads = self.delivered, sum(numbers), self.reads
        self.late, self.sampling = 0.0, True
        cpu, own, begun = self.watched.cpu(), time.process_time(), time.monotonic()
        self.say(topics, numbers, args.rate, args.seconds)
        self.arrived(numbers, listeners)
        took = time.monotonic() - begun
        cpu, own = self.watched.cpu() - cpu, time.process_time() - own
        count = self.delivered - before
        self.latencies.sort()
        return {
            "published": sum(numbers) - said,
            "deliveries": count,
            "cpu_per_million": cpu / count * 1e6,
            "deliveries_per_second": count / took,
            "own_cpu_per_million": own / count * 1e6,
            "own_cores": own / took,
            "late_ms": self.late * 1e3,
            # Above 1 the server joined messages, or this program was behind.
            "deliveries_per_read": count / (self.reads - reads),
            "p50_ms": self.latencies[len(self.latencies) // 2] / 1e3,
            "p99_ms": self.latencies[len(self.latencies) * 99 // 100] / 1e3,
            "lost": self.skipped - self.backwards,
            "out_of_order_or_twice": self.backwards,
        }

    def arrived(self, numbers, listeners):
        total = sum(numbers)
        self.until(lambda: self.accepted == total, "the answers to publications")
        self.until(lambda: self.delivered + max(0, self.skipped - self.backwards)
                   >= total * listeners, "the last deliveries")


def run(args):
    """One scenario on one server; its report."""
    with server(args) as (host, port, watched):
        time.sleep(SETTLE)
        going = Run((host, port), watched)
        each = args.scenario == "topics"
        topics = [f"topic-{i}" for i in range(args.subscribers if each else 1)]
        memory, sleeps, cpu = watched.resident_kib(), watched.sleeps(), watched.cpu()
        begun = time.monotonic()
        going.connect(topics if each else topics * args.subscribers, args.handshakes)
        took, sleeps = time.monotonic() - begun, watched.sleeps() - sleeps
        going.settle()
        report = {
            "generator": "second",
            "scenario": args.scenario,
            "subscribers": args.subscribers,
            "us_per_connection": (watched.cpu() - cpu) / args.subscribers * 1e6,
            "connections_per_second": args.subscribers / took,
            "sleeps_per_connection": sleeps / args.subscribers,
            "kib_per_connection": (watched.resident_kib() - memory) / args.subscribers,
        }
        if args.scenario != "idle":
            report["rate"] = args.rate
            report |= going.measure(topics, 1 if each else args.subscribers, args)
        for client in going.at.values():
            client.socket.close()
        return report


def tell(report):
    words = [f"{report['scenario']}, {report['subscribers']} subscribers:"]
    if "deliveries" in report:
        words.append(
            f"{report['cpu_per_million']:.2f} CPU-s/M, {report['deliveries_per_second']:.0f}/s, "
            f"p50 {report['p50_ms']:.2f} ms, p99 {report['p99_ms']:.2f} ms, "
            f"lost {report['lost']}, out of order or twice {report['out_of_order_or_twice']}, "
            f"own {report['own_cpu_per_million']:.1f} CPU-s/M and {report['own_cores']:.2f} cores, "
            f"late by {report['late_ms']:.0f} ms, "
            f"{report['deliveries_per_read']:.3f} deliveries a read;"
        )
    words.append(
        f"{report['us_per_connection']:.1f} us and {report['kib_per_connection']:.2f} KiB for a "
        f"connection, {report['connections_per_second']:.0f} connections/s, "
        f"{report['sleeps_per_connection']:.2f} sleeps of the server for each"
    )
    print(" ".join(words), flush=True)
    if report.get("own_cores", 0) > 0.6:
        print("  this is more than this program drives well; lower --rate", flush=True)


# --- agreement --------------------------------------------------------------------------------

# What is compared of each scenario: its name and the field here, and those of tidewire-bench.
COMPARED = [
    ("paced", "cpu_per_million", "paced", "server_cpu_per_million", "CPU-s/M"),
    ("topics", "cpu_per_million", "10k-topics", "server_cpu_per_million", "CPU-s/M"),
    ("idle", "us_per_connection", "idle-10k", "cpu_per_connection", "us/connection"),
    ("idle", "kib_per_connection", "idle-10k", "kib_subscribed", "KiB/connection"),
]

# How far the medians may be apart, and what is told without being judged: what a connection costs
# depends on how often the server falls asleep between the steps of slower clients.
TOLERANCE = 0.1
TOLD = "us/connection"


def agree(first, second):
    """Compares the reports of tidewire-bench and of this program, round by round."""
    theirs, ours = reports(first), reports(second)
    apart = []
    for scenario, field, their_scenario, their_field, unit in COMPARED:
        pairs = list(zip(
            [one[field] for one in ours if one["scenario"] == scenario],
            [one[their_field] for one in theirs if one["scenario"] == their_scenario],
            strict=True,
        ))
        if not pairs:
            continue
        ratios = [mine / other for mine, other in pairs]
        median = statistics.median(ratios)
        each = ", ".join(f"{mine:.2f}/{other:.2f} = {mine / other:.2f}" for mine, other in pairs)
        print(f"{scenario:7} {unit:15} second/first: {each}; median {median:.3f}")
        if abs(median - 1) > TOLERANCE and unit != TOLD:
            apart.append(f"{scenario} {unit}")
    if apart:
        print("further apart than a tenth: " + ", ".join(apart))
        return 1
    print(f"all medians but that of {TOLD} are judged, and agree within a tenth")
    return 0


def reports(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", choices=["paced", "topics", "idle"])
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20, help="messages a second, all together")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--publishers", type=int, default=1, help="HTTP connections that publish")
    parser.add_argument("--handshakes", type=int, default=128, help="under way at once")
    parser.add_argument("--server", default="target/release/tidewire")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--pid", type=int, help="its process")
    parser.add_argument("--json", help="file that the report is added to")
    return parser.parse_args()


def main():
    if sys.argv[1:2] == ["agree"]:
        return agree(*sys.argv[2:4])
    args = arguments()
    gc.disable()
    try:
        report = run(args)
    except (Failed, OSError) as error:
        print(f"{args.scenario}: {error}", file=sys.stderr)
        return 1
    tell(report)
    if args.json:
        with open(args.json, "a", encoding="utf-8") as file:
            file.write(json.dumps(report) + "\n")
    return 1 if report.get("lost") or report.get("out_of_order_or_twice") else 0


if __name__ == "__main__":
    sys.exit(main())
