/** What the page adds to clean Markdown: a head with language and copy button on code, a frame that scrolls on tables. */

import { copy } from "./clipboard";
import { t } from "./strings";

const COPIED_MS = 1500;

/** Changes `fragment` in place and returns it. */
export function dressed(fragment: DocumentFragment): DocumentFragment {
  for (const pre of fragment.querySelectorAll("pre")) frame(pre);
  for (const table of fragment.querySelectorAll("table")) {
    const box = element("div", "table");
    box.tabIndex = 0;
    table.replaceWith(box);
    box.append(table);
  }
  return fragment;
}

function frame(pre: HTMLPreElement): void {
  const code = pre.querySelector("code");
  const language = /language-(\S+)/.exec(code?.className ?? "")?.[1] ?? "";
  const box = element("div", "code");
  const head = element("div", "code-head");
  const label = element("span", "");
  label.textContent = language || t.chat.plain;
  head.append(label, copyButton(() => code?.textContent ?? pre.textContent ?? ""));
  pre.replaceWith(box);
  pre.tabIndex = 0;
  box.append(head, pre);
}

function copyButton(text: () => string): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button quiet small";
  button.textContent = t.copy;
  button.addEventListener("click", () => {
    void copy(text()).then((done) => {
      button.textContent = done ? t.copied : t.notCopied;
      setTimeout(() => (button.textContent = t.copy), COPIED_MS);
    });
  });
  return button;
}

function element(tag: "div" | "span", className: string): HTMLElement {
  const made = document.createElement(tag);
  if (className) made.className = className;
  return made;
}
