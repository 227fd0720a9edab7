// The client against the real server, through a proxy that cuts connections. TIDEWIRE names the program.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { after, before, beforeEach, test } from "node:test";

import { Client, TidewireError } from "@tidewire/client";
import WebSocket from "ws";

import { Server } from "../../../clients/browser/server.js";
import { until } from "../../../clients/browser/waiting.js";
import { Proxy } from "./proxy.js";

const TRANSPORTS = ["websocket", "sse", "poll"];

const server = new Server();
let proxy;
const clients = [];
let topics = 0;

/** A client through the proxy that comes back quickly. */
function client(options = {}) {
  const made = new Client(options.url ?? proxy.url, { WebSocket, backoff: { first: 20, longest: 200 }, ...options });
  clients.push(made);
  return made;
}

/** A topic that no other test uses. */
const freshTopic = () => `test:${++topics}`;

before(async () => {
  await server.start();
  proxy = await Proxy.before(server.port);
});

beforeEach(() => {
  clients.splice(0).forEach((one) => one.close());
  proxy.blocksUpgrades = false;
  proxy.cutsAfter = Infinity;
});

after(async () => {
  clients.forEach((one) => one.close());
  await proxy.close();
  await server.stop();
});

/** Subscribes and waits until it is in force. */
async function subscribed(one, request, handlers = {}) {
  const subscription = one.subscribe(request, handlers);
  await until("the subscription is in force", () => subscription.state.getSnapshot().state === "subscribed");
  return subscription;
}

for (const transport of TRANSPORTS) {
  test(`every event comes once and in order over ${transport}, however often the connection is cut`, async () => {
    const topic = freshTopic();
    const heard = [];
    const gaps = [];
    await subscribed(client({ transport }), { topic }, {
      onEvent: ({ data }) => heard.push(data),
      onGap: ({ reason }) => gaps.push(reason),
    });
    const cutting = setInterval(() => proxy.cut(), 30);
    try {
      for (let number = 0; number < 200; number++) await server.publish({ topic, data: number });
    } finally {
      clearInterval(cutting);
    }
    await until("all events", () => heard.length >= 200);
    assert.deepEqual(heard, [...Array(200).keys()]);
    assert.deepEqual(gaps, []);
  });

  test(`a connection that is cut at any byte misses and repeats nothing over ${transport}`, async () => {
    const topic = freshTopic();
    const heard = [];
    const one = client({ transport });
    await subscribed(one, { topic }, { onEvent: ({ data }) => heard.push(data) });
    for (let bytes = 1; bytes < 700; bytes += 13) {
      proxy.cutsAfter = bytes;
      proxy.cut();
      await server.publish({ topic, data: bytes });
    }
    proxy.cutsAfter = Infinity;
    proxy.cut();
    await server.publish({ topic, data: "end" });
    await until("the last event", () => heard.at(-1) === "end", 20);
    assert.deepEqual(heard.slice(0, -1), Array.from({ length: 54 }, (_, n) => 1 + 13 * n));
  });

  test(`a live table stays equal to the database over ${transport}`, async () => {
    const table = `live_${transport}`;
    await server.sql(`CREATE TABLE ${table} (id int PRIMARY KEY, n int NOT NULL);
      INSERT INTO ${table} SELECT g, 0 FROM generate_series(1, 50) g`);
    const live = client({ transport }).table(`public.${table}`).live();
    await until("the first rows", () => live.getSnapshot().status === "live", 30);
    assert.equal(live.getSnapshot().rows.length, 50);
    for (let round = 1; round <= 10; round++) {
      if (round % 3 === 0) proxy.cut();
      await server.sql(`UPDATE ${table} SET n = n + id WHERE id % ${round} = 0;
        DELETE FROM ${table} WHERE id = ${round}; INSERT INTO ${table} VALUES (${100 + round}, ${round})`);
    }
    await server.sql(`UPDATE ${table} SET id = 1000 WHERE id = 50`);
    // What the statements above come to.
    const expected = new Map(Array.from({ length: 50 }, (_, n) => [n + 1, 0]));
    for (let round = 1; round <= 10; round++) {
      for (const [id, n] of expected) if (id % round === 0) expected.set(id, n + id);
      expected.delete(round);
      expected.set(100 + round, round);
    }
    expected.set(1000, expected.get(50));
    expected.delete(50);
    const sorted = (rows) => [...rows].sort(([a], [b]) => a - b);
    const shown = () => sorted(live.getSnapshot().rows.map(({ id, n }) => [id, n]));
    await until("the last change", () => shown().at(-1)?.[0] === 1000, 20);
    assert.deepEqual(shown(), sorted(expected));
    live.close();
  });

  test(`publishing gives the event's position over ${transport}`, async () => {
    const topic = freshTopic();
    const heard = [];
    const one = client({ transport });
    await subscribed(one, { topic }, { onEvent: (event) => heard.push(event) });
    const position = await one.publish({ topic, data: { text: "hi" }, event: "said" });
    await until("the event", () => heard.length === 1);
    assert.equal(heard[0].position, position);
    assert.deepEqual(heard[0].data, { text: "hi" });
    assert.equal(heard[0].event, "said");
    await assert.rejects(one.publish({ topic: "", data: 1 }), (error) => error instanceof TidewireError && error.code === "bad_topic");
  });
}

