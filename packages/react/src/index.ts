/**
 * React hooks for Tidewire.
 *
 * @module
 */

export { TidewireProvider, useClient } from "./provider.js";
export { useConnection } from "./use_connection.js";
export { usePresence } from "./use_presence.js";
export type { PresenceOptions } from "./use_presence.js";
export { useTable } from "./use_table.js";
export { useTopic } from "./use_topic.js";
export type { TopicOptions, TopicState } from "./use_topic.js";
