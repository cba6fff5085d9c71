import { describe, expect, test } from "vitest";
import { newestLeaf, pathTo, turned, withMessage } from "../src/lib/tree";
import { message } from "./fakes";

// q1 -> a1, a2 (again); q1b (edited) -> b1 -> q2 -> b2
const TREE = [
  message("q1", null),
  message("a1", "q1"),
  message("a2", "q1"),
  message("q1b", null),
  message("b1", "q1b"),
  message("q2", "b1"),
  message("b2", "q2"),
];

const ids = (anchor: string | null): string[] => pathTo(TREE, anchor).map((step) => step.message.id);

describe("a conversation with branches", () => {
  test("shows the newest branch at first", () => {
    expect(ids(null)).toEqual(["q1b", "b1", "q2", "b2"]);
    expect(pathTo([], null)).toEqual([]);
  });

  test("goes through the message asked for to the newest below it", () => {
    expect(ids("q1")).toEqual(["q1", "a2"]);
    expect(ids("a1")).toEqual(["q1", "a1"]);
    expect(ids("b1")).toEqual(["q1b", "b1", "q2", "b2"]);
    expect(ids("nowhere")).toEqual(ids(null));
  });

  test("counts the versions of each message", () => {
    const [question, answer] = pathTo(TREE, "a2");
    expect(question?.versions.map((version) => version.id)).toEqual(["q1", "q1b"]);
    expect(question?.index).toBe(0);
    expect(answer?.versions.map((version) => version.id)).toEqual(["a1", "a2"]);
    expect(answer?.index).toBe(1);
  });

  test("turns to the neighbour, and stays at the ends", () => {
    const [question, answer] = pathTo(TREE, "a2");
    if (!question || !answer) throw new Error("no path");
    expect(ids(turned(answer, -1))).toEqual(["q1", "a1"]);
    expect(ids(turned(question, 1))).toEqual(["q1b", "b1", "q2", "b2"]);
    expect(ids(turned(answer, 1))).toEqual(["q1", "a2"]);
  });

  test("shows messages whose parent is not known, and ends in a circle", () => {
    expect(pathTo([message("x", "gone")], null).map((step) => step.message.id)).toEqual(["x"]);
    const circle = [message("a", "b"), message("b", "a")];
    expect(pathTo(circle, null).length).toBeLessThanOrEqual(2);
    expect(newestLeaf(TREE, "q1")).toBe("a2");
  });

  test("takes a changed message in place and a new one at the end", () => {
    const changed = withMessage(TREE, message("a1", "q1", { content: "new" }));
    expect(changed.map((one) => one.id)).toEqual(TREE.map((one) => one.id));
    expect(changed[1]?.content).toBe("new");
    expect(withMessage(TREE, message("z", "b2")).at(-1)?.id).toBe("z");
  });
});
