// A way to the server that can be cut.

import { once } from "node:events";
import { connect, createServer } from "node:net";

/** A way to the server that can be cut. */
export async function cable(server) {
  const sockets = new Set();
  const proxy = createServer((near) => {
    const far = connect(server.port, "127.0.0.1");
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.pipe(other);
      one.on("error", () => other.destroy()).on("close", () => sockets.delete(one) && other.destroy());
    }
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  return {
    origin: `http://127.0.0.1:${proxy.address().port}`,
    cut: () => sockets.forEach((one) => one.destroy()),
    close: () => {
      proxy.close();
      sockets.forEach((one) => one.destroy());
    },
  };
}
