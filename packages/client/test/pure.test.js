import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { build } from "esbuild";

/** The modules as they are, which the package does not export. */
const { outputFiles } = await build({
  stdin: {
    contents: ["backoff", "event_stream", "channel", "live_table", "transport"].map((name) => `export * from "./src/${name}.ts";`).join(""),
    resolveDir: new URL("..", import.meta.url).pathname,
  },
  bundle: true, format: "esm", write: false,
});
const { backoff, EventStream, Channel, LiveTable, expiry } = await import(
  `data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`
);

test("a wait is a random part of a limit that doubles up to the longest", () => {
  const limits = [0, 1, 2, 10, 1_000].map((attempt) => backoff(attempt, null, { first: 100, longest: 1_000 }, () => 1));
  assert.deepEqual(limits, [100, 200, 400, 1_000, 1_000]);
  assert.equal(backoff(3, null, {}, () => 0), 0);
});

test("what the server asks to wait counts, whatever the attempt", () => {
  assert.equal(backoff(9, 7, {}, () => 0), 7_000);
  assert.equal(Math.round(backoff(0, 7, {}, () => 1)), 7_700);
});

test("a stream of events is read alike in any pieces", () => {
  const text = ": hello\r\nretry: 2000\r\nid: a-1\r\n\r\ndata: {\"x\":1}\ndata: 2\nid: a-2\n\nevent: gap\rdata:3\r\rid\n\n";
  const all = new EventStream().push(text);
  assert.deepEqual(all, [
    { data: "", id: "a-1" }, { data: "{\"x\":1}\n2", id: "a-2" }, { data: "3", id: undefined }, { data: "", id: "" },
  ]);
  for (let size = 1; size < text.length; size++) {
    const stream = new EventStream();
    const pieces = [];
    for (let at = 0; at < text.length; at += size) pieces.push(...stream.push(text.slice(at, at + size)));
    assert.deepEqual(pieces, all, `in pieces of ${size}`);
  }
});

test("a channel goes on from its last position, and from none while rows are missing", () => {
  const channel = new Channel({ table: "public.t", snapshot: true }, "");
  assert.equal(channel.ask().since, undefined);
  channel.receive({ type: "subscribed", position: "a-1", outcome: "fresh", table: "public.t" });
  channel.receive({ type: "rows", rows: [], last: false, table: "public.t" });
  assert.equal(channel.ask().since, undefined, "half a snapshot is none");
  channel.receive({ type: "rows", rows: [], last: true, table: "public.t" });
  assert.equal(channel.ask().since, "a-1");
  channel.receive({ type: "change", position: "a-2", op: "TRUNCATE", table: "public.t" });
  assert.equal(channel.ask().since, "a-2");
  assert.equal(channel.receive({ type: "gap", position: "a-3", reason: "connection_lost", table: "public.t" }), "ask again");
  assert.equal(channel.ask().since, undefined, "rows that a gap made doubtful are read anew");
});

test("presence is leaves, then joins, by ref", () => {
  const channel = new Channel({ topic: "t", presence: true }, "");
  const [ann, bob] = ["ann", "bob"].map((key) => ({ ref: key, key, meta: {} }));
  channel.receive({ type: "subscribed", position: "a-0", outcome: "fresh", members: [ann], topic: "t" });
  channel.receive({ type: "presence", joins: [bob, { ...ann, meta: { busy: true } }], leaves: [ann], topic: "t" });
  assert.deepEqual(channel.members, [bob, { ...ann, meta: { busy: true } }]);
});

/** A live table whose frames come from here, and what it shows once all were taken. */
function table(frames) {
  let handlers;
  const live = new LiveTable((given) => ((handlers = given), { unsubscribe() {} }));
  handlers.onSubscribed({ outcome: "fresh" });
  for (const frame of frames) frame.type === "rows" ? handlers.onRows(frame) : handlers.onChange(frame);
  return Promise.resolve().then(() => live.getSnapshot().rows);
}

test("a live table finds rows of its snapshot by the key that a change names", async () => {
  const rows = { type: "rows", rows: [{ id: 1, name: "a" }, { id: 2, name: "b" }], last: true };
  const update = { op: "UPDATE", key: { id: 2 }, record: { id: 2, name: "c" } };
  assert.deepEqual(await table([rows, update]), [{ id: 1, name: "a" }, { id: 2, name: "c" }]);
  const remove = { op: "DELETE", key: { id: 1 }, old: { id: 1 } };
  assert.deepEqual(await table([rows, remove]), [{ id: 2, name: "b" }]);
});

test("a live table follows a changed key, rows that leave, and values that were not told", async () => {
  const rows = { type: "rows", rows: [{ id: 1, big: "x" }], last: true };
  const moved = { op: "UPDATE", key: { id: 5 }, old: { id: 1 }, record: { id: 5 }, unchanged: ["big"] };
  assert.deepEqual(await table([rows, moved]), [{ id: 5, big: "x" }]);
  const leave = { op: "UPDATE", move: "leave", key: { id: 1 }, record: { id: 1, big: "y" } };
  assert.deepEqual(await table([rows, leave]), []);
});

test("a live table keeps rows without a key apart by all their values", async () => {
  const rows = { type: "rows", rows: [{ a: 1 }, { a: 2 }], last: true };
  const change = { op: "UPDATE", key: {}, old: { a: 2 }, record: { a: 3 } };
  assert.deepEqual(await table([rows, change, { op: "DELETE", key: {}, old: { a: 1 } }]), [{ a: 3 }]);
});

test("the end of a token is read where it is a JSON Web Token", () => {
  const token = `e30.${Buffer.from(JSON.stringify({ exp: 17, name: "ü?>" })).toString("base64url")}.s`;
  assert.equal(expiry(token), 17);
  assert.equal(expiry("twk_key"), undefined);
});

test("the package names no dependency", () => {
  const { dependencies } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url)));
  assert.equal(dependencies, undefined);
});
