/** The window around the page (pywebview): the control token, and file dialogs. */

export interface Desktop {
  /** The control token of this start; null for a page that isn't the node's. */
  token(): Promise<string | null>;
  /** The path of a model file the user picks, or null; absent where the window can't ask. */
  pick_model?(): Promise<string | null>;
  /** The same for a folder. */
  pick_folder?(): Promise<string | null>;
}

declare global {
  interface Window {
    pywebview?: { api: Record<string, unknown> };
  }
}

/** Marks an address opened by the window; the page then waits for its token instead of a cookie. */
export const WINDOW_MARK = "#window";

const READY_MS = 15_000;
/** How long after the functions appeared the event may still come: their channel is made a moment later. */
const SETTLE_MS = 500;

/** The window's functions, once they are there. Rejects when they don't come. */
export function desktop(target: Window): Promise<Desktop> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer);
      target.removeEventListener("pywebviewready", end);
      const api = functions(target);
      if (api) resolve(api);
      else reject(new Error("the window did not hand over its functions"));
    };
    const timer = setTimeout(end, functions(target) ? SETTLE_MS : READY_MS);
    target.addEventListener("pywebviewready", end);
  });
}

function functions(target: Window): Desktop | null {
  const api = target.pywebview?.api;
  return typeof api?.["token"] === "function" ? (api as unknown as Desktop) : null;
}
