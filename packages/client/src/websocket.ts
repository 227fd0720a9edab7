/** All subscriptions and requests over one WebSocket, which is made anew whenever it is lost. */

import { backoff } from "./backoff.js";
import type { Channel } from "./channel.js";
import { abortReason, TidewireError } from "./errors.js";
import type { Close, Refused, ServerFrame, Subject } from "./frames.js";
import { subjectKey } from "./frames.js";
import { Store } from "./store.js";
import { probe } from "./http.js";
import { address, expiry } from "./transport.js";
import type { ConnectionState, Request, Settings, Transport } from "./transport.js";

/** The longest delay of a timer in browsers and Node, a signed 32-bit number of milliseconds. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** Milliseconds before its end at which a token is replaced: time to get one and for clocks that differ. */
const TOKEN_MARGIN = 30_000;

/** Handshakes in a row that fail beside a server that answers, after which WebSockets count as blocked. */
const BLOCKED_AFTER = 2;

/** A request that has no answer yet. */
interface Pending {
  id: number;
  request: Request;
  resolve(answer: ServerFrame): void;
  reject(error: unknown): void;
}

export class SocketTransport implements Transport {
  readonly name = "websocket";
  readonly state = new Store<ConnectionState>({ state: "idle" });
  readonly #settings: Settings;
  /** Called when the server can be reached but not by WebSocket, so that another transport may be tried. */
  readonly #onBlocked: (() => void) | undefined;
  readonly #channels = new Map<string, Channel>();
  readonly #pending = new Map<number, Pending>();
  /** The channel that each subscription was asked for by its number. */
  readonly #asked = new Map<number, Channel>();
  #socket: WebSocket | undefined;
  #close: Close | undefined;
  #ids = 0;
  /** Attempts that failed since the last connection that was of use. */
  #attempt = 0;
  /** Handshakes in a row that failed although the server answers other requests. */
  #blocked = 0;
  /** Whether the token in use was asked for because the one before was refused. */
  #renewed = false;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #quiet: ReturnType<typeof setTimeout> | undefined;
  #expiry: ReturnType<typeof setTimeout> | undefined;
  #idle: ReturnType<typeof setTimeout> | undefined;

  constructor(settings: Settings, onBlocked?: () => void) {
    this.#settings = settings;
    this.#onBlocked = onBlocked;
  }

  isTaken(channel: Channel): boolean {
    return this.#channels.has(channel.key);
  }

