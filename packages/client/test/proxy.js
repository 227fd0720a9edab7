// A TCP proxy before a server, which can cut connections and refuse upgrades.

import { once } from "node:events";
import { connect, createServer } from "node:net";

export class Proxy {
  #pairs = new Set();
  #server;
  /** Answers WebSocket handshakes as a proxy that knows none. */
  blocksUpgrades = false;
  /** Passes on no more than so many bytes to each client, then cuts. */
  cutsAfter = Infinity;

  static async before(port) {
    const proxy = new Proxy();
    proxy.#server = createServer((socket) => proxy.#pass(socket, port)).listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    proxy.url = `http://127.0.0.1:${proxy.#server.address().port}`;
    return proxy;
  }

  #pass(client, port) {
    const server = connect(port, "127.0.0.1");
    const pair = [client, server];
    this.#pairs.add(pair);
    const end = () => {
      this.#pairs.delete(pair);
      pair.forEach((socket) => socket.destroy());
    };
    pair.forEach((socket) => socket.on("error", end).on("close", end));
    client.on("data", (bytes) => {
      if (this.blocksUpgrades && /upgrade: websocket/i.test(bytes.toString("latin1"))) {
        client.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
      }
      server.write(bytes);
    });
    let left = this.cutsAfter;
    server.on("data", (bytes) => {
      client.write(bytes.subarray(0, Math.min(left, bytes.length)));
      left -= bytes.length;
      if (left <= 0) client.end(() => end());
    });
  }

  get connections() {
    return this.#pairs.size;
  }

  /** Cuts all connections that are open now. */
  cut() {
    for (const pair of [...this.#pairs]) pair.forEach((socket) => socket.destroy());
  }

  async close() {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }
}
