/** The client: hands subscriptions and requests to a transport, and changes it where one is blocked. */

import type { BackoffOptions } from "./backoff.js";
import { Channel } from "./channel.js";
import type { SubscriptionHandlers, SubscriptionState } from "./channel.js";
import { abortReason, TidewireError } from "./errors.js";
import { EventQueue } from "./event_queue.js";
import type { Change, Event, Gap, Member, SubscribeRequest, Subject, TableOptions } from "./frames.js";
import { subjectKey, subjectOf } from "./frames.js";
import { HttpTransport } from "./http.js";
import { LiveTable } from "./live_table.js";
import { Store } from "./store.js";
import type { Subscribable } from "./store.js";
import { uniqueKey } from "./transport.js";
import type { ConnectionState, PublishRequest, Settings, Transport, TransportName } from "./transport.js";
import { SocketTransport } from "./websocket.js";

/** Settings of a client. */
export interface ClientOptions {
  /** A token, or where to get one: asked before each connection, and when one is about to run out. */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  /** `auto` (the default) begins with a WebSocket and goes on to SSE and polls where that is blocked. */
  transport?: "auto" | TransportName;
  backoff?: BackoffOptions;
  /** Milliseconds to wait for an answer, a handshake or a sign of life; 10,000. */
  answerTimeout?: number;
  /** Milliseconds of silence after which the server is asked whether it is there; 30,000. */
  silence?: number;
  /** Requests that may wait for an answer or a connection; 100. Beyond, they are refused. */
  queued?: number;
  /** Milliseconds that a connection which nobody needs is kept; 5,000. */
  linger?: number;
  /** Ends the client. */
  signal?: AbortSignal;
  /** In place of `JSON.parse`, for example to keep numbers that are larger than 2^53. */
  parse?: (text: string) => unknown;
  fetch?: typeof fetch;
  /** In place of the platform's, for example that of the package `ws` before Node 22. */
  WebSocket?: unknown;
}

/** A subscription in the hands of the application. */
export interface Subscription {
  /** What became of it, now and as it changes. */
  readonly state: Subscribable<SubscriptionState>;
  /** Where another subscription could go on from; not before everything up to there was received. */
  readonly position: string | undefined;
  /** Ends it; no handler is called any more. */
  unsubscribe(): void;
}

/** Options of a single call. */
export interface CallOptions {
  signal?: AbortSignal;
}

/** Who is present on a topic, and being so oneself. */
export interface Presence<Meta = Record<string, unknown>> extends Subscribable<readonly Member<Meta>[]> {
  /** Shows this client, again after each reconnect, until `untrack` or `leave`. */
  track(meta: Meta, key?: string): Promise<void>;
  untrack(): Promise<void>;
  /** Ends the subscription, and with it being seen. */
  leave(): void;
}

/** A client of one server. It connects when something is asked for, and not before. */
export class Client {
  readonly #settings: Settings;
  readonly #connection = new Store<ConnectionState>({ state: "idle" });
  /** The first has what it can; the others what is about a subject that is taken on those before. */
  #transports: Transport[] = [];
  /** Where each live channel is. */
  readonly #channels = new Map<Channel, Transport>();
  #kind: TransportName;
  readonly #isAuto: boolean;
  #isClosed = false;
  #stopWatching: () => void;

