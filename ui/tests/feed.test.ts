import { afterEach, describe, expect, test, vi } from "vitest";
import { ApiError } from "../src/lib/api";
import { delayMs } from "../src/lib/backoff";
import { Feed, type FeedReader } from "../src/lib/feed";
import { event, snapshot, streamOf } from "./fakes";

function recorder(log: string[], stop: () => void = () => undefined): FeedReader {
  return {
    snapshot: () => log.push("snapshot"),
    change: (change) => {
      log.push(`change ${change.notice}`);
      if (change.notice === "last") stop();
    },
    status: (status) => log.push(status),
  };
}

const refused = (status: number): Promise<never> =>
  Promise.reject(new ApiError({ code: "x", message: "x", hint: "", status, retry_after_s: null }));

afterEach(() => {
  vi.useRealTimers();
});

describe("the stream of events", () => {
  test("that falls silent, beats included, is taken for lost", async () => {
    vi.useFakeTimers();
    const log: string[] = [];
    const bodies = [
      (signal: AbortSignal) =>
        new ReadableStream<Uint8Array>({
          start(controller) {
            controller.enqueue(new TextEncoder().encode(event("snapshot", snapshot())));
            signal.addEventListener("abort", () => controller.error(new DOMException("", "AbortError")));
          },
        }),
      () => streamOf([event("change", { notice: "last" })]),
    ];
    const feed: Feed = new Feed(
      (signal) => Promise.resolve((bodies.shift() ?? (() => streamOf([])))(signal)),
      recorder(log, () => feed.stop()),
    );
    const running = feed.run();
    await vi.advanceTimersByTimeAsync(40_000);
    expect(log).toEqual(["connecting", "snapshot", "live"]);
    await vi.advanceTimersByTimeAsync(20_000);
    await running;
    expect(log.slice(3)).toEqual(["lost", "change last"]);
  });

  test("connects again after each loss and starts from a new snapshot", async () => {
    const log: string[] = [];
    const answers = [
      () => Promise.resolve(streamOf([event("snapshot", snapshot()), event("change", { notice: "a" })], true)),
      () => refused(0),
      () => Promise.resolve(streamOf([": beat\n\n", event("snapshot", snapshot()), event("change", { notice: "last" })])),
    ];
    const waits: number[] = [];
    const feed: Feed = new Feed(
      () => answers.shift()?.() ?? refused(0),
      recorder(log, () => feed.stop()),
      (ms) => (waits.push(ms), Promise.resolve()),
    );
    await feed.run();
    expect(log).toEqual(["connecting", "snapshot", "live", "change a", "lost", "lost", "snapshot", "live", "change last"]);
    expect(waits).toHaveLength(2);
  });

  test("ends when the node denies access, and says so", async () => {
    const log: string[] = [];
    await new Feed(() => refused(401), recorder(log)).run();
    expect(log).toEqual(["connecting", "denied"]);
  });

  test("does not sit out its waiting time when hurried", async () => {
    const log: string[] = [];
    let asked = 0;
    const feed: Feed = new Feed(
      () => {
        asked += 1;
        return asked === 1 ? refused(0) : Promise.resolve(streamOf([event("change", { notice: "last" })]));
      },
      recorder(log, () => feed.stop()),
      (_ms, signal) =>
        new Promise((resolve) => {
          signal.addEventListener("abort", () => resolve());
          queueMicrotask(() => feed.hurry());
        }),
    );
    await feed.run();
    expect(asked).toBe(2);
  });

  test("waits longer after each failure, up to a bound", () => {
    expect([1, 2, 3, 4].map((failures) => delayMs(failures, 1))).toEqual([250, 500, 1000, 2000]);
    expect(delayMs(50, 1)).toBe(5000);
    expect(delayMs(50, 0)).toBe(4000);
  });
});
