/** Calls of the control surface. A refusal is an `ApiError` that carries what the user is told. */

import { t } from "./strings";
import type { ErrorInfo } from "../wire.gen";

export class ApiError extends Error {
  constructor(readonly info: ErrorInfo) {
    super(info.message);
  }
}

/** Nobody answered: the node is down, or restarting. */
export const UNREACHABLE = "unreachable";

type Fetch = typeof fetch;

export class Api {
  /** `token` is null in a browser, where a cookie that scripts can't read does the same. */
  constructor(
    private readonly token: string | null = null,
    private readonly fetcher: Fetch = (input, init) => fetch(input, init),
  ) {}

  get = <T>(path: string, signal?: AbortSignal): Promise<T> => this.#json<T>("GET", path, undefined, signal);
  post = <T>(path: string, body: object = {}): Promise<T> => this.#json<T>("POST", path, body);
  patch = <T>(path: string, body: object): Promise<T> => this.#json<T>("PATCH", path, body);
  remove = <T>(path: string): Promise<T> => this.#json<T>("DELETE", path);

  /** A file's content and the name the server gives it. */
  async file(path: string): Promise<{ name: string; content: Blob }> {
    const response = await this.#send("GET", path, {});
    const name = fileName(response.headers.get("Content-Disposition") ?? "");
    return { name, content: await response.blob() };
  }

  /** An open event stream; resumes after `lastEventId` where the route can. */
  async stream(path: string, signal: AbortSignal, lastEventId = ""): Promise<ReadableStream<Uint8Array>> {
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    if (lastEventId) headers["Last-Event-ID"] = lastEventId;
    const response = await this.#send("GET", path, { headers, signal, cache: "no-store" });
    if (!response.body) throw new ApiError(unreachable());
    return response.body;
  }

  async #json<T>(method: string, path: string, body?: object, signal?: AbortSignal): Promise<T> {
    const init: RequestInit = { headers: { Accept: "application/json" } };
    if (signal) init.signal = signal;
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { ...init.headers, "Content-Type": "application/json" };
    }
    const response = await this.#send(method, path, init);
    const text = await response.text();
    return (text ? JSON.parse(text) : undefined) as T;
  }

  async #send(method: string, path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.token !== null) headers.set("Authorization", `Bearer ${this.token}`);
    let response: Response;
    try {
      response = await this.fetcher(`/local/v1${path}`, {
        ...init,
        method,
        headers,
        credentials: "same-origin",
        redirect: "error",
      });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ApiError(unreachable());
    }
    if (!response.ok) throw new ApiError(await refusal(response));
    return response;
  }
}

/** The name in a `Content-Disposition`; letters beyond ASCII come percent-encoded. */
export function fileName(header: string): string {
  const encoded = /filename\*=utf-8''([^;\s]+)/i.exec(header)?.[1];
  if (encoded) return decodeURIComponent(encoded);
  return /filename="([^"]+)"/.exec(header)?.[1] ?? /filename=([^;\s"]+)/.exec(header)?.[1] ?? "";
}

function unreachable(): ErrorInfo {
  return { code: UNREACHABLE, ...t.errors.unreachable, status: 0, retry_after_s: null };
}

async function refusal(response: Response): Promise<ErrorInfo> {
  const fallback: ErrorInfo = {
    code: `http_${response.status}`,
    ...t.errors.unexpected(response.status),
    status: response.status,
    retry_after_s: null,
  };
  try {
    return errorInfo(((await response.json()) as { error?: unknown }).error) ?? fallback;
  } catch {
    return fallback;
  }
}

/** `value` as an `ErrorInfo`, filled up where parts are missing; null when it is none. */
export function errorInfo(value: unknown): ErrorInfo | null {
  if (typeof value !== "object" || value === null) return null;
  const given = value as Partial<Record<keyof ErrorInfo, unknown>>;
  if (typeof given.message !== "string") return null;
  return {
    code: typeof given.code === "string" ? given.code : "internal",
    message: given.message,
    hint: typeof given.hint === "string" ? given.hint : "",
    status: typeof given.status === "number" ? given.status : 500,
    retry_after_s: typeof given.retry_after_s === "number" ? given.retry_after_s : null,
  };
}

/** Whatever was thrown, as the user is told. */
export function told(error: unknown): ErrorInfo {
  if (error instanceof ApiError) return error.info;
  const message = error instanceof Error ? error.message : String(error);
  return { code: "internal", message, hint: t.errors.page, status: 500, retry_after_s: null };
}
