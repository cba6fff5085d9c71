/** Server-Sent Events read from a fetch body, so that headers and cookies work alike in the window and in a browser. */

export interface SseEvent {
  /** `message` where the stream named none. */
  event: string;
  data: string;
  /** The last id the stream has given, which a reader sends back as `Last-Event-ID`. */
  id: string;
}

/** Cuts text that may be split anywhere into events, by the rules of the HTML standard. */
export class SseParser {
  #rest = "";
  #event = "";
  #data: string[] = [];
  #id = "";
  #begun = false;

  push(text: string): SseEvent[] {
    let buffer = this.#rest + text;
    if (!this.#begun && buffer.length > 0) {
      this.#begun = true;
      if (buffer.startsWith("\uFEFF")) buffer = buffer.slice(1);
    }
    const events: SseEvent[] = [];
    let start = 0;
    for (;;) {
      const end = nextBreak(buffer, start);
      if (end === null) break;
      const event = this.#line(buffer.slice(start, end.at));
      if (event) events.push(event);
      start = end.at + end.length;
    }
    this.#rest = buffer.slice(start);
    return events;
  }

  #line(line: string): SseEvent | null {
    if (line === "") return this.#dispatch();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "event") this.#event = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    return null;
  }

  #dispatch(): SseEvent | null {
    const event = this.#event || "message";
    const data = this.#data;
    this.#event = "";
    this.#data = [];
    return data.length > 0 ? { event, data: data.join("\n"), id: this.#id } : null;
  }
}

/** The next line break from `start`; a carriage return at the very end may be half of one, so it waits. */
function nextBreak(text: string, start: number): { at: number; length: number } | null {
  for (let at = start; at < text.length; at++) {
    const letter = text[at];
    if (letter === "\n") return { at, length: 1 };
    if (letter === "\r") {
      if (at + 1 === text.length) return null;
      return { at, length: text[at + 1] === "\n" ? 2 : 1 };
    }
  }
  return null;
}

/** Events of a response as they come; `alive` is called for every piece of it, comments included. */
export async function* readEvents(body: ReadableStream<Uint8Array>, alive?: () => void): AsyncGenerator<SseEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new SseParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive?.();
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
