import type { Subscribable } from "@tidewire/client";

/**
 * A value that is kept up to date only while somebody subscribes to it.
 *
 * React may render without ever showing the result, and in Strict Mode subscribes, leaves and subscribes
 * again; so what costs a subscription begins with the first subscriber and ends a moment after the last.
 */
export class LazyStore<Value> implements Subscribable<Value> {
  readonly initial: Value;
  readonly #start: (set: (value: Value) => void) => () => void;
  readonly #onIdle: () => void;
  readonly #listeners = new Set<() => void>();
  #value: Value;
  #stop: (() => void) | undefined;

  /**
   * @param start begins to set values, and returns what ends that
   * @param onIdle called when it has ended
   */
  constructor(initial: Value, start: (set: (value: Value) => void) => () => void, onIdle: () => void = () => {}) {
    this.initial = this.#value = initial;
    this.#start = start;
    this.#onIdle = onIdle;
  }

  getSnapshot = (): Value => this.#value;

  /** On a server nothing is ever known. */
  getServerSnapshot = (): Value => this.initial;

  subscribe = (listener: () => void): (() => void) => {
    const own = () => listener();
    this.#listeners.add(own);
    this.#stop ??= this.#start(this.#set);
    return () => {
      this.#listeners.delete(own);
      queueMicrotask(() => this.#rest());
    };
  };

  #set = (value: Value): void => {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const listener of [...this.#listeners]) listener();
  };

  #rest(): void {
    if (this.#listeners.size > 0 || !this.#stop) return;
    this.#stop();
    this.#stop = undefined;
    this.#value = this.initial;
    this.#onIdle();
  }
}
