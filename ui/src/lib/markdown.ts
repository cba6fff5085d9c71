/**
 * Markdown of models, which is hostile input: block by block to clean DOM nodes.
 *
 * marked renders, the renderers below let through no HTML of the model but a few bare tags, and DOMPurify goes over
 * the result last. Pictures are shown only when they lie in the text itself; others become links.
 */

import DOMPurify from "dompurify";
import { Marked, type Token, type Tokens } from "marked";
import { escaped } from "./escape";
import { highlighted } from "./highlight";
import { mathExtensions } from "./math-syntax";
import { t } from "./strings";

export interface Block {
  /** Its source; a block whose source is unchanged needs no new rendering. */
  raw: string;
  token: Token;
}

/** Beyond this a text is shown plain: nobody reads it as Markdown, and parsing it would stall the page. */
const MOST = 400_000;

const BARE_TAGS = /&lt;(\/?)(b|br|del|em|hr|i|kbd|mark|s|small|strong|sub|sup|u)\s*\/?&gt;/gi;
const LINK = /^(?:https?:|mailto:)/i;
const INLINE_IMAGE = /^data:image\/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+$/i;

const marked = new Marked({
  gfm: true,
  breaks: true,
  extensions: mathExtensions,
  renderer: {
    html: ({ text, block }) => (block ? `<p>${bare(text.trim()).replace(/\n/g, "<br>")}</p>` : bare(text)),
    code: ({ text, lang }) => codeBlock(text, lang ?? ""),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    listitem(item: Tokens.ListItem): string {
      return `<li${item.task ? ' class="task"' : ""}>${this.parser.parse(item.tokens)}</li>\n`;
    },
    image: ({ href, text, title }) => picture(href, text, title),
    link(token: Tokens.Link): string {
      const inner = this.parser.parseInline(token.tokens);
      const href = cleanHref(token.href);
      if (!LINK.test(href)) return inner;
      return `<a href="${escaped(href)}"${token.title ? ` title="${escaped(token.title)}"` : ""}>${inner}</a>`;
    },
  },
});

/** HTML as text, but for a few tags without attributes that models do write: a line break in a table, a raised 2. */
function bare(html: string): string {
  return escaped(html).replace(BARE_TAGS, "<$1$2>");
}

function codeBlock(code: string, info: string): string {
  const language = /^[\w+#.-]{1,30}/.exec(info)?.[0]?.toLowerCase() ?? "";
  const label = language ? ` class="language-${escaped(language)}"` : "";
  return `<pre><code${label}>${highlighted(code, language)}</code></pre>`;
}

function picture(href: string, text: string, title: string | null): string {
  const label = escaped(text || title || href);
  if (INLINE_IMAGE.test(href)) return `<img src="${escaped(href)}" alt="${label}">`;
  const address = cleanHref(href);
  return LINK.test(address) ? `<a href="${escaped(address)}">${escaped(t.chat.remoteImage)} ${label}</a>` : label;
}

/** Addresses without the control characters and spaces that browsers skip when they look for the scheme. */
function cleanHref(href: string): string {
  return href.replace(/[\u0000-\u0020\u007f-\u009f]/g, "");
}

/** The blocks of `text`. */
export function blocks(text: string): Block[] {
  if (text.length > MOST) return [{ raw: text, token: { type: "text", raw: text, text, escaped: false } }];
  return marked.lexer(text).filter((token) => token.type !== "space").map((token) => ({ raw: token.raw, token }));
}

const TAGS = [
  ...["a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd"],
  ...["li", "mark", "ol", "p", "pre", "s", "small", "span", "strong", "sub", "sup", "table", "tbody", "td", "th"],
  ...["thead", "tr", "u", "ul"],
];
const ATTRIBUTES = ["align", "alt", "class", "href", "src", "start", "title"];

const purify = DOMPurify(window);
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName === "A") {
    if (!LINK.test(node.getAttribute("href") ?? "")) node.removeAttribute("href");
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer");
  } else {
    node.removeAttribute("href");
  }
  if (node.nodeName === "IMG" && !INLINE_IMAGE.test(node.getAttribute("src") ?? "")) node.remove();
});

/** Clean nodes of one block. */
export function rendered(block: Block): DocumentFragment {
  return sanitised(marked.parser([block.token]));
}

/** Clean nodes of any HTML. */
export function sanitised(html: string): DocumentFragment {
  return purify.sanitize(html, {
    RETURN_DOM_FRAGMENT: true,
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
  });
}
