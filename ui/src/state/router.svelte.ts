/** A small hash router: `#/chat/<id>`, `#/models`, `#/peers`, `#/queue`, `#/settings`. */

const PAGES = ["models", "peers", "queue", "settings"] as const;

export type Route = { page: "chat"; id: string | null } | { page: (typeof PAGES)[number] };

export function parseRoute(hash: string): Route {
  const [, page = "", id = ""] = hash.split("/");
  const known = PAGES.find((name) => name === page);
  if (known) return { page: known };
  return { page: "chat", id: /^[\w-]{1,64}$/.test(id) ? id : null };
}

export function chatPath(id: string | null): string {
  return id === null ? "#/chat" : `#/chat/${id}`;
}

class Router {
  route: Route = $state.raw(parseRoute(location.hash));

  constructor() {
    addEventListener("hashchange", () => (this.route = parseRoute(location.hash)));
  }

  go(path: string): void {
    location.hash = path;
  }

  /** The same page under its final address: no step in the history. */
  replace(path: string): void {
    history.replaceState(null, "", path);
    this.route = parseRoute(path);
  }
}

export const router = new Router();
