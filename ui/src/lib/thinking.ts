/** Thinking that an engine leaves in the answer as `<think>...</think>` instead of telling it apart. Pure. */

export interface Parts {
  content: string;
  reasoning: string;
}

const OPEN = /^\s*<think(?:ing)?>/;
const CLOSE = /<\/think(?:ing)?>\s*/;

export function splitThinking(content: string, reasoning: string): Parts {
  const open = OPEN.exec(content);
  if (!open) return { content, reasoning };
  const inside = content.slice(open[0].length);
  const close = CLOSE.exec(inside);
  const joined = [reasoning, close ? inside.slice(0, close.index) : inside].map((part) => part.trim()).filter(Boolean);
  return { content: close ? inside.slice(close.index + close[0].length) : "", reasoning: joined.join("\n\n") };
}
