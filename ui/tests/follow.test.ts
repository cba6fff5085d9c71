import { describe, expect, test } from "vitest";
import { ApiError } from "../src/lib/api";
import { follow, type FollowReader } from "../src/lib/follow";
import type { Ended, ErrorInfo, State } from "../src/wire.gen";
import { chunk, event, receipt, streamOf } from "./fakes";

class Recorder implements FollowReader {
  text = "";
  reasoning = "";
  log: string[] = [];
  end: Ended | null = null;
  begin(restarted: boolean): void {
    this.text = "";
    this.log.push(restarted ? "restarted" : "begun");
  }
  delta(content: string, reasoning: string): void {
    this.text += content;
    this.reasoning += reasoning;
  }
  state(state: State): void {
    this.log.push(state.state);
  }
  error(error: ErrorInfo): void {
    this.log.push(`error ${error.code}`);
  }
  ended(ended: Ended): void {
    this.end = ended;
  }
  lost(lost: boolean): void {
    this.log.push(lost ? "lost" : "found");
  }
  gone(error: ErrorInfo): void {
    this.log.push(`gone ${error.status}`);
  }
}

const DONE = event("ended", { state: "done", receipt: receipt(), error: null });
const ERROR: ErrorInfo = { code: "interrupted", message: "Cut.", hint: "", status: 502, retry_after_s: null };
const noWait = (): Promise<void> => Promise.resolve();

/** Follows a job whose connections give `bodies` one after the other; returns what was asked and heard. */
async function run(bodies: (() => ReadableStream<Uint8Array>)[], stop = new AbortController()) {
  const reader = new Recorder();
  const asked: string[] = [];
  await follow(
    (_signal, last) => {
      asked.push(last);
      const body = bodies.shift();
      if (!body) throw new Error("asked once too often");
      return Promise.resolve(body());
    },
    reader,
    stop.signal,
    noWait,
  );
  return { reader, asked };
}

describe("an answer that is followed", () => {
  test("is told from its first state to its end", async () => {
    const { reader, asked } = await run([
      () => streamOf([event("state", { state: "working" }), chunk("1.1", "", "hm"), chunk("1.2", "Hel"), chunk("1.3", "lo"), "data: [DONE]\n\n", DONE]),
    ]);
    expect(asked).toEqual([""]);
    expect(reader.text).toBe("Hello");
    expect(reader.reasoning).toBe("hm");
    expect(reader.log).toEqual(["found", "begun", "working"]);
    expect(reader.end?.state).toBe("done");
  });

  test("is attached again where the connection broke, and no word comes twice", async () => {
    const { reader, asked } = await run([
      () => streamOf([chunk("1.1", "one "), chunk("1.2", "two ")], true),
      () => streamOf([chunk("1.2", "two "), chunk("1.3", "three")]),
      () => streamOf([DONE]),
    ]);
    expect(asked).toEqual(["", "1.2", "1.3"]);
    expect(reader.text).toBe("one two three");
    expect(reader.log).toEqual(["found", "begun", "lost", "found", "lost", "found"]);
    expect(reader.end?.state).toBe("done");
  });

  test("forgets its text when another try begins anew", async () => {
    const { reader } = await run([
      () => streamOf([chunk("1.1", "half"), event("reset", {}), chunk("2.1", "whole"), DONE]),
    ]);
    expect(reader.text).toBe("whole");
    expect(reader.log).toContain("restarted");
  });

  test("keeps its text when it is interrupted, and says why", async () => {
    const { reader } = await run([
      () => streamOf([chunk("1.1", "half"), event("error", ERROR), event("ended", { state: "failed", receipt: null, error: ERROR })]),
    ]);
    expect(reader.text).toBe("half");
    expect(reader.log).toContain("error interrupted");
    expect(reader.end?.error?.code).toBe("interrupted");
  });

  test("understands errors in a chunk and other names for thinking", async () => {
    const { reader } = await run([
      () => streamOf([
          `data: ${JSON.stringify({ choices: [{ delta: { reasoning: "r" } }] })}\n\n`,
          `data: ${JSON.stringify({ error: { message: "Bad.", code: "engine_failed" } })}\n\n`,
          DONE,
        ]),
    ]);
    expect(reader.reasoning).toBe("r");
    expect(reader.log).toContain("error engine_failed");
  });

  test("is tried again while the node is away, and given up when the node doesn't know it", async () => {
    const reader = new Recorder();
    const errors = [0, 503, 404];
    await follow(
      () => Promise.reject(new ApiError({ ...ERROR, status: errors.shift() ?? 500 })),
      reader,
      new AbortController().signal,
      noWait,
    );
    expect(reader.log).toEqual(["lost", "lost", "gone 404"]);
  });

  test("is left in silence", async () => {
    const stop = new AbortController();
    const reader = new Recorder();
    const following = follow(
      (signal) => Promise.resolve(
          new ReadableStream<Uint8Array>({
            start: (controller) => signal.addEventListener("abort", () => controller.error(new DOMException("", "AbortError"))),
          }),
        ),
      reader,
      stop.signal,
      noWait,
    );
    await Promise.resolve();
    stop.abort();
    await following;
    expect(reader.log.filter((line) => line === "lost")).toEqual([]);
  });
});
