/** The open conversation: its messages, the path shown, running answers, and what the user does with them. */

import { SvelteMap } from "svelte/reactivity";
import { ApiError, told } from "../lib/api";
import { choices, firstChoice } from "../lib/models";
import { t } from "../lib/strings";
import { pathTo, turned, withMessage, type Step } from "../lib/tree";
import type { Answering, Chat, ChatInfo, ChatOptions, ErrorInfo, Message, NewMessage } from "../wire.gen";
import { Live } from "./live.svelte";
import { chatPath, router } from "./router.svelte";
import { session } from "./session.svelte";
import { toasts } from "./toasts.svelte";

const NO_OPTIONS: ChatOptions = { system: "", temperature: null, max_tokens: null };
const LAST_MODEL = "quorum.model";

class OpenChat {
  id: string | null = $state(null);
  messages: Message[] = $state.raw([]);
  options: ChatOptions = $state.raw(NO_OPTIONS);
  loading = $state(false);
  /** Why the conversation can't be shown. */
  problem: ErrorInfo | null = $state.raw(null);
  /** Why the last message was not taken. */
  failure: ErrorInfo | null = $state.raw(null);
  /** Asks again what was refused; null when its text is back with the writer, who sends it again. */
  retry: (() => void) | null = $state.raw(null);
  sending = $state(false);
  /** Answers being made, by message id. */
  lives = new SvelteMap<string, Live>();

  #anchor: string | null = $state(null);
  #picked = $state(remembered());
  #turn = 0;