test("a publication whose answer was lost is said once", async () => {
  const topic = freshTopic();
  const heard = [];
  await subscribed(client({ url: server.origin }), { topic }, { onEvent: ({ data }) => heard.push(data) });
  const one = client();
  const cutting = setInterval(() => proxy.cut(), 15);
  try {
    await Promise.all(Array.from({ length: 50 }, (_, n) => one.publish({ topic, data: n })));
  } finally {
    clearInterval(cutting);
  }
  await one.publish({ topic, data: "end" });
  await until("the last event", () => heard.at(-1) === "end");
  assert.deepEqual(heard.slice(0, -1).sort((a, b) => a - b), [...Array(50).keys()]);
});

test("where WebSockets are blocked the client goes on by a stream", async () => {
  proxy.blocksUpgrades = true;
  const topic = freshTopic();
  const heard = [];
  const one = client();
  const publishing = one.publish({ topic: freshTopic(), data: 1 });
  await subscribed(one, { topic }, { onEvent: ({ data }) => heard.push(data) });
  assert.deepEqual(one.connection.getSnapshot(), { state: "open", transport: "sse" });
  assert.ok(await publishing, "what was asked for before goes on, too");
  await server.publish({ topic, data: "through" });
  await until("the event", () => heard.length === 1);
  const ended = new Promise((onEnded) => one.subscribe({ topic, presence: true }, { onEnded }));
  assert.equal((await ended).code, "not_configured", "presence is refused rather than silent");
});

test("subscriptions that ask for the same share one connection and one subscription", async () => {
  const topic = freshTopic();
  const heard = [[], []];
  const one = client();
  const first = await subscribed(one, { topic }, { onEvent: ({ data }) => heard[0].push(data) });
  await subscribed(one, { topic }, { onEvent: ({ data }) => heard[1].push(data) });
  // Those of other tests end in a moment.
  await until("one connection is left", () => proxy.connections === 1);
  await server.publish({ topic, data: 1 });
  await until("both hear", () => heard.every(({ length }) => length === 1));
  first.unsubscribe();
  await server.publish({ topic, data: 2 });
  await until("the other hears", () => heard[1].length === 2);
  assert.deepEqual(heard, [[1], [1, 2]]);
});

test("different questions about one table have an answer each", async () => {
  await server.sql("CREATE TABLE parted (id int PRIMARY KEY); INSERT INTO parted VALUES (1), (2), (3)");
  const one = client();
  const [low, high] = ["id=lt.3", "id=gte.3"].map((filter) => one.table("public.parted", { filter }).live());
  await until("both are live", () => [low, high].every((live) => live.getSnapshot().status === "live"), 30);
  assert.deepEqual([low, high].map((live) => live.getSnapshot().rows.length), [2, 1]);
});

test("a slow reader of an iterator gets every event, and its queue stays small", async () => {
  const topic = freshTopic();
  const events = client().events({ topic, since: "earliest" }, { buffer: 5 });
  for (let number = 0; number < 100; number++) await server.publish({ topic, data: number });
  const heard = [];
  for await (const event of events) {
    heard.push(event.data);
    if (heard.length === 100) break;
  }
  assert.deepEqual(heard, [...Array(100).keys()]);
});

test("an aborted signal ends an iterator and a subscription", async () => {
  const abort = new AbortController();
  const one = client();
  const events = one.events({ topic: freshTopic() }, { signal: abort.signal });
  const next = events.next();
  abort.abort();
  assert.deepEqual(await next, { value: undefined, done: true });
  assert.throws(() => one.subscribe({ topic: freshTopic() }, {}, { signal: abort.signal }));
});

