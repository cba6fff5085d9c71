/**
 * The window around the page (pywebview): the control token, a file dialog, saving a file.
 *
 * pywebview builds its functions with `new Function` and returns values through `eval`. The page's policy allows
 * neither, and loosening it would open a door for everything else; `withoutEval` does both by hand instead.
 */

export interface Desktop {
  /** The control token of this start. */
  token(): Promise<string>;
  /** A path the user picked, or null; absent where the window can't ask. */
  pick_model?(): Promise<string | null>;
  /** Saves text under a name the user picks; absent where the window can't. */
  save_file?(name: string, text: string): Promise<boolean>;
}

interface Bridge {
  api: Record<string, unknown>;
  _returnValuesCallbacks: Record<string, Record<string, (value: Returned) => void>>;
  _checkValue(name: string, resolve: (value: unknown) => void, reject: (error: Error) => void, id: string): void;
  _jsApiCallback(name: string, parameters: unknown[], id: string): void;
  _createApi(functions: { func: string }[]): void;
}

interface Returned {
  value: string;
  isError?: boolean;
}

declare global {
  interface Window {
    pywebview?: Bridge;
  }
}

/** Marks an address opened by the window; the page then waits for its token instead of a cookie. */
export const WINDOW_MARK = "#window";
const READY_MS = 15_000;

/** Must run before the window injects its bridge, that is: at once. */
export function withoutEval(target: Window): void {
  let bridge: Bridge | undefined = target.pywebview;
  if (bridge) adapt(bridge);
  Object.defineProperty(target, "pywebview", {
    configurable: true,
    get: () => bridge,
    set(value: Bridge) {
      bridge = value;
      adapt(value);
    },
  });
  const answer = (script: unknown): unknown => {
    if (typeof script !== "string" || !bridge) throw new EvalError("this page does not evaluate text");
    return deliver(bridge, script);
  };
  Object.defineProperty(target, "eval", { configurable: true, value: answer });
}

function adapt(bridge: Bridge): void {
  bridge._createApi = (functions) => {
    for (const { func } of functions) {
      bridge._returnValuesCallbacks[func] = {};
      bridge.api[func] = (...parameters: unknown[]) =>
        new Promise((resolve, reject) => {
          const id = crypto.getRandomValues(new Uint32Array(2)).join("");
          bridge._checkValue(func, resolve, reject, id);
          bridge._jsApiCallback(func, parameters, id);
        });
    }
  };
}

const RETURN =
  /^\s*window\.pywebview\._returnValuesCallbacks\["(\w+)"\]\["(\d+)"\]\(\{(isError: true, )?value: '([^]*)'\}\)\s*$/;

/** Understands only the one statement with which the window returns a value. */
function deliver(bridge: Bridge, script: string): undefined {
  const match = RETURN.exec(script);
  if (!match) throw new EvalError("this page does not evaluate text");
  const [, name = "", id = "", isError, quoted = ""] = match;
  const value = quoted.replace(/\\([\\'])/g, "$1");
  bridge._returnValuesCallbacks[name]?.[id]?.(isError ? { value, isError: true } : { value });
  return undefined;
}

/** The window's functions, once they are there. Rejects when they don't come. */
export function desktop(target: Window): Promise<Desktop> {
  const ready = (): Desktop | null => {
    const api = target.pywebview?.api;
    return typeof api?.["token"] === "function" ? (api as unknown as Desktop) : null;
  };
  return new Promise((resolve, reject) => {
    const now = ready();
    // Qt's bridge exists a moment before its channel does; the event says when both do.
    const timer = setTimeout(() => {
      const late = ready();
      if (late) resolve(late);
      else reject(new Error("the window did not hand over its functions"));
    }, now ? 500 : READY_MS);
    target.addEventListener(
      "pywebviewready",
      () => {
        clearTimeout(timer);
        const api = ready();
        if (api) resolve(api);
        else reject(new Error("the window has no token function"));
      },
      { once: true },
    );
  });
}
