// Every call of the API, written against the types that are generated from its description: it
// compiles when the description fits, and ends with 0 when the server answers as described.

import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

const server = createClient<paths>({ baseUrl: process.argv[2] });

type Event = components["schemas"]["Event"];

let failures = 0;

function expect(what: string, response: Response, ...statuses: number[]): void {
  if (statuses.includes(response.status)) return;
  failures += 1;
  console.error(`${what}: ${response.status}, not ${statuses.join(" or ")}`);
}

/** What each sort of event has is known from its type. */
function told(event: Event): string {
  switch (event.type) {
    case "event":
      return JSON.stringify(event.data);
    case "change":
      return `${event.op} ${JSON.stringify(event.record ?? event.old ?? event.key)}`;
    case "rows":
      return event.rows.map((row) => JSON.stringify(row)).join();
    case "gap":
      return event.reason;
  }
}

const one = await server.POST("/v1/publish", { body: { topic: "generated", data: { n: 1 } } });
expect("publish", one.response, 200);
const batch = await server.POST("/v1/publish", {
  body: [{ topic: "generated", data: 2, event: "named" }, { topic: "generated", private: true, data: null }],
  params: { header: { "Idempotency-Key": "generated" } },
});
expect("a batch", batch.response, 200);
const position = one.data && "position" in one.data ? one.data.position : null;

const history = await server.GET("/v1/history", { params: { query: { topic: "generated", after: "earliest", limit: 10 } } });
expect("history", history.response, 200);
if (history.data?.events.map(told).join() !== '{"n":1},2') failures += 1;

const poll = await server.GET("/v1/poll", {
  params: { query: { topic: ["generated"], since: position ?? undefined, timeout: 0, limit: 5, snapshot: false } },
});
expect("poll", poll.response, 200);
if (poll.data?.events.map(told).join() !== "2") failures += 1;

const rows = await server.GET("/v1/poll", {
  params: { query: { table: ["public.generated"], snapshot: true, timeout: 5, events: "INSERT,UPDATE", columns: "id", filter: "id=gte.1" } },
});
expect("rows of a table", rows.response, 200);
if (!rows.data?.events.some((event) => event.type === "rows" && event.rows.length === 2)) failures += 1;

const presence = await server.GET("/v1/presence", { params: { query: { topic: "generated" } } });
expect("presence", presence.response, 200);
const members: string[] = presence.data?.members.map(({ key }) => key) ?? [];
if (members.length) failures += 1;

const stream = await server.GET("/v1/sse", { params: { query: { notify: ["generated"] } }, parseAs: "stream" });
expect("stream", stream.response, 200);
await stream.data?.cancel();
for (const path of ["/events", "/sse"] as const) {
  const alle = await server.GET(path, { params: { query: { channels: "generated" } }, parseAs: "stream" });
  expect(path, alle.response, 200);
  await alle.data?.cancel();
}

const notify = await server.POST("/notify", { body: { channel: "generated", payload: "hi" } });
expect("notify", notify.response, 200);
if (!notify.data?.success) failures += 1;

const refused = await server.GET("/v1/history", { params: { query: { topic: "generated", before: "not a position" } } });
expect("a bad position", refused.response, 400);
if (refused.error?.error.code !== "bad_position" || refused.error.error.retry !== "never") failures += 1;

for (const path of ["/v1/ws", "/alle", "/realtime"] as const) {
  expect(path, (await server.GET(path)).response, 426);
}
for (const path of ["/v1/stats", "/v1/openapi.json", "/health", "/api/realtime/stats", "/api/v1/realtime/stats"] as const) {
  expect(path, (await server.GET(path)).response, 200);
}
expect("/", (await server.GET("/", { parseAs: "text" })).response, 200);
expect("/metrics", (await server.GET("/metrics", { parseAs: "text" })).response, 200);
const ready = await server.GET("/ready");
expect("/ready", ready.response, 200);
if (!ready.data?.parts["postgres"]?.ready) failures += 1;

if (failures) throw new Error(`${failures} calls went wrong`);
