// The clients of docs/browser.md, run as they stand there, and the proxies of docs/operating.md.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { once } from "node:events";

import { block } from "./documents.js";
import { cable } from "./cable.js";
import { NAMES, start } from "./proxies.js";
import { Skipped, until } from "./waiting.js";

const CLIENTS = { "/documented/event-source.js": block("browser.md", "js eventsource"), "/documented/websocket.js": block("browser.md", "js websocket") };

/** Opens a page of the server to which the clients of the documentation can be imported. */
async function pageWith(open, origin, path = "/health") {
  const page = await open(path, origin);
  for (const [path, body] of Object.entries(CLIENTS)) {
    await page.route(`**${path}`, (route) => route.fulfill({ body, contentType: "text/javascript" }));
  }
  return page;
}

/** Follows a topic by one of the clients; what it is given is kept in the page under a name. */
const follow = (page, { name, by, topic, tokens = [] }) =>
  page.evaluate(
    async ([name, by, topic, tokens]) => {
      const seen = ((window.seen ??= {})[name] = { frames: [], gaps: [], states: [], tokens: 0 });
      const onFrame = (frame) => seen.frames.push(frame);
      const onGap = (frame) => seen.gaps.push(frame);
      const onState = (state, why) => seen.states.push([state, why]);
      const token = () => tokens[Math.min(seen.tokens++, tokens.length - 1)];
      if (by === "EventSource") {
        const { EventStream } = await import("/documented/event-source.js");
        seen.client = new EventStream(`/v1/sse?${new URLSearchParams(topic)}`, { onFrame, onGap, onState, token });
      } else {
        const { Connection } = await import("/documented/websocket.js");
        seen.client = new Connection("/v1/ws", { onState, token, renewEvery: tokens.length ? 1_000 : 0 });
        const { snapshot, ...rest } = topic;
        seen.client.subscribe({ ...rest, ...(snapshot && { snapshot: true }) }, { onFrame, onGap });
      }
    },
    [name, by, topic, tokens],
  );

const seen = (page, name) => page.evaluate((name) => (({ client, ...rest }) => rest)(window.seen[name]), name);

/** Waits until a client was given what fits. */
const given = (page, name, what, fits) => until(`${name} is given ${what}`, async () => fits(await seen(page, name)), 30);

const data = ({ frames }) => frames.map((frame) => frame.data);
const isOpen = ({ states }) => states.some(([state]) => state === "open");
const ways = ["EventSource", "WebSocket"];

