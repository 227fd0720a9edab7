import type { Client, TableOptions, TableState } from "@tidewire/client";
import { useSyncExternalStore } from "react";

import { LazyStore } from "./lazy_store.js";
import { useClient } from "./provider.js";

/** The tables that components follow now, by what they ask for: those that ask for the same share one. */
const tables = new WeakMap<Client, Map<string, LazyStore<TableState<any>>>>();

const LOADING: TableState<never> = { status: "loading", rows: [] };

/**
 * The rows of a table that the options admit, kept as they are in the database.
 *
 * `status` is `loading` until the first rows are there and after a gap, `ended` with an `error` where the
 * server refuses. A row is the same object until it changes.
 */
export function useTable<Row extends object = Record<string, unknown>>(
  table: string,
  options: Omit<TableOptions, "snapshot"> = {},
): TableState<Row> {
  const store = storeOf<Row>(useClient(), table, options);
  return useSyncExternalStore(store.subscribe, store.getSnapshot, store.getServerSnapshot);
}

function storeOf<Row extends object>(
  client: Client, table: string, { events, columns, filter }: Omit<TableOptions, "snapshot">,
): LazyStore<TableState<Row>> {
  const key = JSON.stringify([table, events, columns, filter]);
  const stores = tables.get(client) ?? new Map<string, LazyStore<TableState<any>>>();
  tables.set(client, stores);
  let store = stores.get(key);
  if (!store) {
    const options = { ...(events && { events }), ...(columns && { columns }), ...(filter !== undefined && { filter }) };
    const forget = () => void stores.delete(key);
    store = new LazyStore<TableState<Row>>(LOADING, (set) => follow(client, table, options, set), forget);
    stores.set(key, store);
  }
  return store as LazyStore<TableState<Row>>;
}

function follow<Row extends object>(
  client: Client, table: string, options: Omit<TableOptions, "snapshot">, set: (state: TableState<Row>) => void,
): () => void {
  const live = client.table<Row>(table, options).live();
  const show = () => set(live.getSnapshot());
  const stop = live.subscribe(show);
  show();
  return () => {
    stop();
    live.close();
  };
}
