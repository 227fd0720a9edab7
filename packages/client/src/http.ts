/** Subscriptions over HTTP, where WebSockets are blocked: a stream or a chain of polls for each, and posts. */

import { backoff } from "./backoff.js";
import type { Channel } from "./channel.js";
import { TidewireError } from "./errors.js";
import type { Close, Gap, Refused, ServerFrame, SubscribeRequest } from "./frames.js";
import { EventStream } from "./event_stream.js";
import { Store } from "./store.js";
import { address, anyOf, pause } from "./transport.js";
import type { ConnectionState, Request, Settings, Transport } from "./transport.js";

/** Milliseconds without a byte after which a stream counts as lost; the server sends a comment each 25 s. */
const STREAM_SILENCE = 60_000;

/** Seconds that one poll waits, which is the server's own default. */
const POLL_SECONDS = 25;

/** Whether the server answers, and what it says of the token. */
export async function probe(settings: Settings, token: string | undefined): Promise<"reachable" | "unreachable" | TidewireError> {
  try {
    const answer = await get(settings, "/v1/stats", new URLSearchParams(), token, AbortSignal.timeout(settings.answerTimeout));
    await answer.body?.cancel();
    return "reachable";
  } catch (error) {
    if (!(error instanceof TidewireError)) return "unreachable";
    // Another refusal is no verdict about the token.
    return error.code.startsWith("token_") || error.code === "unauthorized" ? error : "reachable";
  }
}

async function get(settings: Settings, path: string, parameters: URLSearchParams, token: string | undefined, signal: AbortSignal, init?: RequestInit): Promise<Response> {
  const headers = new Headers(init?.headers);
  if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
  const answer = await settings.fetch(address(settings.url, path, parameters).href, { ...init, headers, signal, cache: "no-store" });
  if (answer.ok) return answer;
  throw refusal(answer.status, await answer.text());
}

/** The error in an answer, or one of our own where a proxy answered. */
function refusal(status: number, body: string): Error {
  try {
    const { error } = JSON.parse(body) as { error: Refused };
    if (typeof error.code === "string") return TidewireError.of(error);
  } catch {
    // Not the server's.
  }
  return new Error(`HTTP status ${status}`);
}

/** A subscription as query parameters. */
function parametersOf(request: SubscribeRequest): URLSearchParams {
  const parameters = new URLSearchParams();
  if ("table" in request) parameters.set("table", request.table);
  else if ("notify" in request) parameters.set("notify", request.notify);
  else parameters.set(request.private ? "private" : "topic", request.topic);
  if (request.since !== undefined) parameters.set("since", request.since);
  if (request.events) parameters.set("events", request.events.join(","));
  if (request.columns) parameters.set("columns", request.columns.join(","));
  if (request.filter !== undefined) parameters.set("filter", request.filter);
  if (request.snapshot) parameters.set("snapshot", "true");
  return parameters;
}

/** The stream ended as the server said, or the subscription has to be asked for again. */
class Interrupted extends Error {
  constructor(readonly close?: Close) {
    super(close?.message ?? "ask again");
  }
}

export class HttpTransport implements Transport {
  readonly state = new Store<ConnectionState>({ state: "idle" });
  readonly #settings: Settings;
  readonly #onBlocked: (() => void) | undefined;
  readonly #running = new Map<Channel, AbortController>();
  readonly #closed = new AbortController();

  /** @param onBlocked called when streams do not come through, so that polls may be tried */
  constructor(settings: Settings, readonly name: "sse" | "poll", onBlocked?: () => void) {
    this.#settings = settings;
    this.#onBlocked = onBlocked;
  }

  /** Each has a request of its own, so any number may be about one subject. */
  isTaken(): boolean {
    return false;
  }