  constructor(url: string | URL, options: ClientOptions = {}) {
    this.#settings = settingsOf(url, options);
    this.#isAuto = (options.transport ?? "auto") === "auto";
    this.#kind = options.transport === undefined || options.transport === "auto" ? "websocket" : options.transport;
    if (this.#isAuto && !this.#settings.WebSocket) this.#kind = "sse";
    this.#stopWatching = watchPlatform(() => this.#transports.forEach((transport) => transport.check()));
    options.signal?.addEventListener("abort", () => this.close(), { once: true });
    if (options.signal?.aborted) this.close();
  }

  /** How the client is connected, now and as it changes. */
  get connection(): Subscribable<ConnectionState> {
    return this.#connection;
  }

  /**
   * Receives the events of a topic, of a NOTIFY channel, or the changes of a table.
   *
   * Subscriptions that ask for the same share one on the wire. After a lost connection it goes on
   * from its last position; where events are missing, `onGap` says so and why.
   */
  subscribe<Data = unknown, Row = Record<string, unknown>>(
    request: SubscribeRequest,
    handlers: SubscriptionHandlers<Data, Row>,
    { signal }: CallOptions = {},
  ): Subscription {
    if (signal?.aborted) throw abortReason(signal);
    const channel = this.#shared(request) ?? this.#begin(request);
    channel.handlers.add(handlers);
    const unsubscribe = () => {
      signal?.removeEventListener("abort", unsubscribe);
      if (channel.handlers.delete(handlers) && channel.handlers.size === 0) this.#end(channel);
    };
    signal?.addEventListener("abort", unsubscribe);
    return {
      state: channel.state,
      get position() {
        return channel.position;
      },
      unsubscribe,
    };
  }

  /**
   * The events of a subject, one after the other.
   *
   * While the reader is slow the subscription is given up and goes on later from where the reader is, so
   * memory stays bounded and nothing is lost that the server's history still has.
   */
  events<Data = unknown, Row = Record<string, unknown>>(
    request: SubscribeRequest,
    { signal, buffer = 1_000 }: CallOptions & { buffer?: number } = {},
  ): AsyncIterableIterator<Event<Data> | Change<Row> | Gap> {
    if (request.snapshot) throw new TypeError("a snapshot is for table().live()");
    return new EventQueue<Event<Data> | Change<Row> | Gap>(
      (since, handlers) => this.subscribe({ ...request, since: since ?? request.since ?? "now" }, handlers),
      buffer,
      signal,
    );
  }

  /** Publishes, once: an idempotency key lets it be sent again when an answer was lost. Gives the position. */
  async publish(request: PublishRequest, { signal }: CallOptions = {}): Promise<string | null> {
    const key = request.key ?? uniqueKey();
    const answer = await this.#first().request({ type: "publish", ...request, key }, signal);
    return answer.type === "published" ? answer.position : null;
  }

  /** A table, whose rows can be kept as they are. */
  table<Row extends object = Record<string, unknown>>(table: string, options: Omit<TableOptions, "snapshot"> = {}) {
    return {
      /** The rows that are there and every change to them, until `close` is called on it. */
      live: (): LiveTable<Row> =>
        new LiveTable<Row>((handlers) => this.subscribe<unknown, Row>({ table, ...options, snapshot: true }, handlers)),
    };
  }

  /** Who is present on a topic or channel; a subscription to it. */
  presence<Meta extends object = Record<string, unknown>>(subject: Exclude<Subject, { table: string }>): Presence<Meta> {
    const request: SubscribeRequest = { ...subjectOf(subject), presence: true };
    const members = new Store<readonly Member<Meta>[]>([]);
    const subscription = this.subscribe(request, { onMembers: (all) => members.set(all as readonly Member<Meta>[]) });
    const channel = this.#shared(request) as Channel;
    members.set(channel.members as readonly Member<Meta>[]);
    const transport = () => this.#channels.get(channel) ?? this.#first();
    return {
      getSnapshot: members.getSnapshot,
      subscribe: members.subscribe,
      track: async (meta, key) => {
        channel.tracked = { meta, ...(key !== undefined && { key }) };
        // Not before the subscription is in force, which then shows it by itself.
        if (channel.state.getSnapshot().state !== "subscribed") return settled(channel);
        await transport().request({ type: "track", ...channel.subject(), ...channel.tracked });
      },
      untrack: async () => {
        channel.tracked = undefined;
        if (channel.state.getSnapshot().state !== "subscribed") return;
        await transport().request({ type: "untrack", ...channel.subject() });
      },
      leave: () => subscription.unsubscribe(),
    };
  }

  /** Asks for the token anew and shows it on the open connection, for instance after a sign-in. */
  renewToken(): void {
    this.#transports.forEach((transport) => transport.renewToken());
  }

  /** Ends all subscriptions and refuses what is asked for later. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#stopWatching();
    this.#transports.forEach((transport) => transport.close());
    this.#channels.clear();
    this.#connection.set({ state: "closed" });
  }

  /** A live channel that gives what is asked for from now on. */
  #shared(request: SubscribeRequest): Channel | undefined {
    if (request.since !== undefined || request.snapshot) return undefined;
    const share = shareKey(request);
    for (const channel of this.#channels.keys()) {
      if (channel.share === share && channel.state.getSnapshot().state !== "ended") return channel;
    }
    return undefined;
  }