test("who is present is seen by others, and again after a lost connection", async () => {
  const topic = freshTopic();
  const watching = client({ url: server.origin }).presence({ topic });
  const shown = client().presence({ topic });
  const keys = () => watching.getSnapshot().map(({ key }) => key);
  await shown.track({ typing: false }, "ann");
  await until("ann is there", () => keys().includes("ann"));
  const [{ ref }] = watching.getSnapshot();
  proxy.cut();
  await until("ann is there anew", () => watching.getSnapshot().some((member) => member.key === "ann" && member.ref !== ref));
  await shown.untrack();
  await until("ann is gone", () => keys().length === 0);
});

test("a history that was lost with the server is a gap, and events go on", async () => {
  const topic = freshTopic();
  const heard = [];
  const gaps = [];
  await subscribed(client(), { topic }, { onEvent: ({ data }) => heard.push(data), onGap: ({ reason }) => gaps.push(reason) });
  await server.publish({ topic, data: "before" });
  await until("the first event", () => heard.length === 1);
  await server.kill();
  // Its database ends a moment after it.
  await until("the server is back", () => server.start().then(() => true, () => false), 30);
  await until("the gap", () => gaps.length === 1, 20);
  await server.publish({ topic, data: "after" });
  await until("the next event", () => heard.length === 2);
  assert.deepEqual([gaps, heard], [["epoch_changed"], ["before", "after"]]);
});

test("a connection that nobody needs is closed, and made again when it is needed", async () => {
  const one = client({ linger: 1 });
  const subscription = await subscribed(one, { topic: freshTopic() });
  subscription.unsubscribe();
  await until("it rests", () => one.connection.getSnapshot().state === "idle");
  await subscribed(one, { topic: freshTopic() });
});

test("a refused subscription ends and says why, and others live on", async () => {
  const one = client();
  const heard = [];
  await subscribed(one, { topic: freshTopic() });
  const ended = new Promise((onEnded) => one.subscribe({ table: "public.nowhere" }, { onEnded }));
  assert.equal((await ended).code, "not_found");
  assert.equal(one.connection.getSnapshot().state, "open");
  assert.deepEqual(heard, []);
});

test("an error in a handler stops neither other handlers nor the connection", async () => {
  const topic = freshTopic();
  const heard = [];
  const one = client();
  const uncaught = [];
  const listeners = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => uncaught.push(error.message));
  try {
    await subscribed(one, { topic }, { onEvent() { throw new Error("mine"); } });
    await subscribed(one, { topic }, { onEvent: ({ data }) => heard.push(data) });
    await server.publish({ topic, data: 1 });
    await until("the other hears", () => heard.length === 1 && uncaught.length === 1);
    assert.deepEqual(uncaught, ["mine"]);
  } finally {
    process.removeAllListeners("uncaughtException");
    listeners.forEach((listener) => process.on("uncaughtException", listener));
  }
});

const SECRET = "a secret of at least thirty-two bytes!";

/** A token that is good for so many seconds. */
function token(seconds, subject = "ann") {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sub: subject, exp: Math.floor(Date.now() / 1_000) + seconds, tidewire: { subscribe: ["topic:*"], publish: ["topic:*"] } };
  const head = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${head}.${createHmac("sha256", SECRET).update(head).digest("base64url")}`;
}

for (const transport of TRANSPORTS) {
  test(`over ${transport} a token that runs out is replaced, and a wrong one is final`, async () => {
    const port = 20_000 + Math.floor(Math.random() * 20_000);
    const env = { ...process.env, TIDEWIRE_LISTEN: `127.0.0.1:${port}`, TIDEWIRE_AUTH_JWT_SECRET: SECRET, TIDEWIRE_AUTH_JWT_LEEWAY: "0s" };
    const strict = spawn(process.env.TIDEWIRE, ["serve"], { env, stdio: "ignore" });
    const url = `http://127.0.0.1:${port}`;
    try {
      await until("the server is there", () => fetch(`${url}/health`).then(({ ok }) => ok, () => false));
      const topic = freshTopic();
      const heard = [];
      let asked = 0;
      // The first is good for two seconds, so that it runs out during the test.
      const one = client({ url, transport, token: async () => token(asked++ === 0 ? 2 : 3_600) });
      await subscribed(one, { topic }, { onEvent: ({ data }) => heard.push(data) });
      await until("another token was asked for", () => asked >= 2, 40);
      const publisher = client({ url, transport, token: token(60) });
      await publisher.publish({ topic, data: "on" });
      await until("events go on", () => heard.length === 1, 40);

      const wrong = client({ url, transport, token: `${token(60)}x` });
      const error = await new Promise((onEnded) => wrong.subscribe({ topic }, { onEnded }));
      assert.match(error.code, /unauthorized|token_invalid/);
    } finally {
      strict.kill();
      await once(strict, "exit");
    }
  });
}
