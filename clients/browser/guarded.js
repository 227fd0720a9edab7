// A server of our own that asks for tokens: no database, a history in memory, a secret of its own.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";

import { SOON, until, within } from "./waiting.js";

/** Tokens end on the second: what a clock may differ by is nothing on one machine. */
const SETTINGS = {
  TIDEWIRE_JWT_SECRET: "a secret of the tests that is long enough",
  TIDEWIRE_AUTH_JWT_LEEWAY: "0s",
  TIDEWIRE_LISTEN: "127.0.0.1:0",
};

export class Guarded {
  #process;
  #log = "";

  async start() {
    this.#process = spawn(process.env.TIDEWIRE, ["serve"], { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, ...SETTINGS } });
    this.#process.stderr.setEncoding("utf8").on("data", (text) => (this.#log += text));
    let address;
    await until("the guarded server serves", () => (address = this.#log.match(/serving.*?(127\.0\.0\.1:\d+)/)?.[1]));
    this.origin = `http://${address}`;
  }

  /** A token for everything below `room:`, good for so long. */
  async token(ttl) {
    const words = ["token", "--subject", "ann", "--ttl", ttl, "--subscribe", "room:*", "--publish", "room:*"];
    const { stdout } = await promisify(execFile)(process.env.TIDEWIRE, words, { env: { ...process.env, ...SETTINGS } });
    return stdout.trim();
  }

  async publish(body) {
    const headers = { authorization: `Bearer ${await this.token("1m")}` };
    const answer = await fetch(`${this.origin}/v1/publish`, { method: "POST", headers, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  }

  async stop() {
    if (this.#process?.exitCode !== null) return;
    const ended = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await within(SOON, "the guarded server ends", ended);
  }
}
