import { describe, expect, test } from "vitest";
import { choices } from "../src/lib/models";
import { grouped, sentence, taken } from "../src/lib/peers";
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
    ...more,
    own_name: "",
    send: true,
  };
}

function named(name: string, more: Partial<ModelInfo> = {}): ModelInfo {
  return model(name, more);
}

describe("the one sentence of the Peers page", () => {
  test("counts this computer, too, and each name once", () => {
    const models = [named("a"), named("a", { local: false }), named("b", { local: false })];
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
    expect(sentence([], [named("a")])).toBe("Only this computer so far.");
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
    named("both", { residency: "warm" }),
    named("both", { local: false, node_name: "studio" }),
    named("theirs", { local: false, node_name: "studio", residency: "warm" }),
  ];
  const offered = choices(models, []);
  expect(offered.loaded.map((choice) => choice.name)).toEqual(["both"]);
  expect(offered.elsewhere.map((choice) => [choice.name, choice.where])).toEqual([["theirs", ["studio"]]]);
});
