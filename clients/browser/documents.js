// What the documentation shows as blocks to copy.

import { readFileSync } from "node:fs";

/** The block of a page that begins with these words after its backticks. */
export function block(page, words) {
  const text = readFileSync(new URL(`../../docs/${page}`, import.meta.url), "utf8");
  const [, rest] = text.split(`\n\`\`\`${words}\n`);
  if (rest === undefined) throw new Error(`docs/${page} has no block of ${words}`);
  return rest.split("\n```")[0] + "\n";
}
