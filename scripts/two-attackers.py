#!/usr/bin/env python3
"""Two attackers against a running server, and what another client notices.

One attacker has one address and no token; the other has a good token and sends every request that
it may. Beside them a client publishes and receives on a topic of its own, from another address, all
the time. Printed are its latency before and during the attack, how often it was refused, and the
memory of the server; the end is an error where the latency at the median is over twice what it was,
anything was refused to the client, or memory is over the bound.

    scripts/two-attackers.py target/release/tidewire [seconds] [bound in MiB]

Only the standard library is needed. The addresses are 127.0.0.1 for the attackers and 127.0.0.2 for the
client, which Linux has without configuration.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import time

SECRET = "a secret for measuring, thirty-two bytes or more"
ATTACKER, CLIENT = "127.0.0.1", "127.0.0.2"
# Of the attack, this many of each kind go on at the same time.
SIDE_BY_SIDE = int(os.environ.get("SIDE_BY_SIDE", "200"))


def token(subject):
    """A JSON Web Token, good for an hour."""
    def part(value):
        text = json.dumps(value).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()
    claims = {"sub": subject, "exp": int(time.time()) + 3600}
    signed = part({"alg": "HS256", "typ": "JWT"}) + "." + part(claims)
    mac = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    return signed + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


async def connect(address, port):
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))


def head(method, path, *lines):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def upgrade(path):
    return head("GET", path, "Upgrade: websocket", "Connection: Upgrade",
                "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")


def frame(value):
    """A masked text frame; the mask is all zeros, which is a mask, too."""
    text = json.dumps(value).encode()
    length = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + text


async def read_frame(reader):
    while True:
        first, length = await reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await reader.readexactly(8), "big")
        text = await reader.readexactly(length)
        if first & 15 == 1:
            return json.loads(text)
        if first & 15 == 8:
            raise ConnectionError(text)


class Client:
    """Publishes and receives, and opens a connection now and then."""

    def __init__(self, port):
        self.port, self.latencies, self.refused = port, [], 0

    async def run(self, until):
        while time.monotonic() < until:
            try:
                await self.converse(until)
            except (OSError, EOFError, asyncio.TimeoutError):
                self.refused += 1

    async def converse(self, until):
        begun = time.monotonic()
        reader, writer = await connect(CLIENT, self.port)
        try:
            writer.write(upgrade("/v1/ws?token=" + token("client")))
            status = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            if b" 101 " not in status:
                raise ConnectionError(status)
            writer.write(frame({"type": "subscribe", "topic": "mine"}))
            while (await asyncio.wait_for(read_frame(reader), 30))["type"] != "subscribed":
                pass
            self.latencies.append(time.monotonic() - begun)
            for number in range(50):
                if time.monotonic() >= until:
                    break
                begun = time.monotonic()
                writer.write(frame({"type": "publish", "topic": "mine", "data": number, "id": 1}))
                awaited = {"event", "published"}
                while awaited:
                    heard = await asyncio.wait_for(read_frame(reader), 30)
                    if heard["type"] == "error":
                        raise ConnectionError(heard)
                    awaited.discard(heard["type"])
                self.latencies.append(time.monotonic() - begun)
                await asyncio.sleep(0.02)
        finally:
            writer.close()


async def forever(attack, until):
    """Repeats an attack; whatever the server does about it is its right."""
    while time.monotonic() < until:
        try:
            await asyncio.wait_for(attack(), max(until - time.monotonic(), 0.01))
        except (OSError, EOFError, asyncio.TimeoutError, ValueError):
            await asyncio.sleep(0.01)


def attacks(port):
    """All attacks: without a token, and with a good one."""
    async def send(*pieces, pause=5):
        reader, writer = await connect(ATTACKER, port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            await asyncio.wait_for(reader.read(65536), pause)
        finally:
            writer.close()

    good = "Authorization: Bearer " + token("mallory")
    body = b"[" + b" " * (4 << 20)
    number = iter(range(1 << 60))

    async def silence():
        await send(pause=20)

    async def kept():
        await send(head("GET", "/health"), pause=1)
        await asyncio.sleep(1)

    async def websocket():
        reader, writer = await connect(ATTACKER, port)
        try:
            writer.write(upgrade("/v1/ws"))
            await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()

    async def guess():
        wrong = f"Authorization: Bearer guess{next(number)}"
        await send(head("GET", "/v1/poll?topic=a&timeout=0", wrong))

    async def held_back(*lines):
        await send(head("POST", "/v1/publish", f"Content-Length: {len(body) + 1}", *lines), body)

    async def with_token(value, *lines):
        text = json.dumps(value).encode()
        await send(head("POST", "/v1/publish", good, f"Content-Length: {len(text)}", *lines), text)

    async def topics():
        await with_token([{"topic": f"t{next(number)}", "data": 1} for _ in range(1000)])

    async def keys():
        await with_token({"topic": "k", "data": 1}, f"Idempotency-Key: {next(number)}")

    async def slow_reader():
        reader, writer = await connect(ATTACKER, port)
        try:
            writer.write(upgrade("/v1/ws?token=" + token("mallory")))
            writer.write(frame({"type": "subscribe", "topic": "large", "since": "earliest"}))
            await asyncio.sleep(20)
        finally:
            writer.close()

    async def large():
        await with_token({"topic": "large", "data": "x" * 60000})

    return [silence, kept, websocket, guess, held_back, lambda: held_back(good), topics, keys,
            slow_reader, large]


def attack_until(port, until):
    os.nice(19)

    async def crowd():
        all_attacks = [forever(one, until) for one in attacks(port) for _ in range(SIDE_BY_SIDE)]
        random.shuffle(all_attacks)
        await asyncio.gather(*all_attacks)

    asyncio.run(crowd())


def resident(process):
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
    return 0


async def watch(process, peak, until):
    while time.monotonic() < until:
        peak.append(resident(process))
        await asyncio.sleep(0.2)


def shown(latencies):
    times = sorted(latencies)
    median, late = statistics.median(times), times[len(times) * 99 // 100]
    return f"median {median * 1000:.2f} ms, 99th percentile {late * 1000:.2f} ms of {len(times)}"


async def measure(process, port, seconds, bound):
    calm = Client(port)
    await calm.run(time.monotonic() + seconds / 4)
    before = resident(process)
    print(f"before: {shown(calm.latencies)}, refused {calm.refused}, {before} MiB")
    until, peak, client = time.monotonic() + seconds, [], Client(port)
    # In a process of its own and behind all others, so that its work is not the client's wait.
    attackers = multiprocessing.Process(target=attack_until, args=(port, until), daemon=True)
    attackers.start()
    await asyncio.gather(client.run(until), watch(process, peak, until))
    attackers.terminate()
    print(f"during: {shown(client.latencies)}, refused {client.refused}, at most {max(peak)} MiB")
    slower = statistics.median(client.latencies) / statistics.median(calm.latencies)
    print(f"{slower:.2f} times as slow; the attackers' own work on this machine is in it")
    return slower <= 2 and client.refused == 0 and max(peak) <= bound


def main():
    program = sys.argv[1]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60
    bound = int(sys.argv[3]) if len(sys.argv) > 3 else 1024
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port = random.randrange(20000, 30000)
    surroundings = dict(os.environ, TIDEWIRE_JWT_SECRET=SECRET, TIDEWIRE_LOG="error")
    process = subprocess.Popen([program, "serve", "--listen", f"127.0.0.1:{port}"], env=surroundings)
    try:
        time.sleep(2)
        good = asyncio.run(measure(process, port, seconds, bound))
    finally:
        process.terminate()
        process.wait()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
