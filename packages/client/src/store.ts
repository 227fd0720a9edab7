/** A value that can be read at any time and tells when it was replaced. */
export interface Subscribable<Value> {
  /** The present value; the same object until it changes. */
  getSnapshot(): Value;
  /** Calls `listener` after each change; returns what ends that. */
  subscribe(listener: () => void): () => void;
}

/** A [`Subscribable`] that its owner sets. */
export class Store<Value> implements Subscribable<Value> {
  #value: Value;
  readonly #listeners = new Set<() => void>();

  constructor(value: Value) {
    this.#value = value;
  }

  getSnapshot = (): Value => this.#value;

  subscribe = (listener: () => void): (() => void) => {
    // Each subscription is its own, also of the same function.
    const own = () => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  };

  set(value: Value): void {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const listener of [...this.#listeners]) isolated(listener);
  }
}

/** Runs a callback of the application, whose errors must not stop the client: they are reported as uncaught. */
export function isolated(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
