#!/usr/bin/env python3
"""Measures a Tidewire server a second time, by a program that shares nothing with tidewire-bench.

A measuring program can be wrong in ways that look like a fast server. This one was written from
the documentation of the native dialect alone: plain sockets, its own WebSocket handshake and
frames, and the kernel's books for what the server used. `make bench-agreement` runs both in turns.

  second-generator.py paced --subscribers 1000 --rate 20 --seconds 8
  second-generator.py topics --subscribers 2000 --rate 1000
  second-generator.py idle --subscribers 10000
  second-generator.py one-by-one --subscribers 2000
  second-generator.py paced --url http://127.0.0.1:8080 --pid 4711
  second-generator.py agree first.jsonl second.jsonl       ratios of two files of reports

One thread, Python 3, nothing to install. What a server costs hangs on its clients: one that finds
nothing to do falls asleep, and being woken costs it more than the work did. So this program does
at once only what the server waits for, which Python does as quickly as a server sends, and checks
what it read when there is time. Its own cost for each delivery is reported; above about half a
core of it the scenario asks for more than it can drive, and says so.
"""

import argparse
import base64
import collections
import contextlib
import ctypes
import gc
import hashlib
import json
import os
import resource
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

# Bytes read at once: more than one message, and little enough that Python need not ask the kernel
# for memory each time.
READ = 8 << 10

# Up to so many seconds are waited for to the microsecond.
FINE = 0.01

# What was read is checked when for so many seconds nothing has come, so many at a time.
QUIET = 0.001
CHECKED = 64

# More than this is checked even while more comes.
MOST_UNCHECKED = 50_000

# Seconds from step to step of clients that come one by one: long enough for the server to be at
# rest again.
STEP = 0.0004


class Failed(Exception):
    """The run cannot be counted."""


# --- what the server uses ---------------------------------------------------------------------


