// @vitest-environment node
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const LIMIT_BYTES = 120 * 1024;
const BUILD_MS = 120_000;

let folder = "";
let files: Record<string, Buffer> = {};

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "quorum-page-"));
  // In a process of its own: in this one Svelte would be built for tests.
  const { VITEST: _, ...env } = process.env;
  const vite = join(import.meta.dirname, "..", "node_modules", "vite", "bin", "vite.js");
  const command = [vite, "build", "--logLevel", "error", "--outDir", folder, "--emptyOutDir"];
  execFileSync(process.execPath, command, {
    cwd: join(import.meta.dirname, ".."),
    env: { ...env, NODE_ENV: "production" },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => /\.\w+$/.test(name));
  files = Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name))]));
}, BUILD_MS);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the built page", () => {
  test("weighs less than 120 KiB compressed, KaTeX and the colours of code apart", () => {
    const own = Object.entries(files).filter(([name]) => /\.(?:html|js|css|svg)$/.test(name) && !/katex|languages/i.test(name));
    const weight = own.reduce((sum, [, content]) => sum + gzipSync(content).length, 0);
    console.info(`the page weighs ${(weight / 1024).toFixed(1)} KiB compressed`);
    expect(weight).toBeLessThan(LIMIT_BYTES);
    expect(own.length).toBeGreaterThanOrEqual(4);
  });

  test("loads the colours of code only when there is code", () => {
    expect(files["index.html"]?.toString()).not.toMatch(/languages/);
    expect(Object.keys(files).filter((name) => /languages.*\.js$/.test(name))).toHaveLength(1);
  });

  test("loads KaTeX only when a formula appears", () => {
    const page = files["index.html"]?.toString() ?? "";
    expect(page).not.toMatch(/katex/i);
    expect(Object.keys(files).some((name) => /katex.*\.js$/.test(name))).toBe(true);
    expect(Object.keys(files).filter((name) => /\.(?:woff|ttf)$/.test(name))).toEqual([]);
  });

  test("keeps to its policy: nothing inline, nothing from elsewhere", () => {
    const page = files["index.html"]?.toString() ?? "";
    for (const [, attributes = "", inside = ""] of page.matchAll(/<script([^>]*)>([^]*?)<\/script>/g)) {
      expect(attributes).toMatch(/src="\.\//);
      expect(inside.trim()).toBe("");
    }
    expect(page).not.toMatch(/<style|style=|\son\w+=|https?:/);
    for (const [name, content] of Object.entries(files)) {
      if (name.endsWith(".css")) expect(content.toString()).not.toMatch(/@import|url\(["']?(?:https?:|\/\/|data:)/);
      if (name.endsWith(".js")) expect(content.toString()).not.toMatch(/\beval\(|new Function\(/);
    }
  });
});
