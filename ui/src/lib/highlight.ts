/** Colours for code. What makes them is loaded when the first code appears. */

import { escaped } from "./escape";

type Highlighter = (typeof import("./languages"))["default"];

let ready: Highlighter | null = null;
let loading: Promise<void> | null = null;

/** Longer code is shown plain: colouring it again with every token would stall the page. */
const MOST = 40_000;
const FENCE = /^[ \t>*+-]*(?:```|~~~)/m;

/** HTML of `code` with spans of classes only; plain until the colours are there. */
export function highlighted(code: string, language: string): string {
  if (ready === null || code.length > MOST || !ready.getLanguage(language)) return escaped(code);
  return ready.highlight(code, { language, ignoreIllegals: true }).value;
}

/** Whether `markdown` has code that will look different once the colours are there. */
export function lacksColours(markdown: string): boolean {
  return ready === null && FENCE.test(markdown);
}

/** Resolves when `highlighted` colours; rejects when they can't be had, and may be tried again. */
export function loadColours(): Promise<void> {
  loading ??= import("./languages").then(
    (languages) => void (ready = languages.default),
    (error: unknown) => {
      loading = null;
      throw error;
    },
  );
  return loading;
}
