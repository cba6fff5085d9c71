import { describe, expect, test } from "vitest";
import { age, bytes, duration, openaiAddress, ordinal, rate, rough, shortened } from "../src/lib/format";
import { canSee, choices, firstChoice } from "../src/lib/models";
import { t } from "../src/lib/strings";
import { splitThinking } from "../src/lib/thinking";
import { waitingText } from "../src/lib/waiting";
import { chatPath, parseRoute } from "../src/state/router.svelte";
import type { State } from "../src/wire.gen";
import { model } from "./fakes";

const waits = (more: Partial<State>): string =>
  waitingText(
    { state: "queued", place: null, eta_s: null, loading_pct: null, why: "", attempt: 0, node: null, ...more },
    (node) => (node === "here" ? "" : node),
  );

describe("what a waiting user reads", () => {
  test.each([
    [{ place: 1 }, "Next in line"],
    [{ place: 2, node: "studio", eta_s: 14 }, "2nd in line on studio, about 14 s"],
    [{ place: 3, node: "here" }, "3rd in line"],
    [{ why: "every model in memory is in use" }, "Waiting: every model in memory is in use"],
    [{ place: 1, why: "waits-paused" }, "Waits until Quorum is resumed"],
    [{ place: 1, why: "retry", attempt: 1 }, "Waits to be tried again"],
    [{ why: "retry", attempt: 1, eta_s: 2.6 }, "Waits to be tried again, about 3 s"],
    [{ place: 1, attempt: 1 }, "Next in line, attempt 2"],
    [{ state: "loading" as const, loading_pct: 40 }, "Loading model, 40 %"],
    [{ state: "loading" as const }, "Loading model"],
    [{ state: "working" as const }, "Reading your message"],
  ])("of %j is %j", (state, text) => expect(waits(state)).toBe(text));
});

test("numbers read as people write them", () => {
  expect([0, 999, 98_000_000, 4_700_000_000, 12_300_000_000].map(bytes)).toEqual(["0 B", "999 B", "98 MB", "4.7 GB", "12 GB"]);
  expect([0.0801, 1.42, 9.97, 59.6, 185, 7800, 90_000].map(duration)).toEqual([
    "80 ms",
    "1.4 s",
    "10 s",
    "1 min",
    "3 min 5 s",
    "2 h 10 min",
    "1 d 1 h",
  ]);
  expect([-1, 0.4, 9.6, 59.4, 59.6, 185].map(rough)).toEqual(["0 s", "0 s", "10 s", "59 s", "1 min", "3 min 5 s"]);
  expect([1, 2, 3, 4, 11, 12, 13, 21, 112].map(ordinal).join(" ")).toBe("1st 2nd 3rd 4th 11th 12th 13th 21st 112th");
  expect(rate(124.6)).toBe("125 tokens/s");
  expect(rate(8.44)).toBe("8.4 tokens/s");
  expect(openaiAddress({ address: "http://127.0.0.1:7411" })).toBe("http://127.0.0.1:7411/v1");
  expect(shortened("sha256:0123456789abcdef")).toBe("0123456789ab…");
});

test("conversations are parted by the days of the calendar", () => {
  const now = new Date(2026, 10, 24, 9, 0);
  const at = (day: number, hour: number): number => new Date(2026, 10, day, hour).getTime() / 1000;
  expect([at(24, 0), at(23, 23), at(20, 1), at(1, 1)].map((time) => age(time, now))).toEqual([
    "today",
    "yesterday",
    "week",
    "older",
  ]);
});

test("the picker offers each name once, loaded first, and nothing that can't chat", () => {
  const offered = choices(
    [
      model("b"),
      model("a", { residency: "warm", engine: "ollama" }),
      model("a", { engine: "builtin" }),
      model("embed", { capabilities: ["embedding"] }),
      model("broken", { problem: "Put aside." }),
      model("far", { local: false, node_name: "laptop" }),
    ],
    [{ id: "ollama", kind: "ollama", label: "Ollama", url: "", state: "ready", detail: "", version: "", width: 1, in_flight: 0 }],
  );
  expect(offered.loaded.map((choice) => [choice.name, choice.where])).toEqual([["a", ["Ollama", "builtin"]]]);
  expect(offered.disk.map((choice) => [choice.name, choice.where])).toEqual([
    ["b", ["builtin"]],
  ]);
  expect(firstChoice(offered, "far")).toBe("far");
  expect(firstChoice(offered, "gone")).toBe("a");
  expect(firstChoice({ loaded: [], disk: [], elsewhere: [] }, "x")).toBe("");
  expect(canSee([model("v", { capabilities: ["chat", "vision"] })], "v")).toBe(true);
});

test("thinking left in the answer is told apart", () => {
  expect(splitThinking("<think>\nhm\n</think>\n\nYes", "")).toEqual({ content: "Yes", reasoning: "hm" });
  expect(splitThinking("<think>still", "")).toEqual({ content: "", reasoning: "still" });
  expect(splitThinking("Use <think> like this", "")).toEqual({ content: "Use <think> like this", reasoning: "" });
});

test("addresses lead to pages, and strange ones to a new chat", () => {
  expect(parseRoute("#/chat/01ABC")).toEqual({ page: "chat", id: "01ABC" });
  for (const page of ["models", "peers", "queue", "settings"]) expect(parseRoute(`#/${page}`)).toEqual({ page });
  for (const hash of ["", "#/", "#/chat", "#/chat/../x", "#/nowhere", "#token=x"]) {
    expect(parseRoute(hash)).toEqual({ page: "chat", id: null });
  }
  expect(chatPath("x")).toBe("#/chat/x");
});

test("the Models page counts what is here apart from what other computers have", () => {
  expect(t.models.summary(0, 0, 0)).toBe("No models yet.");
  expect(t.models.summary(1, 1, 0)).toBe("1 model, 1 loaded.");
  expect(t.models.summary(2, 1, 3)).toBe("2 models here, 1 loaded; 3 on other computers.");
  expect(t.models.summary(0, 0, 1)).toBe("1 model, all on other computers.");
});
