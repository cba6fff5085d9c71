/** The time, for texts such as "42 s": runs only while somebody looks. */

class Clock {
  /** Unix seconds. */
  now = $state(Date.now() / 1000);
  #watchers = 0;
  #timer: ReturnType<typeof setInterval> | undefined;

  /** For `$effect`: ticks each second until the returned function is called. */
  watch(): () => void {
    this.now = Date.now() / 1000;
    if (this.#watchers++ === 0) this.#timer = setInterval(() => (this.now = Date.now() / 1000), 1000);
    return () => {
      if (--this.#watchers === 0) clearInterval(this.#timer);
    };
  }
}

export const clock = new Clock();
