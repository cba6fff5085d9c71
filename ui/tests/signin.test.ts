import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Api, ApiError, fileName } from "../src/lib/api";
import { desktop } from "../src/lib/desktop";
import { signIn } from "../src/lib/signin";

type Sent = { path: string; init: RequestInit };

function api(sent: Sent[], status = 200, body: unknown = undefined): (token: string | null) => Api {
  return (token) =>
    new Api(token, (path, init) => {
      sent.push({ path: String(path), init: init ?? {} });
      return Promise.resolve(new Response(body === undefined ? null : JSON.stringify(body), { status }));
    });
}

/** What the window injects after the page has loaded. */
function inject(api: Record<string, () => unknown>): void {
  window.pywebview = { api };
  window.dispatchEvent(new CustomEvent("pywebviewready"));
}

beforeEach(() => {
  history.replaceState(null, "", "/");
  sessionStorage.clear();
});

afterEach(() => {
  Reflect.deleteProperty(window, "pywebview");
  vi.useRealTimers();
});

describe("a browser", () => {
  test("trades the token of the address for a cookie and forgets it", async () => {
    history.replaceState(null, "", "/#token=s3cret-Token_1");
    const sent: Sent[] = [];
    const signing = signIn(window, api(sent, 204));
    expect(location.hash).toBe("");
    const access = await signing;
    expect(sent.map((one) => one.path)).toEqual(["/local/v1/session"]);
    expect(sent[0]?.init.body).toBe('{"token":"s3cret-Token_1"}');
    expect(access).toMatchObject({ desktop: null, refused: null });
    expect(JSON.stringify([location.href, { ...localStorage }, { ...sessionStorage }])).not.toContain("s3cret");
  });

  test("with a token that is not accepted says so", async () => {
    history.replaceState(null, "", "/#token=old");
    const access = await signIn(window, api([], 401, { error: { code: "unauthorized", message: "Old.", status: 401 } }));
    expect(access.refused?.code).toBe("unauthorized");
    expect(location.hash).toBe("");
  });

  test("without a token tries its cookie and keeps the page it is on", async () => {
    history.replaceState(null, "", "/#/models");
    const sent: Sent[] = [];
    const access = await signIn(window, api(sent));
    expect(sent).toEqual([]);
    expect(access.desktop).toBeNull();
    expect(location.hash).toBe("#/models");
  });
});

describe("the window", () => {
  test("hands over its token, which goes with every call and nowhere else", async () => {
    history.replaceState(null, "", "/#window");
    const sent: Sent[] = [];
    const signing = signIn(window, api(sent));
    inject({ token: () => Promise.resolve("tok_1"), pick_model: () => Promise.resolve(null) });
    const access = await signing;
    await access.api.get("/status");
    expect(new Headers(sent[0]?.init.headers).get("Authorization")).toBe("Bearer tok_1");
    expect(await access.desktop?.pick_model?.()).toBeNull();
    expect(location.hash).toBe("");
    expect(JSON.stringify([location.href, { ...localStorage }, { ...sessionStorage }])).not.toContain("tok_1");
  });

  test("that was ready before the page is not missed", async () => {
    vi.useFakeTimers();
    inject({ token: () => Promise.resolve("tok_2") });
    const found = desktop(window);
    await vi.advanceTimersByTimeAsync(1000);
    expect(await (await found).token()).toBe("tok_2");
  });

  test.each([
    ["never hands anything over", undefined],
    ["does not take the page for its own", { token: () => Promise.resolve(null) }],
  ])("that %s ends in a reason", async (_what, functions) => {
    vi.useFakeTimers();
    history.replaceState(null, "", "/#window");
    const signing = signIn(window, api([]));
    if (functions) inject(functions);
    await vi.advanceTimersByTimeAsync(20_000);
    const access = await signing;
    expect(access.refused).not.toBeNull();
    expect(sessionStorage.length).toBe(0);
  });
});

describe("a call", () => {
  test("that is refused carries the code, sentence and hint of the node", async () => {
    const error = { code: "paused", message: "Paused.", hint: "Resume.", status: 503, retry_after_s: null };
    await expect(api([], 503, { error })(null).post("/x")).rejects.toMatchObject({ info: error });
  });

  test("that nobody answers, or that is answered with something else, has a sentence too", async () => {
    const nobody = new Api(null, () => Promise.reject(new TypeError("failed")));
    await expect(nobody.get("/x")).rejects.toMatchObject({ info: { code: "unreachable" } });
    const strange = new Api(null, () => Promise.resolve(new Response("<html>", { status: 500 })));
    await expect(strange.get("/x")).rejects.toBeInstanceOf(ApiError);
  });

  test("for a file gives it the name that the node says", () => {
    expect(fileName('attachment; filename="a b.md"')).toBe("a b.md");
    expect(fileName("attachment; filename=\"_.md\"; filename*=utf-8''%C3%BCber.md")).toBe("über.md");
    expect(fileName("attachment")).toBe("");
  });
});
