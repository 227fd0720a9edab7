/** Events for a reader that takes them one by one, in bounded memory. */

import type { SubscriptionHandlers } from "./channel.js";
import type { Subscription } from "./client.js";
import { TidewireError } from "./errors.js";

/** Begins a subscription behind a position. */
type Begin = (since: string | undefined, handlers: SubscriptionHandlers<any, any>) => Subscription;

export class EventQueue<Item extends { position?: string }> implements AsyncIterableIterator<Item> {
  readonly #begin: Begin;
  readonly #limit: number;
  readonly #signal: AbortSignal | undefined;
  #items: Item[] = [];
  #subscription: Subscription | undefined;
  /** The last position in the queue. */
  #reached: string | undefined;
  /** Wakes the reader that waits. */
  #wake: (() => void) | undefined;
  #error: TidewireError | undefined;
  #isDone = false;
  readonly #abort = () => void this.return();

  constructor(begin: Begin, limit: number, signal?: AbortSignal) {
    this.#begin = begin;
    this.#limit = limit;
    this.#signal = signal;
    signal?.addEventListener("abort", this.#abort);
    if (signal?.aborted) void this.return();
    else this.#resume();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Item, undefined>> {
    for (;;) {
      const item = this.#items.shift();
      if (item) return { value: item, done: false };
      if (this.#error) throw this.#error;
      if (this.#isDone) return { value: undefined, done: true };
      // The reader has caught up with what it was given.
      if (!this.#subscription) this.#resume();
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** Ends the subscription; a `for await` loop calls it when it is left. */
  async return(): Promise<IteratorResult<Item, undefined>> {
    this.#isDone = true;
    this.#items = [];
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#suspend();
    this.#wake?.();
    return { value: undefined, done: true };
  }

  #resume(): void {
    const push = (item: Item) => this.#push(item);
    this.#subscription = this.#begin(this.#reached, {
      onEvent: push as never,
      onChange: push as never,
      onGap: push as never,
      onSubscribed: ({ position }) => (this.#reached ??= position),
      onEnded: (error) => {
        this.#error = error;
        this.#wake?.();
      },
    });
  }

  #push(item: Item): void {
    this.#items.push(item);
    this.#reached = item.position ?? this.#reached;
    this.#wake?.();
    if (this.#items.length >= this.#limit) this.#suspend();
  }

  #suspend(): void {
    this.#subscription?.unsubscribe();
    this.#subscription = undefined;
  }
}
