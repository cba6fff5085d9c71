/** One answer while it is made: the text so far, what it waits for, how it ended. */

import type { Api } from "../lib/api";
import { follow } from "../lib/follow";
import { t } from "../lib/strings";
import type { Ended, ErrorInfo, Message, State } from "../wire.gen";

/** Text is shown in steps of this length at least; longer texts, which cost more to draw, in longer ones. */
const STEP_MS = 40;
const LETTERS_A_MS = 150;

export class Live {
  content = $state("");
  reasoning = $state("");
  /** Seconds of thinking, known when the answer proper begins. */
  reasoningS: number | null = $state(null);
  state: State | null = $state.raw(null);
  restarted = $state(false);
  lost = $state(false);

  #content = "";
  #reasoning = "";
  #thinkingSince: number | null = null;
  #error: ErrorInfo | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stop = new AbortController();

  constructor(
    private readonly message: Message,
    private readonly ended: (message: Message) => void,
    private readonly gone: () => void,
    private readonly now: () => number = () => performance.now() / 1000,
  ) {
    this.content = message.content;
    this.reasoning = message.reasoning;
  }

  get jobId(): string {
    return this.message.job_id ?? "";
  }

  async follow(api: Api): Promise<void> {
    const path = `/jobs/${this.jobId}/events`;
    await follow((signal, last) => api.stream(path, signal, last), this.#reader(), this.#stop.signal);
    clearTimeout(this.#timer);
  }

  /** Stop reading; the answer itself goes on. */
  leave(): void {
    this.#stop.abort();
    clearTimeout(this.#timer);
  }

  #reader() {
    return {
      begin: (restarted: boolean) => this.#begin(restarted),
      delta: (content: string, reasoning: string) => this.#delta(content, reasoning),
      state: (state: State) => (this.state = state),
      error: (error: ErrorInfo) => (this.#error = error),
      ended: (ended: Ended) => this.#end(ended),
      lost: (lost: boolean) => (this.lost = lost),
      gone: () => this.gone(),
    };
  }

  #begin(restarted: boolean): void {
    this.restarted = this.restarted || (restarted && this.#content + this.#reasoning !== "");
    this.#content = "";
    this.#reasoning = "";
    this.#thinkingSince = null;
    this.reasoningS = null;
    this.#flush();
  }

  #delta(content: string, reasoning: string): void {
    if (reasoning && this.#thinkingSince === null) this.#thinkingSince = this.now();
    if (content && this.#thinkingSince !== null && this.reasoningS === null) {
      this.reasoningS = this.now() - this.#thinkingSince;
    }
    this.#content += content;
    this.#reasoning += reasoning;
    const step = Math.max(STEP_MS, (this.#content.length + this.#reasoning.length) / LETTERS_A_MS);
    this.#timer ??= setTimeout(() => this.#flush(), step);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.content = this.#content;
    this.reasoning = this.#reasoning;
  }

  #end(ended: Ended): void {
    this.#flush();
    const error = ended.error ?? this.#error ?? (ended.state === "cancelled" ? cancelled() : null);
    this.ended({
      ...this.message,
      content: this.#content,
      reasoning: this.#reasoning,
      reasoning_s: this.reasoningS ?? (this.#thinkingSince === null ? null : this.now() - this.#thinkingSince),
      state: "ended",
      receipt: ended.receipt,
      error: ended.state === "done" ? null : error,
    });
  }
}

function cancelled(): ErrorInfo {
  return { code: "cancelled", message: t.chat.stopped, hint: "", status: 499, retry_after_s: null };
}