  path: Step[] = $derived(pathTo(this.messages, this.#anchor));
  info: ChatInfo | null = $derived(session.chats.find((chat) => chat.id === this.id) ?? null);
  /** The running answer of the path shown. */
  running: Live | null = $derived(this.#runningOnPath());
  /** The model the next answer is asked of. */
  model: string = $derived(this.#model());

  constructor() {
    session.onMessage((message) => this.#pushed(message));
    session.onResume(() => void this.refresh());
  }

  /** Shows conversation `id`, or an empty page for a new one. */
  async open(id: string | null): Promise<void> {
    if (id === this.id && (id !== null || this.messages.length === 0)) return;
    this.#leave();
    this.id = id;
    this.messages = [];
    this.options = NO_OPTIONS;
    this.#anchor = null;
    this.problem = null;
    this.failure = null;
    if (id !== null) await this.#load(id);
  }

  /** Reads the messages again: the connection was away, or an answer's job is gone. */
  async refresh(): Promise<void> {
    if (this.id !== null) await this.#load(this.id);
  }

  /** Sends what the user wrote below `parent` (the end of the path when undefined). False when it was not taken. */
  async send(content: string, images: string[], parent?: string | null): Promise<boolean> {
    const parentId = parent === undefined ? (this.path.at(-1)?.message.id ?? null) : parent;
    const again = parent === undefined ? null : () => void this.send(content, images, parent);
    return this.#ask(again, async () => {
      const id = this.id ?? (await this.#create());
      const body: NewMessage = { content, model: this.model, parent_id: parentId, images };
      return session.api.post<Answering>(`/chats/${id}/messages`, body);
    });
  }

  /** A new answer beside `message`. */
  async regenerate(message: Message): Promise<boolean> {
    const body = { message_id: message.id, model: this.model || message.model };
    const again = (): void => void this.regenerate(message);
    return this.#ask(again, () => session.api.post<Answering>(`/chats/${message.chat_id}/regenerate`, body));
  }

  async stop(): Promise<void> {
    const live = this.running;
    if (live) await session.attempt(() => session.api.remove(`/jobs/${live.jobId}`));
  }

  turn(step: Step, by: number): void {
    this.#anchor = turned(step, by);
  }

  async pick(model: string): Promise<void> {
    this.#picked = model;
    remember(model);
    if (this.id !== null && this.info?.model !== model) await this.#patch({ model });
  }

  async setOptions(options: ChatOptions): Promise<void> {
    const before = this.options;
    this.options = options;
    if (this.id !== null && !(await this.#patch({ options }))) this.options = before;
  }

  async #ask(again: (() => void) | null, call: () => Promise<Answering>): Promise<boolean> {
    if (this.sending) return false;
    this.sending = true;
    this.failure = null;
    this.retry = again;
    try {
      this.#answering(await call());
      return true;
    } catch (error) {
      this.failure = told(error);
      return false;
    } finally {
      this.sending = false;
    }
  }

  #answering({ message, answer }: Answering): void {
    if (answer.chat_id !== this.id) return;
    if (message) this.messages = withMessage(this.messages, message);
    // The answer may have ended, and been pushed, before this reply was read.
    if (!this.messages.some((known) => known.id === answer.id)) this.messages = withMessage(this.messages, answer);
    this.#anchor = answer.id;
    this.#follow();
  }

  async #create(): Promise<string> {
    const info = await session.api.post<ChatInfo>("/chats", { model: this.model });
    session.apply({ chats: [info] });
    this.id = info.id;
    if (this.options !== NO_OPTIONS) await session.api.patch(`/chats/${info.id}`, { options: this.options });
    router.replace(chatPath(info.id));
    return info.id;
  }

  async #patch(body: object): Promise<boolean> {
    const info = await session.attempt(() => session.api.patch<ChatInfo>(`/chats/${this.id}`, body));
    if (info) session.apply({ chats: [info] });
    return info !== null;
  }

  async #load(id: string): Promise<void> {
    const turn = ++this.#turn;
    this.loading = this.messages.length === 0;
    try {
      const chat = await session.api.get<Chat>(`/chats/${id}`);
      if (turn !== this.#turn || id !== this.id) return;
      this.messages = chat.messages;
      this.options = chat.options;
      this.problem = null;
      this.#follow();
    } catch (error) {
      if (turn !== this.#turn || id !== this.id) return;
      if (!(error instanceof ApiError) || error.info.status !== 0 || this.messages.length === 0) {
        this.problem = told(error);
      }
    } finally {
      if (turn === this.#turn) this.loading = false;
    }
  }

  /** Reads every running answer that is not read yet, and leaves those that have ended. */
  #follow(): void {
    const running = this.messages.filter((message) => message.state === "running" && message.job_id !== null);
    const ids = new Set(running.map((message) => message.id));
    for (const [id, live] of this.lives) {
      if (ids.has(id)) continue;
      live.leave();
      this.lives.delete(id);
    }
    for (const message of running) {
      if (this.lives.has(message.id)) continue;
      const live = new Live(message, (ended) => this.#ended(ended), () => this.#gone(message));
      this.lives.set(message.id, live);
      void live.follow(session.api);
    }
  }

  #ended(message: Message): void {
    this.#replace(message);
    if (message.error === null) toasts.speak(t.chat.finished);
  }

  /** The node no longer knows the job: its message says how it ended, if anything does. */
  #gone(message: Message): void {
    this.lives.delete(message.id);
    void (async () => {
      const chat = await session.api.get<Chat>(`/chats/${message.chat_id}`).catch(() => null);
      const found = chat?.messages.find((known) => known.id === message.id);
      const error = { code: "interrupted", message: t.errors.noAnswer, hint: "", status: 404, retry_after_s: null };
      this.#replace(found?.state === "ended" ? found : { ...(found ?? message), state: "ended", error });
    })();
  }

  #pushed(message: Message): void {
    if (message.chat_id !== this.id) return;
    if (message.state === "running") {
      // Answers begun elsewhere, e.g. in a second window; the text of ours comes faster through its own stream.
      if (!this.messages.some((known) => known.id === message.id)) {
        this.messages = withMessage(this.messages, message);
        this.#follow();
      }
      return;
    }
    this.#replace(message);
  }

  #replace(message: Message): void {
    if (message.chat_id !== this.id) return;
    this.messages = withMessage(this.messages, message);
    this.#follow();
  }

  #leave(): void {
    this.#turn++;
    for (const live of this.lives.values()) live.leave();
    this.lives.clear();
    this.loading = false;
  }

  #runningOnPath(): Live | null {
    const last = this.path.at(-1)?.message;
    return last ? (this.lives.get(last.id) ?? null) : null;
  }

  #model(): string {
    const offered = choices(session.models, session.engines);
    const wanted = this.info?.model || this.#picked;
    if (this.id !== null && wanted) return wanted;
    return firstChoice(offered, wanted);
  }
}

function remembered(): string {
  try {
    return localStorage.getItem(LAST_MODEL) ?? "";
  } catch {
    return "";
  }
}

function remember(model: string): void {
  try {
    localStorage.setItem(LAST_MODEL, model);
  } catch {
    // The next new chat then begins with any loaded model.
  }
}

export const chat = new OpenChat();