/** A proxy that knows nothing of streams: while the server is away, everything is answered with 502. */
async function plainProxy(server) {
  const proxy = createServer(async (asked, answer) => {
    const ended = new AbortController();
    answer.on("close", () => ended.abort());
    try {
      const headers = { accept: asked.headers.accept ?? "", ...(asked.headers["last-event-id"] && { "last-event-id": asked.headers["last-event-id"] }) };
      const got = await fetch(`${server.origin}${asked.url}`, { headers, signal: ended.signal });
      answer.writeHead(got.status, { "content-type": got.headers.get("content-type") });
      for await (const part of got.body) answer.write(part);
      answer.end();
    } catch {
      if (answer.headersSent) answer.destroy();
      else answer.writeHead(502).end();
    }
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const close = () => (proxy.close(), proxy.closeAllConnections());
  return { origin: `http://127.0.0.1:${proxy.address().port}`, close };
}

export const tests = {
  async "the clients of the documentation hold a table: rows first, then changes"({ server, open }) {
    await server.sql("CREATE TABLE public.held (id int PRIMARY KEY, n int); INSERT INTO public.held VALUES (1, 1), (2, 2)");
    const page = await pageWith(open, server.origin);
    for (const by of ways) {
      await follow(page, { name: by, by, topic: { table: "public.held", snapshot: "true" } });
      await given(page, by, "all rows", ({ frames }) => frames.some(({ type, last }) => type === "rows" && last));
    }
    await server.sql("UPDATE public.held SET n = 3 WHERE id = 2");
    for (const by of ways) {
      await given(page, by, "the change", ({ frames }) => frames.some(({ op, record }) => op === "UPDATE" && record.n === 3));
      const { frames } = await seen(page, by);
      assert.deepEqual(frames.flatMap(({ rows }) => rows ?? []).map(({ id }) => id).sort(), [1, 2]);
    }
  },

  async "the clients of the documentation resume after a cut, and are given each event once"({ server, open }) {
    const way = await cable(server);
    try {
      const page = await pageWith(open, way.origin);
      for (const by of ways) {
        await follow(page, { name: by, by, topic: { topic: "room:cut-clients" } });
        await given(page, by, "its subscription", isOpen);
      }
      await server.publish({ topic: "room:cut-clients", data: "before" });
      for (const by of ways) await given(page, by, "the first", (one) => data(one).includes("before"));
      way.cut();
      await server.publish({ topic: "room:cut-clients", data: "meanwhile" });
      for (const by of ways) {
        await given(page, by, "what it missed", (one) => data(one).includes("meanwhile"));
        const { frames, gaps } = await seen(page, by);
        assert.deepEqual([data({ frames }), gaps], [["before", "meanwhile"], []]);
      }
    } finally {
      way.close();
    }
  },

  async "the clients of the documentation renew their tokens and go on"({ guard, open }) {
    const guarded = await guard();
    const topic = { topic: "room:renewed" };
    const page = await pageWith(open, guarded.origin);
    for (const by of ways) {
      const tokens = [await guarded.token("3s"), await guarded.token("1h")];
      await follow(page, { name: by, by, topic, tokens });
      await given(page, by, "its subscription", isOpen);
    }
    // The tokens of both have run out when this is true: neither asked for the second one before.
    for (const by of ways) await given(page, by, "another token", ({ tokens }) => tokens > 1);
    const text = `said ${Date.now()}`;
    await until("both hear what is said with their new tokens", async () => {
      await guarded.publish({ topic: "room:renewed", data: text });
      const all = await Promise.all(ways.map(async (by) => data(await seen(page, by))));
      return all.every((one) => one.includes(text));
    }, 20);
    const { states } = await seen(page, "WebSocket");
    assert.deepEqual(states.map(([state]) => state), ["open"], "a WebSocket's token is renewed in place");
  },

  async "without a good token the documentation's client goes on trying and never opens"({ guard, open }) {
    const guarded = await guard();
    const page = await pageWith(open, guarded.origin);
    await follow(page, { name: "none", by: "EventSource", topic: { topic: "room:none" }, tokens: ["no.good.token"] });
    await given(page, "none", "an attempt that failed", ({ states }) => states.some(([state]) => state === "waiting"));
    assert.equal(isOpen(await seen(page, "none")), false);
  },

  async "behind a proxy that answers 502, a plain EventSource ends and the documentation's comes back"({ server, open }) {
    const proxy = await plainProxy(server);
    try {
      const page = await pageWith(open, proxy.origin);
      await follow(page, { name: "ours", by: "EventSource", topic: { topic: "room:502" } });
      await given(page, "ours", "its subscription", isOpen);
      await page.evaluate(() => {
        window.plain = new EventSource("/v1/sse?topic=room:502");
        return new Promise((resolve) => (window.plain.onopen = resolve));
      });
      await server.kill();
      await until("the plain EventSource has given up", () => page.evaluate(() => window.plain.readyState === EventSource.CLOSED), 20);
      await server.start();
      await given(page, "ours", "the gap", ({ gaps }) => gaps.some(({ reason }) => reason === "epoch_changed"));
      await server.publish({ topic: "room:502", data: "after" });
      await given(page, "ours", "what comes after", (one) => data(one).includes("after"));
    } finally {
      proxy.close();
    }
  },

  async "behind nginx, HAProxy and Caddy as documented, everybody comes back after the server was killed"({ server, open }) {
    if (process.env.PROXIES === "none") throw new Skipped("nginx, HAProxy and Caddy are not there");
    const proxies = [];
    try {
      for (const name of NAMES) proxies.push(await start(name, server));
      const behind = await Promise.all(proxies.map((proxy) => followBehind(proxy, open)));
      await server.publish({ topic: "room:behind", data: "before" });
      for (const page of behind) for (const by of ways) await given(page, by, "the first", (one) => data(one).includes("before"));

      await server.kill();
      for (const { name, status } of proxies) await until(`${name} answers for the server`, async () => (await status("/v1/stats")) >= 502);
      for (const page of behind) await given(page, "EventSource", "a loss", ({ states }) => states.at(-1)[0] === "waiting");
      await server.start();
      for (const page of behind) {
        for (const by of ways) await given(page, by, "the gap", ({ gaps }) => gaps.some(({ reason }) => reason === "epoch_changed"));
        await hears(page, "the gap", ({ reason }) => reason === "epoch_changed");
      }
      await server.publish({ topic: "room:behind", data: "after" });
      for (const page of behind) {
        for (const by of ways) await given(page, by, "what comes after", (one) => data(one).includes("after"));
        await hears(page, "what comes after", ({ data }) => data === "after");
      }
    } finally {
      for (const proxy of proxies) await proxy.close();
    }
  },
};

/** A page behind a proxy with both clients and a plain EventSource; the proxy hides what strangers must not see. */
async function followBehind({ name, origin, status }, open) {
  assert.deepEqual([await status("/metrics"), await status("/ready"), await status("/health")], [404, 404, 200], name);
  const page = await pageWith(open, origin);
  for (const by of ways) {
    await follow(page, { name: by, by, topic: { topic: "room:behind" } });
    await given(page, by, `its subscription behind ${name}`, isOpen);
  }
  await page.evaluate(() => {
    const heard = (window.heard = []);
    window.plain = new EventSource("/v1/sse?topic=room:behind");
    for (const type of ["message", "subscribed"]) window.plain.addEventListener(type, ({ data }) => heard.push(JSON.parse(data)));
    return new Promise((resolve) => (window.plain.onopen = resolve));
  });
  return page;
}

/** Waits until the plain EventSource of a page has heard what fits. */
async function hears(page, what, fits) {
  const { origin } = new URL(page.url());
  await until(`the EventSource at ${origin} hears ${what}`, async () => (await page.evaluate(() => window.heard)).some(fits), 30);
}
