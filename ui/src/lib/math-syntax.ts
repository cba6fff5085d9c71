/** Mathematics in Markdown: `$x$`, `\(x\)`, `$$x$$`, `\[x\]`. Rendered later by `math.ts`, which loads KaTeX. */

import type { TokenizerAndRendererExtension, Tokens } from "marked";
import { escaped } from "./escape";

export const INLINE_CLASS = "math-inline";
export const DISPLAY_CLASS = "math-display";

// A dollar that opens touches what follows; one that closes touches what precedes and no digit follows: "$5 and $6".
const INLINE = /^\$(?!\s)((?:\\.|[^\\$\n])*?(?:\\.|[^\\$\s]))\$(?!\d)|^\\\(([^\n]+?)\\\)/;
const DISPLAY_INLINE = /^\$\$((?:\\[^]|[^\\$])+?)\$\$|^\\\[([^]+?)\\\]/;
const DISPLAY = /^ {0,3}(?:\$\$((?:\\[^]|[^\\$])+?)\$\$|\\\[([^]+?)\\\])[ \t]*(?:\n+|$)/;

function token(type: string, match: RegExpExecArray | null): Tokens.Generic | undefined {
  const text = (match?.[1] ?? match?.[2])?.trim();
  // "$5 and another $6" is no formula.
  if (text && type === "mathInline" && /^[\d.,]+\s+[A-Za-z]{2}/.test(text)) return undefined;
  return match && text ? { type, raw: match[0], text } : undefined;
}

function start(src: string): number | undefined {
  const at = src.search(/\$|\\[([]/);
  return at < 0 ? undefined : at;
}

function html(cls: string, text: unknown): string {
  return `<span class="${cls}">${escaped(String(text))}</span>`;
}

export const mathExtensions: TokenizerAndRendererExtension[] = [
  {
    name: "mathBlock",
    level: "block",
    start: (src) => {
      const at = src.search(/(?:^|\n) {0,3}(?:\$\$|\\\[)/);
      return at < 0 ? undefined : at;
    },
    tokenizer: (src) => token("mathBlock", DISPLAY.exec(src)),
    renderer: ({ text }) => `<p>${html(DISPLAY_CLASS, text)}</p>`,
  },
  {
    name: "mathDisplay",
    level: "inline",
    start,
    tokenizer: (src) => token("mathDisplay", DISPLAY_INLINE.exec(src)),
    renderer: ({ text }) => html(DISPLAY_CLASS, text),
  },
  {
    name: "mathInline",
    level: "inline",
    start,
    tokenizer: (src) => token("mathInline", INLINE.exec(src)),
    renderer: ({ text }) => html(INLINE_CLASS, text),
  },
];
