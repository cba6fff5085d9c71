import { describe, expect, test } from "vitest";
import { ENDED_KEPT, merged, ordered, WAITING_KEPT } from "../src/lib/merge";
import { chatInfo, job, model, snapshot } from "./fakes";

describe("a pushed change", () => {
  test("merges jobs and chats by id and drops what is gone", () => {
    const before = snapshot({ jobs: [job("1"), job("2")], chats: [chatInfo("a", 1), chatInfo("b", 2)] });
    const after = merged(before, { jobs: [job("2", { tokens: 7 })], chats: [chatInfo("a", 3)], gone: ["1"] });
    expect(after.jobs.map((one) => [one.id, one.tokens])).toEqual([["2", 7]]);
    expect(after.chats.map((one) => one.id)).toEqual(["a", "b"]);
  });

  test("replaces whole lists and leaves what it does not name", () => {
    const before = snapshot({ models: [model("x")], jobs: [job("1")] });
    const after = merged(before, { models: [model("y")] });
    expect(after.models.map((one) => one.name)).toEqual(["y"]);
    expect(after.jobs).toBe(before.jobs);
    expect(after.node).toBe(before.node);
  });

  test("keeps running jobs first, waiting ones in their order, and a bounded number of ended ones", () => {
    const ended = Array.from({ length: ENDED_KEPT + 9 }, (_, at) => job(`e${at}`, { state: "done", completed_at: at }));
    const list = ordered([
      ...ended,
      job("w2", { place: 2 }),
      job("w1", { place: 1 }),
      job("r", { state: "working", started_at: 5 }),
    ]);
    expect(list.slice(0, 4).map((one) => one.id)).toEqual(["r", "w1", "w2", `e${ENDED_KEPT + 8}`]);
    expect(list).toHaveLength(3 + ENDED_KEPT);
  });

  test("keeps of a long line only its beginning", () => {
    const list = ordered(Array.from({ length: WAITING_KEPT + 9 }, (_, at) => job(`w${at}`, { place: WAITING_KEPT + 9 - at })));
    expect(list).toHaveLength(WAITING_KEPT);
    expect(list.at(-1)?.place).toBe(WAITING_KEPT);
  });
});