class Watched:
    """A process whose processor time (all threads) and memory are read from /proc."""

    def __init__(self, pid):
        self.pid = pid
        # The process's clock, as clock_getcpuclockid(3) names it: to the nanosecond, while
        # /proc/PID/stat counts hundredths of a second.
        self.clock = ~pid << 3 | 2

    def cpu(self):
        return time.clock_gettime(self.clock)

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
    """One client: connects, upgrades, subscribes, and checks each message it gets.

    What it reads it only puts aside: a reader slower than the server is never asleep, and a server
    that need not wake its readers looks cheaper. What can be prepared is prepared before.
    """

    __slots__ = ("run", "topic", "key", "request", "ask", "socket", "receive", "rest", "step",
                 "next", "subscribed")

    def __init__(self, run, topic):
        self.run = run
        self.topic = topic
        self.key = base64.b64encode(os.urandom(16))
        host, port = run.address
        self.request = (
            b"GET /v1/ws HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
            % (host.encode(), port, self.key)
        )
        self.ask = masked(1, b'{"type":"subscribe","id":1,"topic":"%s"}' % topic.encode())
        self.socket = None
        self.rest = b""
        self.step = self.upgraded
        self.next = 0
        self.subscribed = False

    def connect(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket.connect_ex(self.run.address)
        self.receive = self.socket.recv

    def listen(self, act):
        """Calls `act` for what the kernel says of the socket, once for each time it changes."""
        run, fileno = self.run, self.socket.fileno()
        run.at[fileno] = act
        run.poll.register(fileno, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    def connected(self, events):
        """As soon as it is connected it asks; events of the kernel lead from here to `heard`."""
        if events & (select.EPOLLERR | select.EPOLLHUP):
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            raise Failed(f"a client could not connect: {os.strerror(error)}")
        self.socket.send(self.request)
        self.run.at[self.socket.fileno()] = self.answered

    def answered(self, events):
        """Subscribes as soon as it may, unless all are told to wait."""
        self.heard(events)
        if events & select.EPOLLIN and b"\r\n\r\n" in self.run.unchecked[-1][1]:
            self.run.answers += 1
            self.run.at[self.socket.fileno()] = self.heard
            if not self.run.hold:
                self.subscribe()

    def subscribe(self):
        self.socket.send(self.ask)

    def heard(self, events):
        if not events & select.EPOLLIN:
            return
        run = self.run
        while True:
            try:
                data = self.receive(READ)
            except BlockingIOError:
                return
            run.unchecked.append((self, data, time.monotonic_ns()))
            run.reads += 1
            if not self.subscribed and b'"type":"subscribed"' in data:
                self.arrived()
            if len(data) < READ:
                return

    def arrived(self):
        self.subscribed = True
        self.run.subscribed += 1

    # What follows is done when there is time.

    def check(self, data, at):
        if not data:
            raise Failed(f"the server ended the connection of a client of {self.topic}")
        self.step(self.rest + data if self.rest else data, at)

    def upgraded(self, data, at):
        head, end, after = data.partition(b"\r\n\r\n")
        if not end:
            self.rest = data
            return
        expected = base64.b64encode(hashlib.sha1(self.key + ACCEPT_SUFFIX).digest())
        if not head.startswith(b"HTTP/1.1 101 ") or expected not in head:
            raise Failed("no upgrade: " + head.decode(errors="replace"))
        self.step = self.frames
        self.rest = b""
        self.frames(after, at)

    def frames(self, data, came):
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
                self.text(data, start, at, came)
            elif opcode == 0x89:
                self.socket.send(masked(10, data[start:at]))
            else:
                raise Failed(f"a frame with the first byte {opcode:#x}: {data[start:at]!r}")
        self.rest = data[at:]

    def text(self, data, start, end, came):
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
            run.latencies.append(came // 1000 - int(data[found + 23 : found + 38]))

    def said(self, frame):
        kind = frame["type"]
        if kind not in ("welcome", "subscribed"):
            raise Failed(f"the server said {frame}")
        if kind == "subscribed" and not self.subscribed:
            self.arrived()


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
        run.at[self.socket.fileno()] = self.readable
        run.poll.register(self.socket.fileno(), select.EPOLLIN)

    def publish(self, topic, number):
        body = b'{"topic":"%s","data":%s}' % (topic.encode(), payload(number))
        request = (
            b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        if self.socket.send(request) != len(request):
            raise Failed("the server does not take a publication of 250 bytes")
        self.busy = True

    def readable(self, _):
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


class Timer:
    """A descriptor that becomes readable at a moment (timerfd_create(2), which Python 3.11 lacks)."""

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fileno = self.libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK)
        if self.fileno < 0:
            raise OSError(ctypes.get_errno(), "no timer")

    def ring_after(self, seconds):
        # Seconds and nanoseconds of an interval, which is none, and of the moment.
        at = (ctypes.c_long * 4)(0, 0, 0, max(int(seconds * 1e9), 1))
        self.libc.timerfd_settime(self.fileno, 0, at, None)

    def rang(self, _):
        # Read so that it is not told of again.
        os.read(self.fileno, 8)


class Run:
    """All clients of one run, on one epoll, and what was counted."""

    def __init__(self, address, watched):
        self.address = address
        self.watched = watched
        self.poll = select.epoll()
        self.at = {}
        self.timer = Timer()
        self.at[self.timer.fileno] = self.timer.rang
        self.poll.register(self.timer.fileno, select.EPOLLIN)
        self.clients = []
        self.free = []
        self.unchecked = collections.deque()
        # Whether nothing came when this was looked at last.
        self.quiet = False
        # Whether clients wait to be told when to subscribe, and when one last did something.
        self.hold = False
        self.stepped = 0.0
        self.answers = self.subscribed = self.delivered = self.accepted = 0
        self.skipped = self.backwards = self.reads = 0
        self.sampling = False
        self.latencies = []
        self.late = 0.0

    def turn(self, wait):
        """Handles what the kernel tells within `wait` seconds, or checks a little of what came."""
        if self.unchecked:
            wait = min(wait, 0 if self.quiet else QUIET)
        events = self.within(wait)
        rang = len(events) == 1 and events[0][0] == self.timer.fileno
        self.quiet = rang or not events and (wait > 0 or self.quiet)
        at = self.at
        for fileno, kinds in events:
            at[fileno](kinds)
        if self.quiet or len(self.unchecked) > MOST_UNCHECKED:
            for _ in range(min(CHECKED, len(self.unchecked))):
                client, data, came = self.unchecked.popleft()
                client.check(data, came)

    def within(self, wait):
        """What comes within so long: epoll sleeps for whole milliseconds, the timer as asked."""
        if wait in (0, QUIET) or wait > FINE:
            return self.poll.poll(wait)
        self.timer.ring_after(wait)
        return self.poll.poll(FINE)

    def until(self, done, what):
        progress, deadline = None, 0.0
        while not done():
            now = (self.subscribed, self.delivered, self.accepted)
            if now != progress:
                progress, deadline = now, time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                raise Failed(f"waited for {what} in vain: {now}")
            self.turn(0.05)

    def crowd(self, handshakes):
        """All connect, so many of them at a time."""
        for started, client in enumerate(self.clients):
            self.until(lambda: started - self.subscribed < handshakes, "a subscription")
            client.connect()
            client.listen(client.connected)
            self.turn(0)
        self.until(lambda: self.subscribed == len(self.clients), "the last subscriptions")

    def one_by_one(self):
        """All connect one after the other, and each step finds the server at rest."""
        for number, client in enumerate(self.clients):
            client.connect()
            self.rest()
            client.listen(client.connected)
            self.rest()
            self.until(lambda: self.answers > number, "an upgrade")
            client.subscribe()
            self.rest()
            self.until(lambda: self.subscribed > number, "a subscription")

    def rest(self):
        """Until it is time for the next step."""
        while (left := self.stepped + STEP - time.monotonic()) > 0:
            self.turn(left)
        self.stepped = time.monotonic()

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
        waits = own_waits()
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
            "own_waits_per_delivery": (own_waits() - waits) / count,
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


def own_waits():
    """How often this program had nothing to do; a client's server is charged for waking it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def run(args):
    """One scenario on one server; its report."""
    with server(args) as (host, port, watched):
        time.sleep(SETTLE)
        going = Run((host, port), watched)
        each = args.scenario == "topics"
        topics = [f"topic-{i}" for i in range(args.subscribers if each else 1)]
        going.clients = [Subscriber(going, topics[i % len(topics)])
                         for i in range(args.subscribers)]
        memory, sleeps, cpu = watched.resident_kib(), watched.sleeps(), watched.cpu()
        begun = time.monotonic()
        if args.scenario == "one-by-one":
            going.hold = True
            going.one_by_one()
        else:
            going.crowd(args.handshakes)
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
        if args.scenario in ("paced", "topics"):
            report["rate"] = args.rate
            report |= going.measure(topics, 1 if each else args.subscribers, args)
        for client in going.clients:
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
            f"{report['deliveries_per_read']:.3f} deliveries a read, "
            f"{report['own_waits_per_delivery']:.3f} waits a delivery;"
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
    ("one-by-one", "us_per_connection", "one-by-one", "cpu_per_connection", "us/connection"),
    ("one-by-one", "sleeps_per_connection", "one-by-one", "sleeps_per_connection", "sleeps"),
]

# How far apart the medians may be; and what is told without being judged, because it is the work
# of a processor that has forgotten everything, and how much of it this program makes it forget.
TOLERANCE = 0.1
TOLD = ("one-by-one", "us/connection")

# What has fewer pairs than this says little: then nothing is said to agree.
ENOUGH = 5


def agree(first, second):
    """Compares the reports of tidewire-bench and of this program, round by round; 1 if they differ."""
    theirs, ours = reports(first), reports(second)
    apart, missing = [], []
    for scenario, field, their_scenario, their_field, unit in COMPARED:
        pairs = list(zip(
            [one[field] for one in ours if one["scenario"] == scenario],
            [one[their_field] for one in theirs if one["scenario"] == their_scenario],
            strict=True,
        ))
        if len(pairs) < ENOUGH:
            missing.append(f"{scenario} {unit}")
        if not pairs:
            continue
        ratio = statistics.median(mine / other for mine, other in pairs)
        mine, other = (statistics.median(side) for side in zip(*pairs))
        each = ", ".join(f"{mine / other:.2f}" for mine, other in pairs)
        print(f"{scenario} {unit}: second {mine:.2f}, first {other:.2f}; ratio {ratio:.3f} ({each})")
        if abs(ratio - 1) > TOLERANCE and (scenario, unit) != TOLD:
            apart.append(f"{scenario} {unit}")
    if apart:
        print("further apart than a tenth: " + ", ".join(apart))
        return 1
    if missing:
        print(f"fewer than {ENOUGH} rounds of: " + ", ".join(missing))
        return 1
    print(f"all agree within a tenth ({' '.join(TOLD)} is not judged)")
    return 0


def reports(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", choices=["paced", "topics", "idle", "one-by-one"])
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
