// The page of the test: every hook once, in Strict Mode.

import { Client } from "@tidewire/client";
import { TidewireProvider, useConnection, usePresence, useTable, useTopic } from "@tidewire/react";
import { memo, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";

window.renders = {};

const Item = memo(function Item({ row }) {
  window.renders[row.id] = (window.renders[row.id] ?? 0) + 1;
  return <li data-id={row.id}>{row.title}</li>;
});

function Table({ name, filter }) {
  const { status, rows, error } = useTable("public.items", filter === undefined ? {} : { filter });
  return (
    <section id={name}>
      <b>{status}</b> <i>{error?.code}</i>
      <ul>{rows.map((row) => <Item key={row.id} row={row} />)}</ul>
    </section>
  );
}

function Topic() {
  const { status, events } = useTopic({ topic: "room" }, { limit: 3 });
  return <section id="topic"><b>{status}</b> {events.map(({ data }) => data).join(",")}</section>;
}

function Present({ me }) {
  const members = usePresence({ topic: "room" }, { meta: { me }, key: me });
  return <section id="present">{members.map(({ key }) => key).sort().join(",")}</section>;
}

function Missing() {
  const { status, error } = useTable("public.nowhere");
  return <section id="missing"><b>{status}</b> <i>{error?.code}</i></section>;
}

function App() {
  const [isShown, setShown] = useState(true);
  const { state } = useConnection();
  return (
    <>
      <p id="connection">{state}</p>
      <button onClick={() => setShown(!isShown)}>toggle</button>
      {isShown && (
        <>
          <Table name="all" />
          <Table name="again" />
          <Table name="few" filter="id=lte.2" />
          <Topic />
          <Present me={new URLSearchParams(location.search).get("me")} />
          <Missing />
        </>
      )}
    </>
  );
}

window.client = new Client(location.origin, { linger: 100, backoff: { first: 20, longest: 200 } });
createRoot(document.body.appendChild(document.createElement("main"))).render(
  <StrictMode>
    <TidewireProvider client={window.client}><App /></TidewireProvider>
  </StrictMode>,
);
