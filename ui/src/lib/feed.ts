/** The one stream of `/local/v1/events`: a snapshot, then changes; connects again by itself and never polls. */

import { ApiError } from "./api";
import { delayMs, pause } from "./backoff";
import { readEvents, type SseEvent } from "./sse";
import type { Change, Snapshot } from "../wire.gen";

/** `denied`: the node wants a token or cookie we don't have. */
export type FeedStatus = "connecting" | "live" | "lost" | "denied";

export interface FeedReader {
  snapshot(snapshot: Snapshot): void;
  change(change: Change): void;
  status(status: FeedStatus): void;
}

/** The node sends a beat every 15 s; three missed ones are a dead connection. */
const SILENCE_MS = 45_000;

export class Feed {
  #stopped = false;
  #connection: AbortController | null = null;
  #waiting: AbortController | null = null;

  constructor(
    private readonly open: (signal: AbortSignal) => Promise<ReadableStream<Uint8Array>>,
    private readonly reader: FeedReader,
    private readonly wait: typeof pause = pause,
  ) {}

  /** Runs until `stop`, or until the node denies access. */
  async run(): Promise<void> {
    let failures = 0;
    this.reader.status("connecting");
    while (!this.#stopped) {
      try {
        await this.#connect(() => (failures = 0));
      } catch (error) {
        if (!this.#stopped && error instanceof ApiError && error.info.status === 401) {
          return this.reader.status("denied");
        }
      }
      if (this.#stopped) return;
      failures += 1;
      this.reader.status("lost");
      this.#waiting = new AbortController();
      await this.wait(delayMs(failures), this.#waiting.signal);
      this.#waiting = null;
    }
  }

  /** Try again now, e.g. because the computer woke up. */
  hurry(): void {
    this.#waiting?.abort();
  }

  stop(): void {
    this.#stopped = true;
    this.#connection?.abort();
    this.#waiting?.abort();
  }

  async #connect(connected: () => void): Promise<void> {
    const connection = new AbortController();
    this.#connection = connection;
    let timer = setTimeout(() => connection.abort(), SILENCE_MS);
    const alive = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => connection.abort(), SILENCE_MS);
    };
    try {
      for await (const event of readEvents(await this.open(connection.signal), alive)) {
        if (event.event === "snapshot") connected();
        this.#take(event);
      }
    } finally {
      clearTimeout(timer);
      this.#connection = null;
    }
  }

  #take(event: SseEvent): void {
    if (event.event === "snapshot") {
      this.reader.snapshot(JSON.parse(event.data) as Snapshot);
      this.reader.status("live");
    } else if (event.event === "change") {
      this.reader.change(JSON.parse(event.data) as Change);
    }
  }
}
