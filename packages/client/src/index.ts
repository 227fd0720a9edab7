/**
 * A client for Tidewire: topics, tables and NOTIFY channels of PostgreSQL, resumable over
 * WebSocket, Server-Sent Events and long-poll.
 *
 * @module
 */

export { Client } from "./client.js";
export type { CallOptions, ClientOptions, Presence, Subscription } from "./client.js";
export type { BackoffOptions } from "./backoff.js";
export type { SubscriptionHandlers, SubscriptionState } from "./channel.js";
export { TidewireError } from "./errors.js";
export type {
  Change, Close, Event, Gap, GapReason, Member, Operation, Rows, Subject, SubscribeRequest, Subscribed, TableOptions,
} from "./frames.js";
export { LiveTable } from "./live_table.js";
export type { TableState } from "./live_table.js";
export type { Subscribable } from "./store.js";
export type { ConnectionState, PublishRequest, TransportName } from "./transport.js";
