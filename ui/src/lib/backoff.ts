/** Waiting times between tries to connect again. */

const FIRST_MS = 250;
const MOST_MS = 5000;

/** Milliseconds before the try after `failures` failed ones, with up to a fifth of chance so that pages spread out. */
export function delayMs(failures: number, chance: number = Math.random()): number {
  const base = Math.min(MOST_MS, FIRST_MS * 2 ** Math.max(0, failures - 1));
  return Math.round(base * (0.8 + 0.2 * chance));
}

/** Resolves after `ms`, or at once when `signal` aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
  });
}
