import { describe, expect, test } from "vitest";
import { loadColours } from "../src/lib/highlight";
import { dressed } from "../src/lib/dress";
import { blocks, rendered, sanitised } from "../src/lib/markdown";

function html(text: string): string {
  const host = document.createElement("div");
  for (const block of blocks(text)) host.append(dressed(rendered(block)));
  return host.innerHTML;
}

function dom(text: string): HTMLElement {
  const host = document.createElement("div");
  host.innerHTML = html(text);
  return host;
}

describe("hostile text of a model", () => {
  test.each([
    "<script>alert(1)</script>",
    'text <script src="https://evil.example/x.js"></script>',
    "<img src=x onerror=alert(1)>",
    '<svg onload="alert(1)"><animate onbegin=alert(1)>',
    '<b onclick="alert(1)">x</b>',
    '<iframe src="https://evil.example"></iframe>',
    "<style>body{display:none}</style>",
    '<form action="https://evil.example"><input name=q><button>go</button></form>',
    '<a href="javascript:alert(1)">x</a>',
    '<pre><img src=x onerror=alert(1)></pre>',
    "```<script>\nx\n```",
    "`<img src=x onerror=alert(1)>`",
    "| <script>a</script> | <img src=x onerror=b> |\n|---|---|\n| <b style='x'>y</b> | z |",
    '<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>',
    "$<img src=x onerror=alert(1)>$",
  ])("makes no element that acts: %s", (text) => {
    const host = dom(text);
    expect(host.querySelector("script, iframe, style, form, input, svg, math, object, embed, link, meta")).toBeNull();
    expect(host.querySelectorAll("img")).toHaveLength(0);
    for (const element of host.querySelectorAll("*")) {
      for (const attribute of element.attributes) expect(attribute.name).not.toMatch(/^on|^style$|^srcdoc$/);
    }
    expect(host.querySelectorAll("[href], [src]")).toHaveLength(0);
  });

  test.each([
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](vbscript:x)",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](file:///etc/passwd)",
    "<javascript:alert(1)>",
    "[x][1]\n\n[1]: javascript:alert(1)",
  ])("makes no link to anything but web and mail: %s", (text) => {
    expect(dom(text).querySelectorAll("a[href]")).toHaveLength(0);
  });

  test("shows a box in the place of a task's marker", () => {
    expect(html("- [ ] open\n- [x] done\n- plain")).toContain('<li class="task">☐ open</li>\n<li class="task">☑ done</li>\n<li>plain</li>');
  });

  test("shows HTML as text, but for a few bare tags", () => {
    expect(dom("a <div>b</div>").textContent).toContain("<div>b</div>");
    expect(html("H<sub>2</sub>O and 1<br>2")).toContain("H<sub>2</sub>O and 1<br>2");
  });

  test("never loads a remote picture: it becomes a link", () => {
    const host = dom("![cat](https://evil.example/pixel.png)");
    expect(host.querySelector("img")).toBeNull();
    expect(host.querySelector("a")?.getAttribute("href")).toBe("https://evil.example/pixel.png");
    expect(host.textContent).toContain("cat");
    expect(dom("![x](//evil.example/a.png)").querySelector("img, a[href]")).toBeNull();
    expect(dom("![x](data:image/svg+xml;base64,AAAA)").querySelector("img")).toBeNull();
    expect(dom("![dot](data:image/png;base64,AAAA)").querySelector("img")?.alt).toBe("dot");
  });

  test("is cleaned last, whatever came before", () => {
    const host = document.createElement("div");
    host.append(sanitised('<p style="color:red" id="x" data-x="1" onclick="y()">a<img src="https://evil.example"></p>'));
    expect(host.innerHTML).toBe("<p>a</p>");
    host.replaceChildren(sanitised('<a href="https://example.org" target="_self" style="x">b</a><code class="language-c">d</code>'));
    const link = host.querySelector("a");
    expect(link?.getAttribute("target")).toBe("_blank");
    expect(link?.getAttribute("rel")).toBe("noopener noreferrer");
    expect(link?.hasAttribute("style")).toBe(false);
  });
});

describe("Markdown", () => {
  test("is cut into blocks, and a growing text changes only its last one", () => {
    const before = blocks("# A\n\nfirst\n\nsec").map((block) => block.raw);
    const after = blocks("# A\n\nfirst\n\nsecond *one*").map((block) => block.raw);
    expect(after.slice(0, -1)).toEqual(before.slice(0, -1));
    expect(after.at(-1)).toContain("second");
  });

  test("shows code with its language and a button, and with colours once they are there", async () => {
    await loadColours();
    const host = dom('```python title="x"\ndef f(): return "<b>"\n```');
    expect(host.querySelector(".code-head span")?.textContent).toBe("python");
    expect(host.querySelector(".code-head button")?.textContent).toBe("Copy");
    expect(host.querySelector("pre")?.textContent).toContain('return "<b>"');
    expect(host.querySelector(".hljs-keyword")?.textContent).toBe("def");
    expect(dom("```unheard-of\na<b\n```").querySelector("pre")?.textContent).toContain("a<b");
  });

  test("keeps an unfinished fence as code while it is written", () => {
    expect(dom("```js\nlet a = 1").querySelector("pre code")).not.toBeNull();
  });

  test("marks formulas and leaves prices alone", () => {
    expect(dom("so $e^{i\\pi}$ and \\(a_1\\)").querySelectorAll(".math-inline")).toHaveLength(2);
    expect(dom("$$\n\\frac{1}{2}\n$$").querySelector(".math-display")?.textContent).toBe("\\frac{1}{2}");
    expect(dom("\\[x^2\\]").querySelectorAll(".math-display")).toHaveLength(1);
    expect(dom("between $5 and $6, or 7 US$").querySelector(".math-inline")).toBeNull();
    expect(dom("`$x$`").querySelector(".math-inline")).toBeNull();
  });

  test("shows a list of tasks without form fields", () => {
    const host = dom("- [x] done\n- [ ] open");
    expect(host.textContent).toContain("☑ done");
    expect(host.querySelector("input")).toBeNull();
  });

  test("shows a text beyond all measure plain", () => {
    expect(blocks(`# ${"a".repeat(400_001)}`)).toHaveLength(1);
  });
});
