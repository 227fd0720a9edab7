/** How long to wait before the next attempt. */
export interface BackoffOptions {
  /** Longest first wait, in milliseconds; 500. */
  first?: number;
  /** Longest wait, in milliseconds; 30,000. */
  longest?: number;
}

/**
 * Full jitter: a random part of a limit that doubles with each failure, so that clients which lost
 * their server together do not come back together.
 *
 * @param attempt how many attempts failed since the last that worked, from 0
 * @param advised seconds that the server asked to wait; these count, with up to a tenth more
 */
export function backoff(
  attempt: number,
  advised: number | null,
  { first = 500, longest = 30_000 }: BackoffOptions = {},
  random: () => number = Math.random,
): number {
  if (advised !== null) return advised * 1_000 * (1 + random() / 10);
  // 2 ** 30 milliseconds are days; beyond, the number would lose its meaning.
  const limit = Math.min(longest, first * 2 ** Math.min(attempt, 30));
  return random() * limit;
}
