// Libraries that stand in for the browser's EventSource, on a way that is cut below them.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { EventSource as NodeEventSource } from "eventsource";

import { cable } from "./cable.js";
import { until } from "./waiting.js";

const POLYFILL = readFileSync(createRequire(import.meta.url).resolve("event-source-polyfill/src/eventsource.min.js"), "utf8");

/** What a stream must have told once it came back: everything, once, and no gap. */
const WHOLE = ["fresh", "before", "resumed", "meanwhile"];

const words = (frames) => frames.map(({ outcome, data, reason }) => outcome ?? data ?? reason);

/** Cuts a stream between two publications; `heard` gives the frames that it has told. */
async function cutBetween(server, way, topic, heard) {
  const tells = (word) => until(`the library tells ${word}`, async () => words(await heard()).includes(word), 30);
  await tells("fresh");
  await server.publish({ topic, data: "before" });
  await tells("before");
  way.cut();
  await server.publish({ topic, data: "meanwhile" });
  await tells("meanwhile");
  assert.deepEqual(words(await heard()), WHOLE);
}

export const tests = {
  async "the npm package eventsource resumes in Node when its connection is cut"({ server }) {
    const way = await cable(server);
    const source = new NodeEventSource(`${way.origin}/v1/sse?topic=room:node`);
    try {
      const heard = [];
      for (const type of ["message", "subscribed", "gap"]) source.addEventListener(type, ({ data }) => heard.push(JSON.parse(data)));
      await cutBetween(server, way, "room:node", () => heard);
    } finally {
      source.close();
      way.close();
    }
  },

  async "the npm package event-source-polyfill resumes in a browser when its connection is cut"({ server, open }) {
    const way = await cable(server);
    try {
      const page = await open("/health", way.origin);
      await page.route("**/polyfill.js", (route) => route.fulfill({ body: POLYFILL, contentType: "text/javascript" }));
      await page.addScriptTag({ url: "/polyfill.js" });
      await page.evaluate(() => {
        window.heard = [];
        const source = new window.EventSourcePolyfill("/v1/sse?topic=room:polyfill");
        for (const type of ["message", "subscribed", "gap"]) source.addEventListener(type, ({ data }) => window.heard.push(JSON.parse(data)));
      });
      await cutBetween(server, way, "room:polyfill", () => page.evaluate(() => window.heard));
    } finally {
      way.close();
    }
  },
};
