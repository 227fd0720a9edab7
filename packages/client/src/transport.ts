import type { BackoffOptions } from "./backoff.js";
import type { Channel } from "./channel.js";
import type { Close, ServerFrame, Subject } from "./frames.js";
import type { Store } from "./store.js";

/** How the client is connected. */
export type ConnectionState =
  /** Nothing is subscribed or asked for, so there is no connection. */
  | { state: "idle" }
  | { state: "connecting"; attempt: number }
  | { state: "open"; transport: TransportName }
  /** Until `retryAt`, in milliseconds since 1970. */
  | { state: "waiting"; retryAt: number; attempt: number; reason: string }
  /** For good; `close` says why where the server ended it. */
  | { state: "closed"; close?: Close };

export type TransportName = "websocket" | "sse" | "poll";

/** A publication. */
export type PublishRequest = Exclude<Subject, { table: string }> & {
  data: unknown;
  event?: string;
  /** `false`: not back to this client's own subscription. */
  echo?: boolean;
  /** An idempotency key; one is made where there is none. */
  key?: string;
};

/** A request other than a subscription, without its `id`. */
export type Request =
  | ({ type: "publish" } & PublishRequest)
  | ({ type: "track"; key?: string; meta?: object } & Subject)
  | ({ type: "untrack" } & Subject);

/** Settings that all transports read. */
export interface Settings {
  /** Where the server is, without a path of ours at the end. */
  url: URL;
  token: () => Promise<string | undefined>;
  backoff: BackoffOptions;
  /** Milliseconds to wait for an answer. */
  answerTimeout: number;
  /** Milliseconds without a frame after which the server is asked whether it is there. */
  silence: number;
  /** Requests that may wait for an answer or a connection. */
  queued: number;
  /** Milliseconds that a connection which nobody needs is kept. */
  linger: number;
  parse: (text: string) => unknown;
  fetch: typeof fetch;
  WebSocket: typeof WebSocket | undefined;
}

/** A way to the server. */
export interface Transport {
  readonly name: TransportName;
  readonly state: Store<ConnectionState>;
  /** Whether a channel about the same subject is attached, where there can be one only. */
  isTaken(channel: Channel): boolean;
  /** Asks for the channel now and after each reconnect. */
  attach(channel: Channel): void;
  /** Gives the channel up. */
  detach(channel: Channel): void;
  /** Sends a request and gives its answer. */
  request(request: Request, signal?: AbortSignal): Promise<ServerFrame>;
  /** Asks for the token anew and shows it. */
  renewToken(): void;
  /** The network changed or the page woke up: look whether the connection is alive. */
  check(): void;
  /** Ends, and gives requests without an answer to another transport. */
  handOver(to: Transport): void;
  close(): void;
}

/** The address of one of the server's paths. */
export function address(base: URL, path: string, parameters: URLSearchParams): URL {
  const url = new URL(base);
  url.pathname = base.pathname.replace(/\/$/, "") + path;
  url.search = parameters.toString();
  return url;
}

/** Seconds since 1970 when a JSON Web Token runs out, where it is one that says so. */
export function expiry(token: string): number | undefined {
  try {
    const claims = token.split(".")[1] ?? "";
    const { exp } = JSON.parse(atob(claims.replace(/-/g, "+").replace(/_/g, "/"))) as { exp?: unknown };
    return typeof exp === "number" ? exp : undefined;
  } catch {
    return undefined;
  }
}

/** Ends after so many milliseconds, or when the signal is aborted. */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
  });
}

/** Aborted as soon as one of them is; `AbortSignal.any` is not in every browser of the last years. */
export function anyOf(...signals: (AbortSignal | undefined)[]): AbortSignal {
  const controller = new AbortController();
  for (const signal of signals) {
    if (!signal) continue;
    const abort = () => controller.abort(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true, signal: controller.signal });
  }
  return controller.signal;
}

/** A key that no other publication has. `crypto.randomUUID` is only there on pages of secure origins. */
export function uniqueKey(): string {
  const words = Array.from({ length: 4 }, () => Math.floor(Math.random() * 2 ** 32));
  globalThis.crypto?.getRandomValues(new Uint32Array(4)).forEach((word, index) => (words[index] = word));
  return words.map((word) => word.toString(36)).join("-");
}