  attach(channel: Channel): void {
    this.#channels.set(channel.key, channel);
    if (this.#isOpen()) this.#subscribe(channel);
    else this.#wake();
  }

  detach(channel: Channel): void {
    if (this.#channels.get(channel.key) !== channel) return;
    this.#channels.delete(channel.key);
    if (this.#isOpen()) this.#send({ type: "unsubscribe", ...channel.subject() });
    this.#rest();
  }

  request(request: Request, signal?: AbortSignal): Promise<ServerFrame> {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    if (this.state.getSnapshot().state === "closed") return Promise.reject(closed());
    if (this.#pending.size >= this.#settings.queued) {
      const message = `${this.#settings.queued} requests wait for an answer already`;
      return Promise.reject(new TidewireError("too_many_requests", message, "later"));
    }
    return new Promise((resolve, reject) => {
      const id = ++this.#ids;
      const finish = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        this.#pending.delete(id);
        this.#rest();
      };
      const fail = (error: unknown) => {
        finish();
        reject(error);
      };
      const abort = () => fail(abortReason(signal as AbortSignal));
      const late = () => fail(new TidewireError("disconnected", "no answer in time", "later"));
      const timer = setTimeout(late, this.#settings.answerTimeout);
      signal?.addEventListener("abort", abort);
      const succeed = (answer: ServerFrame) => {
        finish();
        resolve(answer);
      };
      this.#pending.set(id, { id, request, resolve: succeed, reject: fail });
      if (this.#isOpen()) this.#send({ ...request, id });
      else this.#wake();
    });
  }

  renewToken(): void {
    if (!this.#isOpen()) return;
    const socket = this.#socket;
    void this.#settings.token().then((token) => {
      if (token === undefined || socket !== this.#socket || !this.#isOpen()) return;
      this.#watchExpiry(token);
      this.#send({ type: "authenticate", token });
    }, (error: unknown) => this.#lost(`no token: ${String(error)}`));
  }

  check(): void {
    const { state } = this.state.getSnapshot();
    if (state === "waiting") this.#connect();
    else if (this.#isOpen()) this.#ping();
  }

  handOver(to: Transport): void {
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { request, resolve, reject } of pending) to.request(request).then(resolve, reject);
    this.#end();
  }

  close(): void {
    this.#end();
  }

  /** Connects unless that is under way, was ended for good, or has to wait. */
  #wake(): void {
    clearTimeout(this.#idle);
    if (this.state.getSnapshot().state === "idle") this.#connect();
  }

  #connect(): void {
    clearTimeout(this.#retry);
    this.state.set({ state: "connecting", attempt: this.#attempt });
    this.#settings.token().then(
      (token) => this.#open(token),
      (error: unknown) => this.#lost(`no token: ${String(error)}`),
    );
  }

  #open(token: string | undefined): void {
    if (this.state.getSnapshot().state !== "connecting") return;
    const { WebSocket } = this.#settings;
    if (!WebSocket) return this.#lost("there is no WebSocket here");
    const url = address(this.#settings.url, "/v1/ws", new URLSearchParams());
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url.href, token === undefined ? [] : ["bearer", token]);
    this.#socket = socket;
    this.#close = undefined;
    // A handshake that is not answered would be waited for as long as TCP tries.
    const failed = () => void this.#handshakeFailed(socket, token);
    this.#quiet = setTimeout(failed, this.#settings.answerTimeout);
    socket.onopen = () => this.#opened(socket, token);
    socket.onclose = failed;
    // Says nothing that the end does not say, but Node ends a program for an error that nobody hears.
    socket.onerror = () => {};
  }

  /** Browsers do not tell why, so an ordinary request asks: the token, the network, or the upgrade? */
  async #handshakeFailed(socket: WebSocket, token: string | undefined): Promise<void> {
    if (socket !== this.#socket) return;
    this.#forgetSocket();
    const found = await probe(this.#settings, token);
    if (this.state.getSnapshot().state !== "connecting") return;
    if (found instanceof TidewireError) {
      const { code: name, message } = found;
      this.#close = { type: "close", code: 4501, name: "unauthorized", message, retry: false, retry_after: null };
      return this.#lost(name);
    }
    if (found === "reachable" && ++this.#blocked >= BLOCKED_AFTER && this.#onBlocked) return this.#onBlocked();
    this.#lost("the connection cannot be opened");
  }

  #opened(socket: WebSocket, token: string | undefined): void {
    if (socket !== this.#socket) return;
    this.#blocked = 0;
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#drop(socket, reason || `closed with ${code}`);
    this.state.set({ state: "open", transport: "websocket" });
    this.#listenOn();
    if (token !== undefined) this.#watchExpiry(token);
    for (const channel of this.#channels.values()) this.#subscribe(channel);
    // What was not answered is asked again; publications carry a key, so they count once.
    for (const { id, request } of this.#pending.values()) this.#send({ ...request, id });
    this.#rest();
  }

  #subscribe(channel: Channel): void {
    const id = ++this.#ids;
    this.#asked.set(id, channel);
    this.#send({ type: "subscribe", id, ...channel.ask() });
  }

  #receive(data: unknown): void {
    this.#listenOn();
    if (typeof data !== "string") return;
    let frame: ServerFrame;
    try {
      frame = this.#settings.parse(data) as ServerFrame;
    } catch {
      return this.#socket?.close(4000, "not JSON");
    }
    if (frame.type === "close") this.#close = frame;
    else if (frame.type === "error") this.#refused(frame);
    else if ("topic" in frame || "table" in frame || "notify" in frame) this.#deliver(frame);
    else this.#answer(frame);
  }

  /** A frame about a subject: an event of a channel, or the answer to a request about it. */
  #deliver(frame: ServerFrame & Subject): void {
    if (this.#answer(frame)) return;
    const asked = frame.type === "subscribed" && frame.id !== undefined ? this.#asked.get(frame.id) : undefined;
    if (frame.type === "subscribed" && frame.id !== undefined) this.#asked.delete(frame.id);
    const channel = this.#channels.get(subjectKey(frame));
    // An answer to a channel that was given up since, or replaced.
    if (!channel || (asked && asked !== channel)) return;
    if (frame.type === "ended") return this.#ended(channel, frame);
    // An event that was on its way before the channel was asked for is another's.
    if (frame.type !== "subscribed" && channel.state.getSnapshot().state !== "subscribed") return;
    if (channel.receive(frame) === "ask again") this.#subscribe(channel);
    if (frame.type !== "subscribed") return;
    this.#attempt = 0;
    this.#renewed = false;
    if (channel.tracked) this.#send({ type: "track", ...channel.subject(), ...channel.tracked });
  }

  #answer(frame: ServerFrame): boolean {
    const id = "id" in frame ? frame.id : undefined;
    const pending = id === undefined ? undefined : this.#pending.get(id);
    pending?.resolve(frame);
    return pending !== undefined;
  }

  #refused(frame: Refused): void {
    if (frame.id === undefined) return;
    const channel = this.#asked.get(frame.id);
    this.#asked.delete(frame.id);
    if (!channel) return this.#pending.get(frame.id)?.reject(TidewireError.of(frame));
    if (this.#channels.get(channel.key) !== channel) return;
    if (frame.retry === "later") return this.#subscribeLater(channel);
    this.#ended(channel, frame);
  }

  #subscribeLater(channel: Channel): void {
    const again = () => {
      if (this.#channels.get(channel.key) === channel && this.#isOpen()) this.#subscribe(channel);
    };
    setTimeout(again, backoff(++this.#attempt, null, this.#settings.backoff));
  }

  #ended(channel: Channel, told: { code: string; message: string; retry?: Refused["retry"] }): void {
    this.#channels.delete(channel.key);
    channel.end(TidewireError.of({ retry: "with_token", ...told }));
    this.#rest();
  }

  /** The socket is of no use any more. */
  #drop(socket: WebSocket, reason: string): void {
    if (socket !== this.#socket) return;
    this.#lost(reason);
  }

  #lost(reason: string): void {
    this.#forgetSocket();
    for (const channel of this.#channels.values()) channel.interrupted();
    const close = this.#close;
    if (close && !close.retry && !this.#mayRenew(close)) return this.#end(close);
    if (this.#isUnused()) return this.state.set({ state: "idle" });
    this.#waitAndRetry(close?.message ?? reason, close?.retry_after ?? null);
  }

  #waitAndRetry(reason: string, advised: number | null): void {
    const attempt = this.#attempt++;
    const wait = backoff(attempt, advised, this.#settings.backoff);
    this.state.set({ state: "waiting", retryAt: Date.now() + wait, attempt, reason });
    this.#retry = setTimeout(() => this.#connect(), wait);
  }

  /** A token that ran out or was revoked is replaced once; a second refusal in a row is final. */
  #mayRenew({ name }: Close): boolean {
    const isAboutToken = name === "token_expired" || name === "unauthorized" || name === "revoked";
    const may = !this.#renewed && isAboutToken;
    this.#renewed = may;
    return may;
  }

  #end(close?: Close): void {
    this.#forgetSocket();
    clearTimeout(this.#retry);
    clearTimeout(this.#idle);
    this.state.set(close ? { state: "closed", close } : { state: "closed" });
    const error = close ? new TidewireError(close.name, close.message) : closed();
    for (const channel of this.#channels.values()) channel.end(close ? error : undefined);
    this.#channels.clear();
    for (const pending of [...this.#pending.values()]) pending.reject(error);
  }

  #forgetSocket(): void {
    clearTimeout(this.#quiet);
    clearTimeout(this.#expiry);
    this.#asked.clear();
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /** A frame came: the server is there, and is asked again after a silence. */
  #listenOn(): void {
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.#ping(), this.#settings.silence);
  }

  #ping(): void {
    const socket = this.#socket;
    if (!socket) return;
    clearTimeout(this.#quiet);
    this.#send({ type: "ping" });
    this.#quiet = setTimeout(() => this.#drop(socket, "the server is silent"), this.#settings.answerTimeout);
  }

  #watchExpiry(token: string): void {
    clearTimeout(this.#expiry);
    const end = expiry(token);
    if (end === undefined) return;
    const wait = Math.min(end * 1_000 - Date.now() - TOKEN_MARGIN, LONGEST_TIMER);
    // One that is shorter than the margin is renewed when the server says that it ran out.
    if (wait > 0) this.#expiry = setTimeout(() => this.renewToken(), wait);
  }

  /** Closes a connection that nobody needs, after a while. */
  #rest(): void {
    clearTimeout(this.#idle);
    if (!this.#isUnused() || this.state.getSnapshot().state === "closed") return;
    const rest = () => {
      if (!this.#isUnused() || this.state.getSnapshot().state === "closed") return;
      clearTimeout(this.#retry);
      this.#forgetSocket();
      this.state.set({ state: "idle" });
    };
    this.#idle = setTimeout(rest, this.#settings.linger);
  }

  #isUnused(): boolean {
    return this.#channels.size === 0 && this.#pending.size === 0;
  }

  #isOpen(): boolean {
    return this.state.getSnapshot().state === "open";
  }

  #send(frame: object): void {
    this.#socket?.send(JSON.stringify(frame));
  }
}

function closed(): TidewireError {
  return new TidewireError("closed", "the client was closed");
}