  #begin(request: SubscribeRequest): Channel {
    if (this.#isClosed) throw new TidewireError("closed", "the client was closed");
    const channel = new Channel(request, shareKey(request));
    this.#place(channel);
    const stop = channel.state.subscribe(() => {
      if (channel.state.getSnapshot().state !== "ended") return;
      stop();
      this.#channels.delete(channel);
    });
    return channel;
  }

  /** A connection has one subscription about a subject, so another one may need another connection. */
  #place(channel: Channel): void {
    this.#first();
    let transport = this.#transports.find((transport) => !transport.isTaken(channel));
    if (!transport) this.#transports.push((transport = this.#open()));
    this.#channels.set(channel, transport);
    transport.attach(channel);
  }

  #end(channel: Channel): void {
    const transport = this.#channels.get(channel);
    this.#channels.delete(channel);
    channel.end();
    transport?.detach(channel);
  }

  #first(): Transport {
    if (this.#isClosed) throw new TidewireError("closed", "the client was closed");
    let [first] = this.#transports;
    if (!first) {
      first = this.#open();
      this.#transports = [first];
      this.#follow(first);
    }
    return first;
  }

  /** Shows the state of the first connection as the client's. */
  #follow(first: Transport): void {
    const show = () => {
      if (this.#transports[0] === first && !this.#isClosed) this.#connection.set(first.state.getSnapshot());
    };
    first.state.subscribe(show);
    show();
  }

  #open(): Transport {
    const kind = this.#kind;
    const next = kind === "websocket" ? "sse" : "poll";
    const onBlocked = this.#isAuto && kind !== "poll" ? () => this.#change(kind, next) : undefined;
    if (kind === "websocket") return new SocketTransport(this.#settings, onBlocked);
    return new HttpTransport(this.#settings, kind, onBlocked);
  }

  /** Goes on with another transport, from where each channel is. */
  #change(from: TransportName, to: TransportName): void {
    if (this.#kind !== from || this.#isClosed) return;
    this.#kind = to;
    const [old, channels] = [this.#transports, [...this.#channels.keys()]];
    this.#transports = [];
    for (const [channel, transport] of this.#channels) transport.detach(channel);
    for (const channel of channels) this.#place(channel);
    const first = this.#first();
    for (const transport of old) transport.handOver(first);
  }
}

/** Equal for subscriptions that can share one on the wire. */
function shareKey(request: SubscribeRequest): string {
  const { events, columns, filter, presence = false, since, snapshot = false } = request;
  const alone = since !== undefined || snapshot ? uniqueKey() : "";
  return JSON.stringify([subjectKey(request), events, columns, filter, presence, alone]);
}

/** Ends when the channel is in force or ended. */
function settled(channel: Channel): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = channel.state.subscribe(() => {
      const state = channel.state.getSnapshot();
      if (state.state === "pending") return;
      stop();
      if (state.state === "ended") reject(state.error ?? new TidewireError("closed", "the subscription ended"));
      else resolve();
    });
  });
}

function settingsOf(url: string | URL, options: ClientOptions): Settings {
  const { token } = options;
  return {
    url: new URL(url, globalThis.location?.href),
    token: async () => (typeof token === "function" ? token() : token),
    backoff: options.backoff ?? {},
    answerTimeout: options.answerTimeout ?? 10_000,
    silence: options.silence ?? 30_000,
    queued: options.queued ?? 100,
    linger: options.linger ?? 5_000,
    parse: options.parse ?? JSON.parse,
    fetch: options.fetch ?? globalThis.fetch.bind(globalThis),
    WebSocket: (options.WebSocket ?? globalThis.WebSocket) as typeof WebSocket | undefined,
  };
}

/** Calls when the network comes back or the page is shown again, in browsers. */
function watchPlatform(call: () => void): () => void {
  if (typeof globalThis.addEventListener !== "function" || typeof document === "undefined") return () => {};
  const shown = () => document.visibilityState === "visible" && call();
  globalThis.addEventListener("online", call);
  document.addEventListener("visibilitychange", shown);
  return () => {
    globalThis.removeEventListener("online", call);
    document.removeEventListener("visibilitychange", shown);
  };
}
