// Waiting for conditions, with deadlines that say what was waited for.

/** Seconds for anything that should happen at once; a busy machine may take its time. */
export const SOON = 10;

/** Thrown by a test that cannot be run here; says why. */
export class Skipped extends Error {}

/** The promise's value, or an error after so many seconds. */
export function within(seconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${seconds} s: ${what}`)), seconds * 1_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Looks twenty times a second until the condition holds. */
export async function until(what, condition, seconds = SOON) {
  const deadline = Date.now() + seconds * 1_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