  attach(channel: Channel): void {
    this.#running.get(channel)?.abort();
    const controller = new AbortController();
    this.#running.set(channel, controller);
    // Not at once, so that handlers that are being added hear of it.
    if (channel.wantsPresence) return queueMicrotask(() => this.#ended(channel, noPresence()));
    void this.#run(channel, anyOf(controller.signal, this.#closed.signal));
  }

  detach(channel: Channel): void {
    this.#running.get(channel)?.abort();
    this.#running.delete(channel);
    if (this.#running.size === 0) this.#setState({ state: "idle" });
  }

  async request(request: Request, signal?: AbortSignal): Promise<ServerFrame> {
    if (request.type !== "publish") {
      throw noPresence();
    }
    const { type: _, echo: __, ...body } = request;
    const late = AbortSignal.timeout(this.#settings.answerTimeout);
    const until = anyOf(late, this.#closed.signal, signal);
    for (let attempt = 0; ; attempt++) {
      try {
        const init = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
        const answer = await get(this.#settings, "/v1/publish", new URLSearchParams(), await this.#settings.token(), until, init);
        const { position } = this.#settings.parse(await answer.text()) as { position: string | null };
        return { type: "published", position };
      } catch (error) {
        if (late.aborted && !signal?.aborted) throw new TidewireError("disconnected", "no answer in time", "later");
        if (until.aborted || error instanceof TidewireError) throw error;
        // With its key it counts once, however often it is sent.
        await pause(backoff(attempt, null, this.#settings.backoff), until);
      }
    }
  }

  /** The next request carries the new one. */
  renewToken(): void {}

  check(): void {
    if (this.state.getSnapshot().state === "waiting") {
      for (const channel of [...this.#running.keys()]) this.attach(channel);
    }
  }

  /** Its requests go on by themselves: each is one of its own. */
  handOver(): void {
    for (const controller of this.#running.values()) controller.abort();
    this.#running.clear();
  }

  close(): void {
    this.#closed.abort();
    for (const channel of this.#running.keys()) channel.end();
    this.#running.clear();
    this.state.set({ state: "closed" });
  }

  /** Asks again and again until the channel is given up or refused for good. */
  async #run(channel: Channel, signal: AbortSignal): Promise<void> {
    let attempt = 0;
    let renewed = false;
    const worked = () => {
      attempt = 0;
      renewed = false;
      this.#setState({ state: "open", transport: this.name });
    };
    while (!signal.aborted) {
      if (attempt > 0) this.#setState({ state: "connecting", attempt });
      try {
        await this[this.name](channel, signal, worked);
      } catch (error) {
        if (signal.aborted) return;
        channel.interrupted();
        if (isAboutToken(error) && !renewed) renewed = true;
        else if (isFinal(error)) return this.#ended(channel, error);
        const wait = backoff(attempt, advised(error), this.#settings.backoff);
        this.#setState({ state: "waiting", retryAt: Date.now() + wait, attempt, reason: String((error as Error).message) });
        attempt += 1;
        await pause(wait, signal);
      }
    }
  }

  #ended(channel: Channel, error: TidewireError): void {
    this.#running.get(channel)?.abort();
    this.#running.delete(channel);
    channel.end(error);
    if (this.#running.size === 0) this.#setState({ state: "idle" });
  }

  #setState(state: ConnectionState): void {
    if (this.state.getSnapshot().state !== "closed") this.state.set(state);
  }

  /** Reads one stream to its end, which it always reaches by throwing. */
  private async sse(channel: Channel, signal: AbortSignal, worked: () => void): Promise<void> {
    const request = channel.ask();
    const token = await this.#settings.token();
    const silence = new AbortController();
    const until = anyOf(signal, silence.signal);
    let timer = setTimeout(() => silence.abort(), this.#settings.answerTimeout);
    try {
      const answer = await get(this.#settings, "/v1/sse", parametersOf(request), token, until);
      if (!answer.body) throw new Error("the answer cannot be read as a stream");
      const stream = new EventStream();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) throw new Error("the stream ended");
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), STREAM_SILENCE);
        for (const { data, id } of stream.push(value)) this.#take(channel, data, id, worked);
      }
    } catch (error) {
      // Nothing at all came, not even the first comment: something in between keeps it.
      if (silence.signal.aborted && channel.state.getSnapshot().state === "pending") this.#onBlocked?.();
      throw error;
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
  }

  #take(channel: Channel, data: string, id: string | undefined, worked: () => void): void {
    if (data === "") {
      // An id alone is a bookmark, but the first one may come before a gap is known.
      if (id !== undefined && channel.state.getSnapshot().state === "subscribed") {
        channel.receive({ type: "bookmark", position: id, ...channel.subject() });
      }
      return;
    }
    const frame = this.#settings.parse(data) as ServerFrame;
    if (frame.type === "subscribed") worked();
    if (frame.type === "close") throw new Interrupted(frame);
    if (frame.type === "error") throw TidewireError.of(frame);
    if (frame.type === "ended") throw TidewireError.of({ retry: "with_token", ...frame });
    if (channel.receive(frame) === "ask again") throw new Interrupted();
  }

  /** One poll after another; each tells where the next one begins. */
  private async poll(channel: Channel, signal: AbortSignal, worked: () => void): Promise<void> {
    let first = true;
    for (;;) {
      const request = channel.ask();
      const parameters = parametersOf(request);
      // The first answer comes at once, and says that events are sure to follow.
      const seconds = first ? 0 : POLL_SECONDS;
      parameters.set("timeout", String(seconds));
      const late = AbortSignal.timeout(seconds * 1_000 + this.#settings.answerTimeout);
      const token = await this.#settings.token();
      const answer = await get(this.#settings, "/v1/poll", parameters, token, anyOf(signal, late));
      const told = this.#settings.parse(await answer.text()) as PollAnswer;
      if (signal.aborted) return;
      const outcome = told.gap ? "gap" : request.since === undefined ? "fresh" : "resumed";
      if (first || told.gap) {
        channel.receive({
          type: "subscribed", position: told.cursor, outcome, ...channel.subject(),
          ...(told.gap && { reason: told.gap.reason }),
        });
        worked();
      }
      first = false;
      for (const frame of told.events) {
        if (channel.receive(frame) === "ask again") throw new Interrupted();
      }
      channel.receive({ type: "bookmark", position: told.cursor, ...channel.subject() });
    }
  }
}

interface PollAnswer {
  events: ServerFrame[];
  cursor: string;
  gap?: { reason: Gap["reason"] } | null;
}

function isAboutToken(error: unknown): boolean {
  const name = error instanceof TidewireError ? error.code : error instanceof Interrupted ? error.close?.name : undefined;
  return name === "unauthorized" || name === "token_expired" || name === "token_invalid" || name === "revoked";
}

function noPresence(): TidewireError {
  return new TidewireError("not_configured", "presence needs a WebSocket, which is blocked here or was not asked for");
}

function isFinal(error: unknown): error is TidewireError {
  return error instanceof TidewireError && error.retry !== "later";
}

function advised(error: unknown): number | null {
  if (!(error instanceof Interrupted)) return null;
  return error.close ? error.close.retry_after : 0;
}
