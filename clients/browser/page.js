// The page at `/`, used as a visitor would use it.

import assert from "node:assert/strict";

import { until } from "./waiting.js";

const POSITION = /^[0-9a-f]+-\d+$/;

/** A subscription's card on the page. */
const card = (page, title) => page.locator(".card").filter({ has: page.getByRole("heading", { name: title, exact: true }) });

/** The rows of events, newest first, as `{ topic, position, data }`; notes are left out. */
const rows = (page) =>
  page.locator("#log tr:not(.note)").evaluateAll((found) =>
    found.map(({ cells: [, topic, position, data] }) => ({
      topic: topic.textContent,
      position: position.textContent,
      data: data.textContent,
    })),
  );

/** Waits for a row with this text, and gives it. */
async function row(page, data) {
  let found;
  await until(`a row says ${data}`, async () => (found = (await rows(page)).find((one) => one.data === data)));
  return found;
}

const outcome = (page, title, text) => card(page, title).locator(".outcome", { hasText: text }).waitFor();

async function subscribe(page, kind, name, { presence = false, stream = false } = {}) {
  const form = page.locator("#subscribe");
  await form.getByLabel("To").selectOption({ label: kind });
  await form.getByLabel("Name").fill(name);
  await form.getByLabel("who is there").setChecked(presence);
  await form.getByLabel("also by EventSource").setChecked(stream);
  await form.getByRole("button", { name: "Subscribe" }).click();
}

async function publish(page, kind, name, data, format = "text") {
  const form = page.locator("#publish");
  await form.getByLabel("To").selectOption({ label: kind });
  await form.getByLabel("Name").fill(name);
  await form.locator("textarea").fill(data);
  await form.getByLabel(format).check();
  await form.getByRole("button", { name: "Publish" }).click();
}

