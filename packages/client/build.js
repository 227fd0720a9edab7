// Builds dist/ of the package in the working directory: one ES module and one CommonJS file, their types, and a look at the size.

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

/** Bytes of the minified module after gzip: a page should not have to think about it. */
const BUDGET = 8 << 10;

rmSync("dist", { recursive: true, force: true });
const common = { entryPoints: ["src/index.ts"], bundle: true, packages: "external", target: "es2022", legalComments: "none" };
await build({ ...common, format: "esm", outfile: "dist/index.js" });
await build({ ...common, format: "cjs", platform: "node", outfile: "dist/index.cjs" });
execFileSync("npx", ["tsc", "--emitDeclarationOnly"], { stdio: "inherit" });
for (const name of readdirSync("dist").filter((name) => name.endsWith(".d.ts"))) {
  const text = readFileSync(`dist/${name}`, "utf8");
  writeFileSync(`dist/${name.replace(/\.d\.ts$/, ".d.cts")}`, text.replace(/\.js"/g, '.cjs"'));
}

const { outputFiles } = await build({ ...common, format: "esm", minify: true, write: false });
const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
console.log(`${size} bytes minified and gzipped, of ${BUDGET}`);
if (size > BUDGET) process.exit(1);
