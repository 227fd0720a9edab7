// Fluxbase's React example, served by us, while psql changes a table.

import assert from "node:assert/strict";

import { Skipped, until } from "./waiting.js";

/** The names of the products on the page. */
const shown = (page) => page.locator(".product").allTextContents();

/** Waits until the page shows exactly these products, in any order. */
const shows = (page, names) =>
  until(`the page shows ${names.join(", ") || "nothing"}`, async () => `${(await shown(page)).sort()}` === `${[...names].sort()}`);

export const tests = {
  async "the React example connects and shows what the server refuses"({ open }) {
    const page = await open("/examples/fluxbase?channel=table:nothing");
    await page.locator("#status", { hasText: "Status: Connected" }).waitFor();
    await page.locator(".error", { hasText: "a table is named schema.table" }).waitFor();
    assert.deepEqual(await shown(page), []);
  },

  async "what the React example says to try works as it is printed"({ server, open }) {
    await server.sql("DROP TABLE IF EXISTS products");
    const page = await open("/examples/fluxbase");
    await page.locator(".error").waitFor();
    const [make, insert, update, remove] = await page.locator("pre").allTextContents();
    await server.sql(make);
    await page.locator(".error").waitFor({ state: "detached" });
    await server.sql(insert);
    await shows(page, ["Test"]);
    await server.sql(update);
    await shows(page, ["Tested"]);
    await server.sql(remove);
    await shows(page, []);
    await server.sql("DROP TABLE products");
  },

  async "the React example shows rows as psql inserts, updates, deletes and truncates them"({ server, open }) {
    const { parts } = await server.ready();
    if (!parts.tables) throw new Skipped("the server has no source of row changes");
    await server.sql("CREATE TABLE wares (id serial PRIMARY KEY, name text, price numeric)");
    await server.sql("DO $$ BEGIN IF to_regproc('enable_realtime') IS NOT NULL THEN PERFORM enable_realtime('public', 'wares'); END IF; END $$");
    const page = await open("/examples/fluxbase?channel=table:public.wares");
    await page.locator("#status", { hasText: "Status: Connected" }).waitFor();
    // The page does not say when it is subscribed, so the first row is offered until it is seen.
    await until("the first row appears", async () => {
      await server.sql("DELETE FROM wares; INSERT INTO wares (name, price) VALUES ('first', 1)");
      return (await shown(page)).includes("first");
    });
    await server.sql("DELETE FROM wares");
    await shows(page, []);

    await server.sql("INSERT INTO wares (name, price) VALUES ('one', 99.99), ('two', 5)");
    await shows(page, ["one", "two"]);
    await server.sql("UPDATE wares SET name = 'three' WHERE name = 'one'");
    await shows(page, ["three", "two"]);
    await server.sql("DELETE FROM wares WHERE name = 'two'");
    await shows(page, ["three"]);
    await server.sql("TRUNCATE wares");
    await shows(page, []);
  },
};
