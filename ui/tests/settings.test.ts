import { describe, expect, test } from "vitest";
import { defaultText, example, grouped, inWords, isDefault, isFixed, parsed, shown } from "../src/lib/settings";
import { setting } from "./fakes";

const whole = setting({ type: "integer", default: 0, value: 4 });
const number = setting({ type: "number", default: 300, value: 300, unit: "s" });

describe("settings", () => {
  test("come in the server's order of groups", () => {
    const list = [setting({ name: "a", group: "Two" }), setting({ name: "b", group: "One" }), setting({ name: "c", group: "Two" })];
    expect(grouped(list).map((group) => [group.name, group.settings.map((one) => one.name)])).toEqual([
      ["Two", ["a", "c"]],
      ["One", ["b"]],
    ]);
  });

  test.each([
    ["12", 12],
    [" -1 ", -1],
    ["1 048 576", 1_048_576],
  ])("turn the text %j of a field into the whole number %d", (text, value) => {
    expect(parsed(whole, text)).toEqual({ value });
  });

  test.each(["", "1.5", "1e9", "0x10", "NaN", "many", "1,5"])("refuse %j as a whole number, with a sentence", (text) => {
    expect(parsed(whole, text)).toHaveProperty("problem");
  });

  test("take fractions where a number is asked, and text as it is", () => {
    expect(parsed(number, "2.5")).toEqual({ value: 2.5 });
    expect(parsed(number, "Infinity")).toHaveProperty("problem");
    expect(parsed(setting({}), " x ")).toEqual({ value: " x " });
  });

  test("say large numbers of seconds and MiB in words", () => {
    const of = (unit: string, value: number | string): string => inWords(setting({ unit, value }));
    expect([of("s", 86_400), of("s", 60), of("s", -1), of("MiB", 2048), of("MiB", 1), of("tokens", 8192), of("", "x")]).toEqual([
      "1 d",
      "",
      "",
      "2.1 GB",
      "",
      "",
      "",
    ]);
  });

  test("show what an empty field stands for", () => {
    expect(example(setting({ name: "name" }), null)).toBe("");
    expect(example(setting({ name: "engines" }), null)).toMatch(/^e\.g\. http/);
    expect(example(setting({ name: "theme" }), null)).toBe("");
  });

  test("show values and defaults in words", () => {
    expect(shown(300)).toBe("300");
    expect(shown("")).toBe("");
    expect(defaultText(number)).toBe("300 s");
    expect(defaultText(setting({ default: "" }))).toBe("empty");
    expect(defaultText(setting({ type: "switch", default: false }))).toBe("off");
  });

  test("know what is fixed and what differs from its default", () => {
    expect(isFixed(setting({ source: "environment" }))).toBe(true);
    expect(isDefault(whole)).toBe(false);
    expect(isDefault(number)).toBe(true);
  });
});
