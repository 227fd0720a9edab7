// The hooks in Chromium, in Strict Mode, with real rows that change. CHROMIUM and TIDEWIRE name the programs.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { build } from "esbuild";
import { chromium } from "playwright-core";
import { createElement } from "react";
import { renderToString } from "react-dom/server";

import { Server } from "../../../clients/browser/server.js";
import { until } from "../../../clients/browser/waiting.js";

const server = new Server();
let browser;
let script;

before(async () => {
  const bundle = await build({
    entryPoints: [new URL("app.jsx", import.meta.url).pathname],
    bundle: true, write: false, jsx: "automatic", define: { "process.env.NODE_ENV": '"development"' },
  });
  script = bundle.outputFiles[0].text;
  await server.start();
  await server.sql("CREATE TABLE items (id int PRIMARY KEY, title text); INSERT INTO items VALUES (1, 'one'), (2, 'two'), (3, 'three')");
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM });
});

after(async () => {
  await browser?.close();
  await server.stop();
});

/** The page as one user sees it, on a document of the server: browsers let no other reach this machine. */
async function open(me) {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.stack));
  page.on("console", (message) => {
    if (message.type() === "error" && !/WebSocket|ERR_/.test(message.text())) errors.push(message.text());
  });
  await page.goto(`${server.origin}/health`);
  await page.evaluate((name) => {
    document.body.replaceChildren();
    history.replaceState(null, "", `?me=${name}`);
  }, me);
  await page.addScriptTag({ content: script });
  return { page, errors, text: (selector) => page.locator(selector).innerText() };
}

async function shows({ text }, selector, expected, seconds) {
  let last;
  await until(`${selector} shows ${expected}`, async () => {
    last = (await text(selector)).replace(/\s+/g, " ").trim();
    return expected instanceof RegExp ? expected.test(last) : last === expected;
  }, seconds).catch((error) => {
    throw new Error(`${error.message}; it shows "${last}"`);
  });
}

test("hooks show rows, events and members, follow them, and leave nothing behind", async () => {
  const [ann, bob] = [await open("ann"), await open("bob")];
  await shows(ann, "#all", "live one two three", 30);
  await shows(ann, "#few", "live one two");
  await shows(ann, "#missing", "ended not_found");
  await shows(ann, "#connection", "open");
  await shows(ann, "#present", "ann,bob");
  await shows(bob, "#present", "ann,bob");

  // Only the row that changed is rendered.
  const renders = await ann.page.evaluate(() => ({ ...window.renders }));
  await server.sql("UPDATE items SET title = 'TWO' WHERE id = 2");
  await shows(ann, "#all", "live one TWO three");
  await shows(ann, "#again", "live one TWO three");
  await shows(ann, "#few", "live one TWO");
  const later = await ann.page.evaluate(() => window.renders);
  assert.equal(later[1], renders[1], "a row that did not change is the same object");
  await server.sql("UPDATE items SET id = 9 WHERE id = 1; DELETE FROM items WHERE id = 3");
  await shows(ann, "#few", "live TWO");
  await shows(ann, "#all", /^live (TWO one|one TWO)$/);

  for (const data of [1, 2, 3, 4]) await server.publish({ topic: "room", data });
  await shows(ann, "#topic", "subscribed 2,3,4");

  // Everything that the components asked for ends with them.
  await ann.page.click("button");
  await shows(bob, "#present", "bob");
  await shows(ann, "#connection", "idle");
  await ann.page.click("button");
  await shows(ann, "#few", "live TWO", 20);
  await shows(bob, "#present", "ann,bob");
  assert.deepEqual([...ann.errors, ...bob.errors], []);
  await Promise.all([ann.page.close(), bob.page.close()]);
});

test("components come back by themselves after the server was killed", async () => {
  const cleo = await open("cleo");
  await shows(cleo, "#few", /live/, 30);
  await server.kill();
  await shows(cleo, "#connection", /waiting|connecting/);
  // Its database ends a moment after it.
  await until("the server is back", () => server.start().then(() => true, () => false), 30);
  await server.sql("INSERT INTO items VALUES (0, 'zero')");
  await shows(cleo, "#few", /^live.*zero/, 30);
  await shows(cleo, "#connection", "open");
  assert.deepEqual(cleo.errors, []);
  await cleo.page.close();
});

test("rendering on a server connects nowhere", async () => {
  const { TidewireProvider, useTable, useTopic, usePresence, useConnection } = await import("@tidewire/react");
  const { Client } = await import("@tidewire/client");
  const client = new Client("http://127.0.0.1:1", { WebSocket: class { constructor() { assert.fail("it connects"); } } });
  const Shown = () => {
    const table = useTable("public.items");
    const topic = useTopic({ topic: "room" });
    const members = usePresence({ topic: "room" }, { meta: {} });
    return `${table.status} ${topic.status} ${members.length} ${useConnection().state}`;
  };
  const text = renderToString(createElement(TidewireProvider, { client }, createElement(Shown)));
  assert.equal(text, "loading pending 0 idle");
  client.close();
});
