/** A copy of a table's rows that follows the table. */

import type { SubscriptionHandlers } from "./channel.js";
import type { Subscription } from "./client.js";
import type { TidewireError } from "./errors.js";
import type { Change } from "./frames.js";
import { Store } from "./store.js";
import type { Subscribable } from "./store.js";

/** What is known of a table. */
export interface TableState<Row> {
  /** `loading`: rows are on their way; `live`: these are the rows; `ended`: they are not followed any more. */
  status: "loading" | "live" | "ended";
  /** A row is the same object until it changes. While loading again, those from before. */
  rows: readonly Row[];
  error?: TidewireError;
}

type Begin<Row> = (handlers: SubscriptionHandlers<unknown, Row>) => Subscription;

/** The rows of a table, kept by a snapshot and the changes after it, through lost connections and gaps. */
export class LiveTable<Row extends object> implements Subscribable<TableState<Row>> {
  readonly #state = new Store<TableState<Row>>({ status: "loading", rows: [] });
  readonly #changes = new Set<(change: Change<Row>) => void>();
  readonly #subscription: Subscription;
  /** By their key as text; by their whole text while no change has said which columns are the key. */
  #rows = new Map<string, Row>();
  #keyColumns: (keyof Row & string)[] | undefined;
  /** The next rows are the first of a snapshot. */
  #isFirst = true;
  #status: TableState<Row>["status"] = "loading";
  #isScheduled = false;

  constructor(begin: Begin<Row>) {
    this.#subscription = begin({
      onSubscribed: ({ outcome }) => {
        if (outcome === "resumed") return;
        this.#isFirst = true;
        this.#setStatus("loading");
      },
      onRows: ({ rows, last }) => this.#add(rows, last),
      onChange: (change) => this.#apply(change),
      onEnded: (error) => this.#end(error),
    });
  }

  getSnapshot = (): TableState<Row> => this.#state.getSnapshot();

  subscribe = (listener: () => void): (() => void) => this.#state.subscribe(listener);

  /** Calls for each change, after it was applied; returns what ends that. */
  onChange(listener: (change: Change<Row>) => void): () => void {
    this.#changes.add(listener);
    return () => void this.#changes.delete(listener);
  }

  /** Stops following; the rows stay as they are. */
  close(): void {
    this.#subscription.unsubscribe();
    this.#end();
  }

  #add(rows: readonly Row[], last: boolean): void {
    if (this.#isFirst) this.#rows = new Map();
    this.#isFirst = false;
    for (const row of rows) this.#rows.set(this.#keyOf(row), row);
    if (last) this.#setStatus("live");
    this.#show();
  }

  #apply(change: Change<Row>): void {
    this.#learnKey(change);
    if (change.op === "TRUNCATE") this.#rows.clear();
    else if (change.op === "DELETE") this.#remove(change);
    else this.#put(change);
    this.#show();
    for (const listener of [...this.#changes]) listener(change);
  }

  #put(change: Change<Row>): void {
    if (change.move === "leave") return this.#remove(change);
    const row = change.record as Row;
    const key = this.#keyOf(change.key ?? row, row);
    const before = change.old && this.#before(change.old);
    const previous = this.#rows.get(before ?? key);
    if (before !== undefined && before !== key) this.#rows.delete(before);
    this.#rows.set(key, withUnchanged(row, previous, change.unchanged));
  }

  #remove(change: Change<Row>): void {
    const before = change.old && this.#before(change.old);
    this.#rows.delete(before ?? this.#keyOf(change.key ?? {}, change.record));
  }

  /** Where the row was before, if the change says so. */
  #before(old: Partial<Row>): string | undefined {
    const columns = this.#keyColumns;
    if (columns && !columns.every((column) => column in old)) return undefined;
    return this.#keyOf(old, old as Row);
  }

  /** A snapshot does not say which columns are the key; the first change does. */
  #learnKey({ key }: Change<Row>): void {
    if (this.#keyColumns || !key) return;
    const columns = Object.keys(key) as (keyof Row & string)[];
    if (columns.length === 0) return;
    this.#keyColumns = columns;
    this.#rows = new Map([...this.#rows.values()].map((row) => [this.#keyOf(row), row]));
  }

  /** A row without a key is known by all its values. */
  #keyOf(values: Partial<Row>, whole: Row = values as Row): string {
    const columns = this.#keyColumns;
    return JSON.stringify(columns ? columns.map((column) => values[column]) : whole);
  }

  #setStatus(status: TableState<Row>["status"]): void {
    this.#status = status;
    this.#show();
  }

  /** Shows all that comes at once as one new state. While rows are on their way the old ones stay. */
  #show(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      if (this.#state.getSnapshot().status === "ended") return;
      const rows = this.#status === "live" ? [...this.#rows.values()] : this.#state.getSnapshot().rows;
      this.#state.set({ status: this.#status, rows });
    });
  }

  #end(error?: TidewireError): void {
    const { rows, status } = this.#state.getSnapshot();
    if (status !== "ended") this.#state.set({ status: "ended", rows, ...(error && { error }) });
    this.#changes.clear();
  }
}

/** The row with those columns that the update left alone and did not tell. */
function withUnchanged<Row extends object>(row: Row, previous: Row | undefined, unchanged: (keyof Row)[] = []): Row {
  if (!previous || unchanged.length === 0) return row;
  const kept = Object.fromEntries(unchanged.map((column) => [column, previous[column]]));
  return { ...row, ...kept };
}
