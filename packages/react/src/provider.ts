import type { Client } from "@tidewire/client";
import { createContext, createElement, useContext } from "react";
import type { ReactElement, ReactNode } from "react";

const Context = createContext<Client | null>(null);

/** Gives the hooks below it their client, which the application makes and closes. */
export function TidewireProvider({ client, children }: { client: Client; children?: ReactNode }): ReactElement {
  return createElement(Context.Provider, { value: client }, children);
}

/** The client of the nearest `TidewireProvider`. */
export function useClient(): Client {
  const client = useContext(Context);
  if (!client) throw new Error("there is no TidewireProvider above this component");
  return client;
}
