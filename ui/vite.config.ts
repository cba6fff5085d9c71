import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

/** KaTeX names each font three times; every engine we run in reads woff2. */
function onlyWoff2(): Plugin {
  return {
    name: "only-woff2",
    enforce: "pre",
    transform(code, id) {
      if (!/katex[^?]*\.css/.test(id)) return null;
      return { code: code.replace(/,\s*url\([^)]*\.(?:woff|ttf)\)\s*format\([^)]*\)/g, ""), map: null };
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [onlyWoff2(), svelte()],
  build: {
    outDir: "../router/web/page",
    emptyOutDir: true,
    // The policy allows neither inline scripts nor data: fonts, so nothing is inlined.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: ["es2022", "safari16"],
    reportCompressedSize: true,
  },
  resolve: process.env["VITEST"] ? { conditions: ["browser"] } : {},
});
