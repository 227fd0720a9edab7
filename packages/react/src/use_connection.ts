import type { ConnectionState } from "@tidewire/client";
import { useSyncExternalStore } from "react";

import { useClient } from "./provider.js";

const IDLE: ConnectionState = { state: "idle" };

/** How the client is connected, for instance to show that it is away. */
export function useConnection(): ConnectionState {
  const { connection } = useClient();
  return useSyncExternalStore(connection.subscribe, connection.getSnapshot, () => IDLE);
}
