// A server of our own: `tidewire dev` on a free port, in a directory that goes away.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { SOON, until, within } from "./waiting.js";

/** Seconds for the server and its database, which is made from nothing. */
const START = 60;

export class Server {
  #process = null;

  constructor() {
    this.dir = mkdtempSync(join(tmpdir(), "tidewire-clients-"));
    // PostgreSQL does not run as root, so its user must be able to get in.
    chmodSync(this.dir, 0o711);
  }

  /** Starts it, again on the same port and with the same data after the first time. */
  async start() {
    this.port ??= await freePort();
    this.origin = `http://127.0.0.1:${this.port}`;
    const output = openSync(join(this.dir, "log"), "w");
    const args = ["dev", "--no-demo", "--listen", `127.0.0.1:${this.port}`, "--dir", join(this.dir, "dev")];
    this.#process = spawn(process.env.TIDEWIRE, args, { stdio: ["ignore", output, output] });
    closeSync(output);
    await until("the server is ready", () => this.#isReady(), START);
  }

  async #isReady() {
    if (this.#process.exitCode !== null) throw new Error(`the server ended:\n${this.log()}`);
    if (!this.#database()) return false;
    return fetch(`${this.origin}/ready`).then(({ status }) => status === 200, () => false);
  }

  /** What `/ready` says. */
  async ready() {
    return (await fetch(`${this.origin}/ready`)).json();
  }

  /** As a crash would end it: nobody is told anything. */
  async kill() {
    await this.#end("SIGKILL");
  }

  /** As an operator would end it; it says goodbye and ends with 0. */
  async terminate() {
    await this.#end("SIGTERM");
    if (this.#process.exitCode !== 0) throw new Error(`the server did not end well:\n${this.log()}`);
  }

  /** Ends it for good. */
  async stop() {
    await this.#end("SIGTERM").catch(() => this.#end("SIGKILL"));
    rmSync(this.dir, { recursive: true, force: true });
  }

  async #end(signal) {
    const { exitCode, signalCode } = this.#process ?? { exitCode: 0 };
    if (exitCode !== null || signalCode) return;
    const ended = once(this.#process, "exit");
    this.#process.kill(signal);
    await within(SOON, `the server ends on ${signal}`, ended);
  }

  log() {
    return readFileSync(join(this.dir, "log"), "utf8");
  }

  /** The database's address as the server printed it. */
  #database() {
    return this.log().match(/postgres(ql)?:\/\/[^\s'"]+/)?.[0];
  }

  /** Runs a statement by psql. */
  async sql(statement) {
    const args = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", this.#database(), "-c", statement];
    await promisify(execFile)("psql", args, { timeout: SOON * 1_000 });
  }

  /** Publishes over HTTP, one or a list. */
  async publish(body) {
    const headers = { "content-type": "application/json" };
    const answer = await fetch(`${this.origin}/v1/publish`, { method: "POST", headers, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  }
}

export async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}
