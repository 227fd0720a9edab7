import type { Client, Event, Gap, Subject, SubscriptionState, TidewireError } from "@tidewire/client";
import { useEffect, useMemo, useRef, useSyncExternalStore } from "react";

import { LazyStore } from "./lazy_store.js";
import { useClient } from "./provider.js";

/** What came on a topic. */
export interface TopicState<Data> {
  status: SubscriptionState["state"];
  /** The newest events, oldest first. */
  events: readonly Event<Data>[];
  /** The newest gap, behind which events are missing. */
  gap?: Gap;
  error?: TidewireError;
}

export interface TopicOptions<Data> {
  /** Events to keep; 100. With 0 only `onEvent` hears of them, and none of them renders anew. */
  limit?: number;
  /** Where to begin: a position, `earliest`, or `now` (the default). */
  since?: string;
  /** Called for each event; always the function of the last render. */
  onEvent?: (event: Event<Data>) => void;
}

/** The events of a topic or NOTIFY channel while the component is shown. */
export function useTopic<Data = unknown>(
  subject: Exclude<Subject, { table: string }>,
  { limit = 100, since, onEvent }: TopicOptions<Data> = {},
): TopicState<Data> {
  const client = useClient();
  const handler = useRef(onEvent);
  useEffect(() => {
    handler.current = onEvent;
  });
  const asked = JSON.stringify(subject);
  const store = useMemo(
    () => follow<Data>(client, JSON.parse(asked) as Subject, since, limit, (event) => handler.current?.(event)),
    [client, asked, since, limit],
  );
  return useSyncExternalStore(store.subscribe, store.getSnapshot, store.getServerSnapshot);
}

function follow<Data>(
  client: Client, subject: Subject, since: string | undefined, limit: number, onEvent: (event: Event<Data>) => void,
): LazyStore<TopicState<Data>> {
  const initial: TopicState<Data> = { status: "pending", events: [] };
  return new LazyStore(initial, (set) => {
    let state = initial;
    const change = (part: Partial<TopicState<Data>>) => set((state = { ...state, ...part }));
    const request = { ...subject, ...(since !== undefined && { since }) };
    const { state: status, unsubscribe } = client.subscribe<Data>(request, {
      onEvent: (event) => {
        if (limit > 0) change({ events: [...state.events, event].slice(-limit) });
        onEvent(event);
      },
      onGap: (gap) => change({ gap }),
      onEnded: (error) => change({ error }),
    });
    const show = () => change({ status: status.getSnapshot().state });
    const stop = status.subscribe(show);
    show();
    return () => {
      stop();
      unsubscribe();
    };
  });
}
