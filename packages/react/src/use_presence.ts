import type { Client, Member, Presence, Subject } from "@tidewire/client";
import { useEffect, useMemo, useSyncExternalStore } from "react";

import { LazyStore } from "./lazy_store.js";
import { useClient } from "./provider.js";

export interface PresenceOptions<Meta> {
  /** Shows this client with it while the component is shown; without, it only looks. */
  meta?: Meta;
  /** What the application calls this member; by default the token's subject. */
  key?: string;
}

/** Who is present on a topic or channel, in the order in which they came. */
export function usePresence<Meta extends object = Record<string, unknown>>(
  subject: Exclude<Subject, { table: string }>,
  { meta, key }: PresenceOptions<Meta> = {},
): readonly Member<Meta>[] {
  const client = useClient();
  const asked = JSON.stringify(subject);
  const followed = useMemo(() => follow<Meta>(client, JSON.parse(asked) as Subject), [client, asked]);
  const members = useSyncExternalStore(followed.store.subscribe, followed.store.getSnapshot, followed.store.getServerSnapshot);
  const shown = meta === undefined ? undefined : JSON.stringify(meta);
  useEffect(() => {
    if (shown === undefined) return;
    // A refusal is told by the subscription, and a lost connection tracks anew by itself.
    const ignore = () => {};
    followed.presence()?.track(JSON.parse(shown) as Meta, key).catch(ignore);
    return () => void followed.presence()?.untrack().catch(ignore);
  }, [followed, shown, key]);
  return members;
}

function follow<Meta extends object>(client: Client, subject: Subject) {
  let presence: Presence<Meta> | undefined;
  const store = new LazyStore<readonly Member<Meta>[]>([], (set) => {
    const begun = (presence = client.presence<Meta>(subject as Exclude<Subject, { table: string }>));
    const show = () => set(begun.getSnapshot());
    const stop = begun.subscribe(show);
    show();
    return () => {
      stop();
      presence = undefined;
      begun.leave();
    };
  });
  return { store, presence: () => presence };
}
