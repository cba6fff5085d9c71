import { describe, expect, test } from "vitest";
import { choices, goesByWeights } from "../src/lib/models";
import { address, ago, milliseconds } from "../src/lib/format";
import { diagnosis, grouped, line, named, sentence, taken } from "../src/lib/peers";
import type { ModelInfo, PeerInfo } from "../src/wire.gen";
import { model } from "./fakes";

function peer(name: string, more: Partial<PeerInfo> = {}): PeerInfo {
  return {
    id: `id-${name}`,
    name,
    state: "healthy",
    reason: "",
    paired: true,
    ignored: false,
    may_use: true,
    may_manage: false,
    addresses: [],
    port: 7412,
    version: "0",
    in_flight: 0,
    waiting: 0,
    width: 1,
    ram_total_bytes: 0,
    ram_free_bytes: 0,
    gpu: "",
    vram_total_bytes: 0,
    vram_free_bytes: 0,
    models: [],
    loaded: [],
    latency_s: null,
    latencies_s: [],
    heard_at: null,
    shared: true,
    granted: true,
    own_name: "",
    send: true,
    ...more,
  };
}

function modelNamed(name: string, more: Partial<ModelInfo> = {}): ModelInfo {
  return model(name, more);
}

describe("the one sentence of the Peers page", () => {
  test("the same weights under two names are one model, and one that can be talked to by either", () => {
    const there = { ...modelNamed("smollm2:135m"), digest: "d".repeat(64), local: false, problem: "Away." };
    const here = { ...modelNamed("smollm2-q4"), digest: "d".repeat(64) };
    expect(sentence([peer("studio")], [there, here])).toBe("2 computers, 1 model, all reachable.");
    expect(goesByWeights([there, here], there.name)).toBe(true);
    expect(goesByWeights([there], there.name)).toBe(false);
    expect(goesByWeights([{ ...there, digest: null }, { ...here, digest: null }], there.name)).toBe(false);
  });

  test("counts this computer, too, and each name once", () => {
    const models = [modelNamed("a"), modelNamed("a", { local: false }), modelNamed("b", { local: false })];
    expect(sentence([peer("studio"), peer("laptop")], models)).toBe("3 computers, 2 models, all reachable.");
  });

  test("names the one that is away", () => {
    expect(sentence([peer("studio", { state: "offline" }), peer("laptop")], [])).toMatch(/studio is away/);
  });

  test("counts several that are", () => {
    const away = [peer("a", { state: "offline" }), peer("b", { state: "unhealthy" })];
    expect(sentence(away, [])).toMatch(/2 not reachable/);
  });

  test("says that there is nobody else", () => {
    expect(sentence([], [modelNamed("a")])).toBe("Only this computer so far.");
  });
});

test("ignored computers are in neither list, whether paired or not", () => {
  const all = [peer("z"), peer("b", { paired: false }), peer("a"), peer("c", { ignored: true })];
  const groups = grouped([...all, peer("d", { paired: false, ignored: true })]);
  expect(groups.paired.map((one) => one.name)).toEqual(["a", "z"]);
  expect(groups.seen.map((one) => one.name)).toEqual(["b"]);
  expect(groups.ignored.map((one) => one.name)).toEqual(["c", "d"]);
});

test("a memory whose size is unknown has no bar, and numbers that can't be stay inside", () => {
  expect(taken(0, 0)).toBeNull();
  expect(taken(100, 25)).toBe(0.75);
  expect(taken(100, 200)).toBe(0);
});

test("a model that only others hold is offered as theirs; one held here, too, is not", () => {
  const models = [
    modelNamed("both", { residency: "warm" }),
    modelNamed("both", { local: false, node_name: "studio" }),
    modelNamed("theirs", { local: false, node_name: "studio", residency: "warm" }),
  ];
  const offered = choices(models, []);
  expect(offered.loaded.map((choice) => choice.name)).toEqual(["both"]);
  expect(offered.elsewhere.map((choice) => [choice.name, choice.where])).toEqual([["theirs", ["studio"]]]);
});

test("two of one name are told apart", () => {
  expect(named([peer("a"), peer("b"), peer("a")])).toEqual(new Set(["a"]));
});

test("who takes no work is still reachable", () => {
  const resting = peer("office", { state: "draining" });
  expect(sentence([resting], [])).toBe("2 computers, 0 models, all reachable, office takes no work.");
  expect(sentence([resting, peer("b", { state: "draining" }), peer("c", { state: "unhealthy" })], [])).toBe(
    "4 computers, 0 models, c does not answer, 2 take no work.",
  );
});

test("a report in a few words", () => {
  const finding = { id: "", name: "", level: "good", code: "good", sentence: "", hint: "", at: "", fix: "" } as const;
  const report = { at: 0, green: true, here: [finding], peers: [] };
  expect(diagnosis(report)).toBe("Everything is in order.");
  expect(diagnosis({ ...report, peers: [{ ...finding, level: "note" }] })).toMatch(/^Nothing is wrong/);
  expect(diagnosis({ ...report, peers: [{ ...finding, level: "bad" }] })).toBe("One thing is wrong.");
});

test("a line goes from 0 at the bottom to the largest at the top", () => {
  expect(line([0, 1, 0.5], 10, 12)).toBe("0.0,11.0 5.0,1.0 10.0,6.0");
  expect(line([0, 0], 10, 12)).toBe("0.0,11.0 10.0,11.0");
});

test("short times and how long ago something was", () => {
  expect([0.0004, 0.0312, 1.2].map(milliseconds)).toEqual(["0.4 ms", "31 ms", "1.2 s"]);
  expect([-1, 42.9, 201, 7260, 200_000].map(ago)).toEqual(["0 s", "42 s", "3 min", "2 h", "2 d"]);
});

test("an address is written as it is typed", () => {
  expect(address({ addresses: [], port: 7412 })).toBe("");
  expect(address({ addresses: ["10.0.0.2", "fd00::2"], port: 7412 })).toBe("10.0.0.2:7412");
  expect(address({ addresses: ["fd00::2"], port: 7412 })).toBe("[fd00::2]:7412");
});
