// The browser's own EventSource, and what it and the page make of lost connections and servers.

import assert from "node:assert/strict";

import { cable } from "./cable.js";
import { until } from "./waiting.js";

/** Opens an EventSource in the page that notes all it hears under a name. */
async function listen(page, name, path, types) {
  await page.evaluate(([name, path, types]) => {
    const source = new EventSource(path);
    const heard = [];
    for (const type of types) {
      source.addEventListener(type, ({ data, lastEventId }) => heard.push({ type, data: JSON.parse(data), id: lastEventId }));
    }
    (window.heard ??= {})[name] = heard;
    return new Promise((resolve) => source.addEventListener("open", resolve, { once: true }));
  }, [name, path, types]);
}

/** Waits until the EventSource has heard something that fits, and gives it. */
async function heard(page, name, what, fits) {
  let found;
  await until(`${name} hears ${what}`, async () => (found = (await page.evaluate((name) => window.heard[name], name)).find(fits)), 20);
  return found;
}

const said = (text) => ({ type, data }) => type === "message" && (data.data ?? data.payload) === text;

export const tests = {
  async "EventSource hears a channel in Alle's words and in ours"({ server, open }) {
    const page = await open("/?topic=room:x");
    await listen(page, "alle", "/events?channels=orders", ["message", "gap"]);
    await listen(page, "native", "/v1/sse?notify=orders", ["message", "subscribed"]);
    await server.sql("NOTIFY orders, 'to everyone'");
    const alle = await heard(page, "alle", "the notification", said("to everyone"));
    assert.deepEqual(alle.data, { channel: "orders", payload: "to everyone" });
    const native = await heard(page, "native", "the notification", said("to everyone"));
    assert.equal(native.id, native.data.position);
    assert.equal(native.data.notify, "orders");
  },

  async "an EventSource whose connection broke resumes where it was"({ server, open }) {
    const way = await cable(server);
    try {
      const page = await open("/?topic=room:x", way.origin);
      await listen(page, "native", "/v1/sse?topic=room:cut", ["message", "subscribed"]);
      await server.publish({ topic: "room:cut", data: "before" });
      await heard(page, "native", "the first", said("before"));
      way.cut();
      await server.publish({ topic: "room:cut", data: "meanwhile" });
      await heard(page, "native", "what it missed", said("meanwhile"));
      const all = await page.evaluate(() => window.heard.native);
      const words = all.map(({ data }) => data.outcome ?? data.data);
      assert.deepEqual(words, ["fresh", "before", "resumed", "meanwhile"]);
    } finally {
      way.close();
    }
  },

  async "a server that stops says so, and the page waits as long as it was told"({ server, open }) {
    const page = await open("/?topic=room:stop");
    await page.locator(".outcome", { hasText: "fresh" }).waitFor();
    await server.terminate();
    await page.locator("#state", { hasText: /the server restarts.*coming back in \d+ s/ }).waitFor();
    // Before the server is back, so that the page does not come back by itself meanwhile.
    await page.getByRole("button", { name: "Disconnect" }).click();
    await server.start();
    await page.getByRole("button", { name: "Connect", exact: true }).click();
    await page.locator(".outcome", { hasText: "gap: epoch_changed" }).waitFor();
  },

  async "after a crash of the server everybody comes back and is told that something may be lost"({ server, open }) {
    const page = await open("/?notify=orders");
    await page.locator(".outcome", { hasText: "fresh" }).waitFor();
    await listen(page, "alle", "/events?channels=orders", ["message", "gap"]);
    await listen(page, "native", "/v1/sse?notify=orders", ["message", "subscribed"]);
    await server.sql("NOTIFY orders, 'before the crash'");
    for (const name of ["alle", "native"]) await heard(page, name, "the first", said("before the crash"));

    await server.kill();
    await page.locator("#state[data-state=waiting]").waitFor();
    await server.start();
    const gap = await heard(page, "native", "gap", ({ data }) => data.outcome === "gap");
    assert.equal(gap.data.reason, "epoch_changed");
    const lost = await heard(page, "alle", "gap", ({ type }) => type === "gap");
    assert.deepEqual(lost.data, { channel: "orders", reason: "epoch_changed" });
    await page.locator(".outcome", { hasText: "gap: epoch_changed" }).waitFor({ timeout: 20_000 });

    await server.sql("NOTIFY orders, 'after the crash'");
    for (const name of ["alle", "native"]) await heard(page, name, "the next", said("after the crash"));
    await page.locator("#log td", { hasText: "after the crash" }).waitFor();
  },
};
