// The React example of Fluxbase's documentation, without types and markup, so that it needs no build.
// Added to it: the error that the server tells, asking again after it, and what happens when a table
// is emptied.

const { createElement, useEffect, useState } = React;

function useRealtime(channel, token) {
  const [data, setData] = useState([]);
  const [connected, setConnected] = useState(false);
  const [error, setError] = useState(null);

  useEffect(() => {
    const server = location.origin.replace(/^http/, "ws");
    const url = token ? `${server}/realtime?token=${token}` : `${server}/realtime`;

    const ws = new WebSocket(url);
    let again;

    // Subscribe to channel
    const subscribe = () => ws.send(JSON.stringify({
      type: "subscribe",
      channel,
    }));

    ws.onopen = () => {
      setConnected(true);
      subscribe();
    };

    ws.onmessage = (event) => {
      const message = JSON.parse(event.data);

      if (message.type === "ack") setError(null);
      if (message.type === "error") {
        setError(message.error);
        // The table may be made, or made visible, meanwhile.
        clearTimeout(again);
        again = setTimeout(subscribe, 2_000);
      }
      if (message.type === "broadcast") {
        const { type, record, old_record } = message.payload;

        setData((prev) => {
          switch (type) {
            case "INSERT":
              return [...prev, record];
            case "UPDATE":
              return prev.map((item) => (item.id === record.id ? record : item));
            case "DELETE":
              return prev.filter((item) => item.id !== old_record.id);
            case "TRUNCATE":
              return [];
            default:
              return prev;
          }
        });
      }
    };

    ws.onclose = () => {
      clearTimeout(again);
      setConnected(false);
    };

    return () => {
      clearTimeout(again);
      ws.close();
    };
  }, [channel, token]);

  return { data, connected, error };
}

// Usage
function ProductList({ channel }) {
  const { data: products, connected, error } = useRealtime(channel, localStorage.getItem("token"));

  return createElement(
    "div",
    null,
    createElement("h2", null, channel),
    createElement("div", { id: "status" }, "Status: ", connected ? "Connected" : "Disconnected"),
    error && createElement("div", { className: "error", role: "alert" }, error),
    products.map((product) =>
      createElement("div", { key: product.id, className: "product" }, product.name ?? JSON.stringify(product)),
    ),
  );
}

const channel = new URLSearchParams(location.search).get("channel") ?? "table:public.products";
ReactDOM.createRoot(document.getElementById("root")).render(createElement(ProductList, { channel }));
