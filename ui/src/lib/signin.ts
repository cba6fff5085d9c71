/** How the page gets to speak with its node: a token from the window, or a cookie for the token of a printed address. */

import { Api, told } from "./api";
import { desktop, WINDOW_MARK, type Desktop } from "./desktop";
import type { ErrorInfo } from "../wire.gen";

export interface Access {
  api: Api;
  /** Null in a browser. */
  desktop: Desktop | null;
  /** Why the token of the address was not taken, where there was one. */
  refused: ErrorInfo | null;
}

const TOKEN = /^#token=([A-Za-z0-9_\-.~]+)$/;
const IN_WINDOW = "quorum.window";

type MakeApi = (token: string | null) => Api;

/** Reads the address once; a token in it is removed from address and history before anything else happens. */
export async function signIn(target: Window, makeApi: MakeApi = (token) => new Api(token)): Promise<Access> {
  const mark = target.location.hash;
  const token = TOKEN.exec(mark)?.[1];
  if (token !== undefined || mark === WINDOW_MARK) {
    target.history.replaceState(null, "", `${target.location.pathname}${target.location.search}`);
  }
  if (mark === WINDOW_MARK) target.sessionStorage.setItem(IN_WINDOW, "1");
  if (target.sessionStorage.getItem(IN_WINDOW) === "1" || target.pywebview) {
    return inWindow(target, makeApi);
  }
  const api = makeApi(null);
  let refused: ErrorInfo | null = null;
  if (token !== undefined) {
    await api.post("/session", { token }).catch((error: unknown) => (refused = told(error)));
  }
  return { api, desktop: null, refused };
}

async function inWindow(target: Window, makeApi: MakeApi): Promise<Access> {
  try {
    const found = await desktop(target);
    const token = await found.token();
    if (token === null) throw new Error("the window does not take this page for its own");
    return { api: makeApi(token), desktop: found, refused: null };
  } catch (error) {
    target.sessionStorage.removeItem(IN_WINDOW);
    return { api: makeApi(null), desktop: null, refused: told(error) };
  }
}
