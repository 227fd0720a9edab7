// The proxies of docs/operating.md, started with the settings that stand there.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";

import { block } from "./documents.js";
import { freePort } from "./server.js";
import { SOON, until, within } from "./waiting.js";

/** The names in the recipes of what is elsewhere in a test: the server, and the proxy's own port. */
const SERVER = "127.0.0.1:8080";

/** What a recipe takes for granted around it, and the words that start it in the foreground. */
const KINDS = {
  nginx: {
    settings: (dir, port) =>
      `daemon off; master_process off; pid ${dir}/pid; error_log stderr; events {}
       http { access_log off; ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${dir}/${name};`).join(" ")}
       ${block("operating.md", "nginx").replace("listen 443", `listen 127.0.0.1:${port}`).replaceAll("/etc/ssl/tidewire", dir)} }`,
    command: (file, dir) => ["nginx", "-e", "stderr", "-p", dir, "-c", file],
  },
  haproxy: {
    settings: (dir, port) => {
      writeFileSync(join(dir, "stream-again.http"), block("operating.md", "http").replaceAll("\n", "\r\n"));
      writeFileSync(join(dir, "realtime.pem"), readFileSync(join(dir, "fullchain.pem"), "utf8") + readFileSync(join(dir, "key.pem"), "utf8"));
      return block("operating.md", "haproxy").replace("bind :443", `bind 127.0.0.1:${port}`).replaceAll("/etc/haproxy", dir);
    },
    command: (file) => ["haproxy", "-db", "-f", file],
  },
  caddy: {
    settings: (dir, port) =>
      `{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system ${dir}\n}\n` +
      block("operating.md", "caddy").replace("realtime.example.com {", `https://127.0.0.1:${port} {\n\ttls ${dir}/fullchain.pem ${dir}/key.pem`),
    command: (file) => ["caddy", "run", "--adapter", "caddyfile", "--config", file],
  },
};

export const NAMES = Object.keys(KINDS);

/** Starts a proxy before the server; gives its origin and a way to end it. */
export async function start(name, server) {
  const dir = join(server.dir, `${name}-${await freePort()}`);
  mkdirSync(dir);
  certify(dir);
  const port = await freePort();
  const kind = KINDS[name];
  const file = join(dir, "settings");
  writeFileSync(file, kind.settings(dir, port).replaceAll(SERVER, `127.0.0.1:${server.port}`));
  const log = openSync(join(dir, "log"), "w");
  const [program, ...words] = kind.command(file, dir);
  const env = { ...process.env, HOME: dir, PATH: `${process.env.PATH}:${process.env.PROXIES ?? "/usr/sbin"}` };
  const running = spawn(program, words, { stdio: ["ignore", log, log], env });
  const failed = () => new Error(`${name} ended:\n${readFileSync(join(dir, "log"), "utf8")}`);
  let ended = false;
  running.on("error", () => (ended = true)).on("exit", () => (ended = true));
  const close = async () => {
    if (ended) return;
    const exit = once(running, "exit");
    // At once: it would wait for streams, which have no end.
    running.kill("SIGKILL");
    await within(SOON, `${name} ends`, exit);
  };
  try {
    await until(`${name} answers`, async () => {
      if (ended) throw failed();
      return (await status(port, "/health")) === 200;
    });
  } catch (error) {
    await close();
    throw error;
  }
  return { name, origin: `https://127.0.0.1:${port}`, status: (path) => status(port, path), close };
}

/** The status of a GET, whoever signed the certificate; nothing where nobody answers. */
function status(port, path) {
  return new Promise((resolve) => {
    const asked = request({ host: "127.0.0.1", port, path, rejectUnauthorized: false }, (answer) => {
      answer.destroy();
      resolve(answer.statusCode);
    });
    asked.on("error", () => resolve(null)).end();
  });
}

/** A key and a certificate that nobody signed. */
function certify(dir) {
  const subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"];
  const words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
  const files = ["-keyout", join(dir, "key.pem"), "-out", join(dir, "fullchain.pem")];
  execFileSync("openssl", [...words, ...subject, ...files], { stdio: "ignore" });
}
