import { describe, expect, test } from "vitest";
import { resultText, served, stretches, tellsMore, tone, verdictText } from "../src/lib/receipts";
import type { Predicted, Receipt, Verdict } from "../src/wire.gen";

const PREDICTED: Predicted = {
  after_s: 0,
  wait_s: 1,
  load_s: 2,
  prefill_s: 0.5,
  decode_s: 4,
  prompt_tokens: 100,
  answer_tokens: 200,
};

function receipt(more: Partial<Receipt> = {}): Receipt {
  return {
    node: "p",
    engine: "peer-p",
    model: "m",
    digest: null,
    reason: "peer-warm",
    verdicts: [],
    tries: [],
    queued_s: 1,
    loading_s: 2,
    ttft_s: 0.5,
    working_s: 3,
    total_s: 6,
    prompt_tokens: null,
    cached_tokens: null,
    completion_tokens: null,
    prefill_per_s: null,
    tokens_per_s: null,
    by_name: true,
    predicted: null,
    ...more,
  };
}

function verdict(word: string, more: Partial<Verdict> = {}): Verdict {
  return { node: "p", engine: "peer-p", verdict: word, detail: "", predicted_s: null, ...more };
}

describe("what was expected beside what it took", () => {
  const sums = (of: Receipt) => stretches(of).map((part) => [part.expected, part.took]);

  test("the stretches add up to the whole", () => {
    expect(sums(receipt({ predicted: PREDICTED }))).toEqual([[1, 1], [2, 2], [0.5, 0.5], [4, 2.5], [7.5, 6]]);
  });

  test("others that were tried first count as waiting", () => {
    const of = receipt({ predicted: { ...PREDICTED, after_s: 2.5, wait_s: 0 }, total_s: 8.5 });
    expect(sums(of)).toEqual([[2.5, 3.5], [2, 2], [0.5, 0.5], [4, 2.5], [9, 8.5]]);
  });

  test("an answer that came in one piece is not told apart", () => {
    expect(sums(receipt({ predicted: PREDICTED, ttft_s: null }))).toEqual([[1, 1], [2, 2], [4.5, 3], [7.5, 6]]);
  });

  test("what nobody knows stays unknown", () => {
    const rows = stretches(receipt({ working_s: null, ttft_s: null, total_s: null }));
    expect(rows.map((part) => part.expected)).toEqual([null, null, null, null]);
    expect(rows.map((part) => part.took)).toEqual([1, 2, null, null]);
  });
});

describe("in words", () => {
  test.each(["warm", "cold", "busy", "draining", "paused", "missing", "unhealthy", "untrusted", "tried", "unfit"])(
    "the verdict %s is a word and a sentence that a newcomer understands",
    (word) => {
      const [said, sentence] = verdictText(verdict(word));
      expect(said).not.toBe(word);
      expect(sentence).toMatch(/^It .*\.$/);
    },
  );

  test("what the node says of its reason counts more; an unknown word shows as it is", () => {
    expect(verdictText(verdict("unfit", { detail: "It can't see images." }))[1]).toBe("It can't see images.");
    expect(verdictText(verdict("asleep"))).toEqual(["asleep", ""]);
  });

  test("who answered is good, who could have is not bad, who was in the way is", () => {
    const of = receipt();
    expect(served(of, verdict("cold"))).toBe(true);
    expect(served(of, verdict("cold", { engine: "builtin" }))).toBe(false);
    expect([tone(verdict("cold"), true), tone(verdict("busy"), false), tone(verdict("unhealthy"), false)]).toEqual(["good", "", "warn"]);
  });

  test("tries are told when there was more than the one that answered", () => {
    const one = { number: 1, node: "p", engine: "peer-p", result: "ok", detail: "", duration_s: 1 };
    expect(tellsMore(receipt({ tries: [one] }))).toBe(false);
    expect(tellsMore(receipt({ tries: [{ ...one, result: "peer_failed" }, { ...one, number: 2 }] }))).toBe(true);
    expect([resultText(one), resultText({ ...one, result: "melted" })]).toEqual(["Answered", "melted"]);
  });
});