export const tests = {
  async "the page shows the rows of a table, then its changes, through a filter, and resumes"({ server, open }) {
    await server.sql("CREATE TABLE public.shown (id int PRIMARY KEY, n int); ALTER TABLE public.shown REPLICA IDENTITY FULL; INSERT INTO public.shown VALUES (1, 10), (2, 20)");
    const page = await open("/");
    await outcome(page, "NOTIFY orders", "fresh");
    const form = page.locator("#subscribe");
    await form.getByLabel("To").selectOption({ label: "table" });
    await form.getByLabel("Name").fill("public.shown");
    await form.getByLabel("Filter").fill("n=gte.20");
    await form.getByRole("button", { name: "Subscribe" }).click();
    await row(page, 'row {"id":2,"n":20}');
    await server.sql("UPDATE public.shown SET n = 30 WHERE id = 1; UPDATE public.shown SET n = 5 WHERE id = 2");
    const entered = await row(page, 'UPDATE (enter) {"id":1,"n":30}');
    assert.equal(entered.topic, "table public.shown");
    await until("the other leaves", async () => (await rows(page)).some(({ data }) => data.startsWith("UPDATE (leave)")));
    await page.getByRole("button", { name: "Drop connection" }).click();
    await page.locator("#state[data-state=waiting]").waitFor();
    await server.sql("DELETE FROM public.shown WHERE id = 1");
    await until("what was missed comes", async () => (await rows(page)).some(({ data }) => data.startsWith("DELETE")));
    await outcome(page, "table public.shown", "resumed");
    const snapshots = (await rows(page)).filter(({ data }) => data.startsWith("row "));
    assert.equal(snapshots.length, 1, "the rows come once");
  },

  async "the address of the page names tables, and the page leads to documentation and examples"({ server, open }) {
    await server.sql("CREATE TABLE public.linked (id int PRIMARY KEY); INSERT INTO public.linked VALUES (7)");
    const page = await open("/?table=public.linked");
    await row(page, 'row {"id":7}');
    for (const name of ["OpenAPI description", "Example: live rows in React"]) {
      const path = await page.getByRole("link", { name }).getAttribute("href");
      assert.equal((await fetch(new URL(path, page.url()))).status, 200, name);
    }
    assert.match(await page.getByRole("link", { name: "Documentation" }).getAttribute("href"), /docs/);
  },

  async "the page says that it came without a token where one is asked for"({ guard, open }) {
    const { origin, token } = await guard().then((guarded) => ({ origin: guarded.origin, token: guarded.token("1h") }));
    const page = await open("/?topic=room:page", origin);
    await page.locator("#state", { hasText: "without a token" }).waitFor();
    assert.equal(await page.locator("#state").getAttribute("data-state"), "anonymous");
    await page.getByLabel("Token").fill(await token);
    await page.getByRole("button", { name: "Use" }).click();
    await page.locator("#state[data-state=open]", { hasText: "connected as ann" }).waitFor();
    await outcome(page, "topic room:page", "fresh");
  },

  async "the page connects by itself, follows the channel orders, and shows what psql says"({ server, open }) {
    const page = await open("/");
    await page.locator("#state", { hasText: "connected" }).waitFor();
    await outcome(page, "NOTIFY orders", "fresh");
    await server.sql("NOTIFY orders, 'hi'");
    const { topic, position } = await row(page, "hi");
    assert.equal(topic, "NOTIFY orders");
    assert.match(position, POSITION);
    assert.equal(await card(page, "NOTIFY orders").locator(".position").textContent(), position);
  },

  async "the address of the page names what it subscribes to"({ open }) {
    const page = await open("/?topic=room:a&notify=alerts");
    await outcome(page, "topic room:a", "fresh");
    await outcome(page, "NOTIFY alerts", "fresh");
    assert.equal(await page.locator(".card").count(), 2);
  },

  async "what is published to a topic appears with the position that the publisher was told"({ open }) {
    const page = await open("/?topic=room:b");
    await outcome(page, "topic room:b", "fresh");
    await publish(page, "topic", "room:b", "hello");
    const { position } = await row(page, "hello");
    await page.locator("#publish .answer", { hasText: `published at ${position}` }).waitFor();
    await publish(page, "topic", "room:b", '{"n":12345678901234567890}', "JSON");
    await page.locator("#publish .answer[data-look=good]").waitFor();
    await publish(page, "topic", "room:b", "{no", "JSON");
    await page.locator("#publish .answer", { hasText: "not JSON" }).waitFor();
  },

  async "what is published to a channel comes back from PostgreSQL"({ open }) {
    const page = await open("/?notify=pages");
    await outcome(page, "NOTIFY pages", "fresh");
    await publish(page, "NOTIFY channel", "pages", "by way of PostgreSQL");
    assert.equal((await row(page, "by way of PostgreSQL")).topic, "NOTIFY pages");
  },

  async "a dropped connection resumes: what was said meanwhile comes, and comes once"({ server, open }) {
    const page = await open("/?topic=room:c");
    await outcome(page, "topic room:c", "fresh");
    await server.publish({ topic: "room:c", data: "before" });
    const { position } = await row(page, "before");
    await page.getByRole("button", { name: "Drop connection" }).click();
    await page.locator("#state[data-state=waiting]").waitFor();
    await server.publish({ topic: "room:c", data: "meanwhile" });
    await outcome(page, "topic room:c", `resumed after ${position}`);
    await server.publish({ topic: "room:c", data: "after" });
    await row(page, "after");
    assert.deepEqual((await rows(page)).map(({ data }) => data), ["after", "meanwhile", "before"]);
  },

  async "two pages see each other come, return after a lost connection, and go"({ open }) {
    const [one, two] = [await open("/?topic=room:x"), await open("/?topic=room:x")];
    const members = (page) => card(page, "topic room:d").locator(".members li");
    const track = async (page, key) => {
      await subscribe(page, "topic", "room:d", { presence: true });
      await outcome(page, "topic room:d", "fresh");
      await card(page, "topic room:d").getByLabel("Be seen as").fill(key);
      await card(page, "topic room:d").getByRole("button", { name: "Track", exact: true }).click();
      await members(page).filter({ hasText: `${key} (you)` }).waitFor();
    };
    await track(one, "Ada");
    await track(two, "Grace");
    await members(one).filter({ hasText: "Grace" }).waitFor();
    await members(two).filter({ hasText: "Ada" }).waitFor();

    await two.getByRole("button", { name: "Drop connection" }).click();
    await until("Grace is gone", async () => (await members(one).count()) === 1);
    await members(one).filter({ hasText: "Grace" }).waitFor();
    await card(two, "topic room:d").getByRole("button", { name: "Untrack" }).click();
    await until("Grace is not seen any more", async () => (await members(one).count()) === 1);
    await one.close();
    await until("Ada is gone", async () => (await members(two).count()) === 0);
  },

  async "EventSource tells the same as the WebSocket"({ server, open }) {
    const page = await open("/?topic=room:x");
    await subscribe(page, "topic", "room:e", { stream: true });
    await card(page, "topic room:e").locator(".stream dd", { hasText: "0 events" }).waitFor();
    await server.publish({ topic: "room:e", data: "twice" });
    await until("both have told it", async () => (await rows(page)).length === 2);
    const found = await rows(page);
    assert.equal(found[0].position, found[1].position);
    assert.deepEqual(found.map(({ topic }) => topic).sort(), ["topic room:e EventSource", "topic room:e WebSocket"]);
  },

  async "after unsubscribing nothing comes any more"({ server, open }) {
    const page = await open("/?topic=room:f&topic=room:g");
    await outcome(page, "topic room:g", "fresh");
    await page.getByRole("button", { name: "Unsubscribe from topic room:f" }).click();
    await until("the card is gone", async () => (await page.locator(".card").count()) === 1);
    await server.publish([{ topic: "room:f", data: "unheard" }, { topic: "room:g", data: "heard" }]);
    await row(page, "heard");
    assert.equal((await rows(page)).length, 1);
  },

  async "a name that is none is refused beside the form, and the page goes on"({ open }) {
    const page = await open("/?topic=room:h");
    await subscribe(page, "NOTIFY channel", "x".repeat(64));
    await page.locator("#subscribe .answer[data-look=bad]").waitFor();
    await subscribe(page, "private topic", "room:h");
    await outcome(page, "private room:h", "fresh");
    assert.equal(await page.locator(".card").count(), 2);
  },

  async "markup in an event stays text"({ server, open }) {
    const page = await open("/?topic=room:i");
    await outcome(page, "topic room:i", "fresh");
    const markup = "<img src=x onerror=\"document.title='lost'\"><script>document.title='lost'</script>";
    await server.publish({ topic: "room:i", event: markup, data: markup });
    await row(page, `[${markup}] ${markup}`);
    assert.equal(await page.locator("#log img, #log script").count(), 0);
    assert.equal(await page.title(), "Tidewire");
  },

  async "the log keeps the last 500 events of a flood"({ server, open }) {
    const page = await open("/?topic=room:j");
    await outcome(page, "topic room:j", "fresh");
    await server.publish(Array.from({ length: 700 }, (_, n) => ({ topic: "room:j", data: `event ${n}` })));
    await row(page, "event 699");
    await until("the page has counted all", async () => {
      return (await card(page, "topic room:j").locator(".count").textContent()) === "700";
    });
    const found = (await rows(page)).map(({ data }) => data);
    assert.deepEqual([found.length, found[0], found[499]], [500, "event 699", "event 200"]);
  },

  async "on a telephone and in the dark nothing is wider than the screen"({ server, open }) {
    const page = await open("/?topic=room:k");
    await page.setViewportSize({ width: 360, height: 740 });
    await page.emulateMedia({ colorScheme: "dark" });
    await outcome(page, "topic room:k", "fresh");
    await server.publish({ topic: "room:k", data: "w".repeat(1_000) });
    await row(page, "w".repeat(1_000));
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  },
};
