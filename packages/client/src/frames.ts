/**
 * The words of the native dialect, version 1, as they cross the wire.
 *
 * Only what this client reads or writes is named; unknown frames and fields are ignored, as the
 * protocol asks of its clients.
 */

/** What a subscription or publication is about: exactly one of the three. */
export type Subject =
  | { topic: string; private?: boolean }
  | { table: string }
  | { notify: string };

/** What happened to a row. */
export type Operation = "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE";

/** Which rows and columns of a table, and what of them. */
export interface TableOptions {
  /** Operations to receive; all by default. */
  events?: readonly Operation[];
  /** Columns to receive, beside those of the key; all by default. */
  columns?: readonly string[];
  /** Which rows, as `column=op.value`; every row by default. */
  filter?: string;
  /** First the rows as they are, then what changes. */
  snapshot?: boolean;
}

/** A request to receive a topic's events. */
export type SubscribeRequest = Subject & TableOptions & {
  /** A position to go on from, `earliest`, or `now` (the default). */
  since?: string;
  /** Also receive who is present, now and as it changes; not for tables. */
  presence?: boolean;
};

/** Why events are missing. A newer server may give others. */
export type GapReason =
  | "epoch_changed"
  | "history_trimmed"
  | "position_unknown"
  | "connection_lost"
  | "not_listening"
  | (string & {});

/** Somebody who is present on a topic. */
export interface Member<Meta = Record<string, unknown>> {
  /** Tells connections with the same key apart. */
  ref: string;
  /** What the application calls the member; claimed by the client itself. */
  key: string;
  /** The verified subject of the member's token; not there without one. */
  subject?: string;
  meta: Meta;
}

/** Something that was published. */
export interface Event<Data = unknown> {
  type: "event";
  position: string;
  /** When the server accepted it, in milliseconds since 1970. */
  at: number;
  /** The publisher's own name for this sort of event. */
  event?: string;
  /** `base64` when `data` is bytes. */
  encoding?: "base64";
  data: Data;
}

/** A row was inserted, updated or deleted, or its table was emptied. */
export interface Change<Row = Record<string, unknown>> {
  type: "change";
  position: string;
  op: Operation;
  key?: Partial<Row>;
  /** With a filter: whether an update brought the row into view or out of it. */
  move?: "enter" | "leave";
  record?: Row;
  old?: Partial<Row>;
  changed?: (keyof Row & string)[];
  /** Columns that are missing in `record` because the update did not touch their large values. */
  unchanged?: (keyof Row & string)[];
  committed_at: number;
  xid: number;
  index: number;
  last: boolean;
  lsn?: string;
}

/** Events are missing at this place. */
export interface Gap {
  type: "gap";
  reason: GapReason;
  /** Not there for a gap in presence. */
  position?: string;
  presence?: true;
}

/** Rows of a snapshot. */
export interface Rows<Row = Record<string, unknown>> {
  type: "rows";
  rows: Row[];
  last: boolean;
}

/** The answer to a subscription. */
export interface Subscribed {
  type: "subscribed";
  id?: number;
  position: string;
  outcome: "fresh" | "resumed" | "gap";
  reason?: GapReason;
  members?: Member[];
}

/** A request was refused. */
export interface Refused {
  type: "error";
  id?: number;
  code: string;
  message: string;
  retry: "never" | "later" | "with_token";
}

/** The connection ends. */
export interface Close {
  type: "close";
  code: number;
  name: string;
  message: string;
  retry: boolean;
  /** Seconds to wait before coming back; `null` where coming back unchanged makes no sense. */
  retry_after: number | null;
}

/** Every frame that the server sends. */
export type ServerFrame =
  | { type: "welcome"; session: string; subject: string | null; protocol: number }
  | ((Subscribed | Event | Change | Gap | Rows | { type: "bookmark"; position: string }
    | { type: "presence"; joins: Member[]; leaves: Member[] }
    | { type: "members"; members: Member[] }
    | { type: "unsubscribed"; id?: number }
    | { type: "ended"; code: string; message: string }) & Subject)
  | { type: "published"; id?: number; position: string | null }
  | { type: "tracked"; id?: number; ref: string; key: string }
  | { type: "untracked"; id?: number }
  | { type: "authenticated"; id?: number; subject: string | null; expires_at: number | null }
  | { type: "pong"; id?: number }
  | Refused
  | Close;

/** A text that is equal for equal subjects. */
export function subjectKey(subject: Subject): string {
  if ("table" in subject) return `table:${subject.table}`;
  if ("notify" in subject) return `notify:${subject.notify}`;
  return `${subject.private ? "private" : "topic"}:${subject.topic}`;
}

/** The fields that name the subject, and no others. */
export function subjectOf(from: Subject): Subject {
  if ("table" in from) return { table: from.table };
  if ("notify" in from) return { notify: from.notify };
  return from.private ? { topic: from.topic, private: true } : { topic: from.topic };
}
