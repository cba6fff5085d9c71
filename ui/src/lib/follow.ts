/** One answer as it is made: `/local/v1/jobs/{id}/events`, attached again after a lost connection where it broke off. */

import { ApiError, errorInfo } from "./api";
import { delayMs, pause } from "./backoff";
import { readEvents, type SseEvent } from "./sse";
import type { Ended, ErrorInfo, State } from "../wire.gen";

export interface FollowReader {
  /** The stream begins, or begins again with a new answer: forget the text so far. `restarted` in the second case. */
  begin(restarted: boolean): void;
  delta(content: string, reasoning: string): void;
  state(state: State): void;
  error(error: ErrorInfo): void;
  ended(ended: Ended): void;
  /** Whether the connection is lost at the moment. */
  lost(lost: boolean): void;
  /** The node no longer knows the job, or denies it: no end will be told. */
  gone(error: ErrorInfo): void;
}

type Open = (signal: AbortSignal, lastEventId: string) => Promise<ReadableStream<Uint8Array>>;

/** Follows one job to its end. Returns when it ended, is gone, or `signal` aborts. */
export async function follow(
  open: Open,
  reader: FollowReader,
  signal: AbortSignal,
  wait: typeof pause = pause,
): Promise<void> {
  const place = new Place();
  let failures = 0;
  let begun = false;
  while (!signal.aborted) {
    try {
      const body = await open(signal, place.last);
      reader.lost(false);
      if (!begun) reader.begin(false);
      begun = true;
      for await (const event of readEvents(body)) {
        failures = 0;
        if (signal.aborted) return;
        if (place.seen(event)) continue;
        if (deliver(event, reader)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.info.status >= 400 && error.info.status < 500) {
        return reader.gone(error.info);
      }
    }
    if (signal.aborted) return;
    failures += 1;
    reader.lost(true);
    await wait(delayMs(failures), signal);
  }
}

/** Where in the stream we are. Ids are `try.seq`: what the node repeats after a reconnection is dropped. */
class Place {
  last = "";

  seen(event: SseEvent): boolean {
    if (event.event !== "message" || event.id === "") return false;
    if (!newer(event.id, this.last)) return true;
    this.last = event.id;
    return false;
  }
}

function newer(id: string, last: string): boolean {
  if (last === "") return true;
  const [turn = 0, seq = 0] = id.split(".").map(Number);
  const [lastTurn = 0, lastSeq = 0] = last.split(".").map(Number);
  if ([turn, seq, lastTurn, lastSeq].some(Number.isNaN)) return id !== last;
  return turn > lastTurn || (turn === lastTurn && seq > lastSeq);
}

/** Tells `reader` what `event` says; true when it was the last one. */
function deliver(event: SseEvent, reader: FollowReader): boolean {
  if (event.data === "[DONE]") return false;
  const data: unknown = JSON.parse(event.data);
  switch (event.event) {
    case "state":
      reader.state(data as State);
      return false;
    case "reset":
      reader.begin(true);
      return false;
    case "ended":
      reader.ended(data as Ended);
      return true;
    case "error":
      tellError(data, reader);
      return false;
    case "message":
      tellChunk(data, reader);
      return false;
    default:
      return false;
  }
}

interface Chunk {
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null; reasoning?: string | null } }[];
}

function tellChunk(data: unknown, reader: FollowReader): void {
  const delta = (data as Chunk).choices?.[0]?.delta;
  const content = delta?.content ?? "";
  const reasoning = delta?.reasoning_content ?? delta?.reasoning ?? "";
  if (content || reasoning) reader.delta(content, reasoning);
  tellError(data, reader);
}

function tellError(data: unknown, reader: FollowReader): void {
  const error = errorInfo((data as { error?: unknown }).error) ?? errorInfo(data);
  if (error) reader.error(error);
}
