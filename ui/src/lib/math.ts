/** Typesets the formulas that `math-syntax.ts` marked. KaTeX is loaded when the first one appears. */

import type { KatexOptions } from "katex";
import { DISPLAY_CLASS, INLINE_CLASS } from "./math-syntax";

type Render = (source: string, target: HTMLElement, options: KatexOptions) => void;

let render: Render | null = null;
let loading: Promise<Render> | null = null;

function load(): Promise<Render> {
  loading ??= Promise.all([import("katex"), import("katex/dist/katex.min.css")]).then(([katex]) => {
    render = katex.default.render;
    return render;
  });
  return loading;
}

/** Replaces formulas below `root` in place; until KaTeX is there their source shows. */
export function typeset(root: ParentNode): void {
  const formulas = [...root.querySelectorAll<HTMLElement>(`.${INLINE_CLASS}, .${DISPLAY_CLASS}`)];
  if (formulas.length === 0) return;
  if (render) formulas.forEach((formula) => draw(formula, render as Render));
  else void load().then((ready) => formulas.forEach((formula) => draw(formula, ready))).catch(() => (loading = null));
}

/** Into nodes, not text: KaTeX then sets styles on them, which the page's policy allows; `trust` off keeps links out. */
function draw(formula: HTMLElement, ready: Render): void {
  const source = formula.textContent ?? "";
  try {
    ready(source, formula, {
      displayMode: formula.classList.contains(DISPLAY_CLASS),
      throwOnError: true,
      trust: false,
      strict: false,
      maxSize: 20,
      maxExpand: 200,
    });
  } catch {
    formula.textContent = source;
    formula.classList.add("math-source");
  }
}
