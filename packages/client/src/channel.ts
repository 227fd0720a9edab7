/**
 * One subscription as the wire has it: what to ask for, how far it is, and who hears of it.
 *
 * Pure: it sends nothing and keeps no time. A transport asks it for its request whenever a
 * connection begins and gives it each frame; so resuming, snapshots and gaps are the same on all.
 */

import type { TidewireError } from "./errors.js";
import { subjectKey, subjectOf } from "./frames.js";
import type { Change, Event, Gap, Member, Rows, ServerFrame, SubscribeRequest, Subscribed } from "./frames.js";
import { isolated, Store } from "./store.js";

/** What became of a subscription. */
export type SubscriptionState =
  /** Asked for, or about to be again after a lost connection. */
  | { state: "pending" }
  | { state: "subscribed"; outcome: Subscribed["outcome"]; reason?: Gap["reason"] }
  /** For good: by the application, or because the server refused it. */
  | { state: "ended"; error?: TidewireError };

/** Callbacks of a subscription; each is optional, and none is called after it ended. */
export interface SubscriptionHandlers<Data = unknown, Row = Record<string, unknown>> {
  onEvent?(event: Event<Data>): void;
  onChange?(change: Change<Row>): void;
  /** Rows of a snapshot; the first ones after `onSubscribed` replace what was there. */
  onRows?(rows: Rows<Row>): void;
  /** Events are missing here, because a position could not be resumed or a source was lost. */
  onGap?(gap: Gap): void;
  /** Everyone who is present, whenever that changes. */
  onMembers?(members: readonly Member[]): void;
  /** The subscription is in force, again after each reconnect. */
  onSubscribed?(answer: Subscribed): void;
  /** It ended for good, and not because the application ended it. */
  onEnded?(error: TidewireError): void;
}

/** What a transport has to do after a frame. */
export type Followup = "nothing" | "ask again";

export class Channel {
  readonly key: string;
  readonly state = new Store<SubscriptionState>({ state: "pending" });
  readonly handlers = new Set<SubscriptionHandlers<any, any>>();
  /** What is shown of this client to others; shown again after a reconnect. */
  tracked: { key?: string; meta?: object } | undefined;
  members: readonly Member[] = [];
  readonly #request: SubscribeRequest;
  /** The last position that was received. */
  #reached: string | undefined;
  /** Whether the rows up to it are there; always, without a snapshot. */
  #complete: boolean;

  /** @param share equal for requests that this channel can serve as well */
  constructor(request: SubscribeRequest, readonly share: string) {
    this.key = subjectKey(request);
    this.#request = request;
    this.#reached = request.since;
    this.#complete = !request.snapshot || request.since !== undefined;
  }

  /** Where to go on from, once everything up to there was received. */
  get position(): string | undefined {
    return this.#complete ? this.#reached : undefined;
  }

  /** What to ask the server for now. */
  ask(): SubscribeRequest {
    const { since: _, ...request } = this.#request;
    const since = this.position;
    return since === undefined ? request : { ...request, since };
  }

  /** The subject alone. */
  subject() {
    return subjectOf(this.#request);
  }

  get wantsPresence(): boolean {
    return this.#request.presence === true;
  }

  get hasSnapshot(): boolean {
    return this.#request.snapshot === true;
  }

  /** The connection is gone; the next one will ask again. */
  interrupted(): void {
    if (this.state.getSnapshot().state === "subscribed") this.state.set({ state: "pending" });
  }

  /** Ends for good; with an error the handlers are told. */
  end(error?: TidewireError): void {
    if (this.state.getSnapshot().state === "ended") return;
    this.state.set(error ? { state: "ended", error } : { state: "ended" });
    if (error) this.#each((handlers) => handlers.onEnded?.(error));
    this.handlers.clear();
  }

  /** Takes a frame about this subject. */
  receive(frame: ServerFrame): Followup {
    if (this.state.getSnapshot().state === "ended") return "nothing";
    switch (frame.type) {
      case "subscribed":
        this.#subscribed(frame);
        return "nothing";
      case "event":
        this.#reached = frame.position;
        this.#each((handlers) => handlers.onEvent?.(frame));
        return "nothing";
      case "change":
        this.#reached = frame.position;
        this.#each((handlers) => handlers.onChange?.(frame));
        return "nothing";
      case "rows":
        this.#complete = frame.last;
        this.#each((handlers) => handlers.onRows?.(frame));
        return "nothing";
      case "bookmark":
        this.#reached = frame.position;
        return "nothing";
      case "gap":
        return this.#gap(frame);
      case "members":
        this.#setMembers(frame.members);
        return "nothing";
      case "presence":
        this.#presence(frame.joins, frame.leaves);
        return "nothing";
      default:
        return "nothing";
    }
  }

  #subscribed(frame: Subscribed): void {
    this.#reached = frame.position;
    // Rows follow unless everything after the position does.
    this.#complete = !this.hasSnapshot || frame.outcome === "resumed";
    const { outcome, reason } = frame;
    this.state.set({ state: "subscribed", outcome, ...(reason !== undefined && { reason }) });
    this.#each((handlers) => handlers.onSubscribed?.(frame));
    if (outcome === "gap") {
      const gap: Gap = { type: "gap", reason: reason ?? "position_unknown", position: frame.position };
      this.#each((handlers) => handlers.onGap?.(gap));
    }
    if (frame.members) this.#setMembers(frame.members);
  }

  #gap(frame: Gap): Followup {
    this.#reached = frame.position ?? this.#reached;
    this.#each((handlers) => handlers.onGap?.(frame));
    // Who is present is told in the answer to a new subscription, and so are the rows.
    if (this.hasSnapshot) this.#complete = false;
    return frame.presence || this.hasSnapshot ? "ask again" : "nothing";
  }

  /** Leaves first, then joins, as the protocol has it; a join replaces a member with its `ref`. */
  #presence(joins: readonly Member[], leaves: readonly Member[]): void {
    const members = new Map(this.members.map((member) => [member.ref, member]));
    for (const { ref } of leaves) members.delete(ref);
    for (const member of joins) members.set(member.ref, member);
    this.#setMembers([...members.values()]);
  }

  #setMembers(members: readonly Member[]): void {
    this.members = members;
    this.#each((handlers) => handlers.onMembers?.(members));
  }

  #each(call: (handlers: SubscriptionHandlers) => void): void {
    for (const handlers of [...this.handlers]) isolated(() => call(handlers));
  }
}
