// Runs the tests in Chromium against one server and prints a line for each; with ONLY=words, those
// whose names have the words.

import { chromium } from "playwright-core";

import * as documented from "./documented.js";
import * as eventSource from "./event_source.js";
import * as fluxbase from "./fluxbase.js";
import { Guarded } from "./guarded.js";
import * as libraries from "./libraries.js";
import * as page from "./page.js";
import { Server } from "./server.js";
import { Skipped, within } from "./waiting.js";

/** Seconds for one test; those that restart the server wait for it and for the browser's pauses. */
const TEST = 40;

const server = new Server();
const guarded = new Guarded();
let browser = null;

/** The server that asks for tokens, started for the first test that wants it. */
async function guard() {
  if (!guarded.origin) await guarded.start();
  return guarded;
}

async function end(code) {
  await browser?.close().catch(() => {});
  await guarded.stop();
  await server.stop();
  process.exit(code);
}

process.on("SIGTERM", () => end(143));
process.on("SIGINT", () => end(130));
process.on("uncaughtException", (error) => {
  console.error(error);
  end(1);
});

await server.start();
browser = await chromium.launch({ executablePath: process.env.CHROMIUM });

let failed = 0;
// Those of the last suites stop and kill the server.
const tests = [page, fluxbase, libraries, eventSource, documented].flatMap((suite) => Object.entries(suite.tests));
const wanted = process.env.ONLY ?? "";
for (const [name, test] of tests.filter(([name]) => name.includes(wanted))) {
  try {
    await within(TEST, name, inPages(test));
    console.log(`ok     ${name}`);
  } catch (error) {
    if (error instanceof Skipped) {
      console.log(`skip   ${name}: ${error.message}`);
      continue;
    }
    failed += 1;
    console.log(`FAILED ${name}\n${error.stack}`);
  }
}
if (failed) console.error(server.log());
await end(failed ? 1 : 0);

/** Gives a test pages of its own; what the browser complains about fails it. */
async function inPages(test) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ignoreHTTPSErrors: true });
  context.setDefaultTimeout(10_000);
  const complaints = [];
  const open = async (path, origin = server.origin) => {
    const opened = await context.newPage();
    opened.on("pageerror", (error) => complaints.push(error.stack));
    opened.on("console", (message) => {
      // That a server is away is what some tests are about.
      const away = /ERR_(CONNECTION|EMPTY|INCOMPLETE|HTTP2)|WebSocket connection|status of (401|502|503)|favicon/;
      const text = `${message.text()} ${message.location().url}`;
      if (message.type() === "error" && !away.test(text)) complaints.push(text);
    });
    await opened.goto(`${origin}${path}`);
    return opened;
  };
  try {
    await test({ server, guard, open });
  } catch (error) {
    throw complaints.length ? new Error(`${error.message}\n${complaints.join("\n")}`, { cause: error }) : error;
  } finally {
    await context.close();
  }
  if (complaints.length) throw new Error(`the browser complains: ${complaints.join("\n")}`);
}
