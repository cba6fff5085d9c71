/** What the page knows of its node: signs in, reads the one event stream, holds the snapshot. */

import { Api, told } from "../lib/api";
import type { Desktop } from "../lib/desktop";
import { Feed, type FeedStatus } from "../lib/feed";
import { merged, newestFirst, ordered } from "../lib/merge";
import { signIn } from "../lib/signin";
import type { Change, ErrorInfo, JobInfo, Message, NodeInfo, Snapshot } from "../wire.gen";
import { applyTheme } from "./theme.svelte";
import { toasts } from "./toasts.svelte";

type Listener<T> = (value: T) => void;

class Session {
  api = new Api();
  desktop: Desktop | null = $state.raw(null);
  status: FeedStatus = $state("connecting");
  /** Why the key of the address was refused. */
  refused: ErrorInfo | null = $state.raw(null);
  snapshot: Snapshot | null = $state.raw(null);

  #feed: Feed | null = null;
  #renewed = false;
  #heard = new WeakMap<JobInfo, number>();
  #messages = new Set<Listener<Message>>();
  #resumes = new Set<Listener<void>>();

  get node(): NodeInfo | null {
    return this.snapshot?.node ?? null;
  }
  get engines() {
    return this.snapshot?.engines ?? [];
  }
  get models() {
    return this.snapshot?.models ?? [];
  }
  get jobs() {
    return this.snapshot?.jobs ?? [];
  }
  get chats() {
    return this.snapshot?.chats ?? [];
  }
  get settings() {
    return this.snapshot?.settings ?? [];
  }

  get peers() {
    return this.snapshot?.peers ?? [];
  }
  get pairing() {
    return this.snapshot?.pairing ?? null;
  }

  async start(): Promise<void> {
    this.#feed?.stop();
    this.status = "connecting";
    const access = await signIn(window);
    this.api = access.api;
    this.desktop = access.desktop;
    this.refused = access.refused;
    const feed = new Feed((signal) => this.api.stream("/events", signal), {
      snapshot: (snapshot) => this.#take(snapshot),
      change: (change) => this.#change(change),
      status: (status) => (this.status = status),
    });
    this.#feed = feed;
    await feed.run();
    // The node has started anew in the window's own process: its new token is there to be asked for.
    const denied = (this.status as FeedStatus) === "denied";
    if (denied && access.desktop && !this.#renewed) {
      this.#renewed = true;
      await this.start();
    }
  }

  /** After sleep, or when the network is back: don't sit out the waiting time. */
  hurry(): void {
    this.#feed?.hurry();
  }

  /** Calls `listener` with each new or changed message; returns the function that ends it. */
  onMessage(listener: Listener<Message>): () => void {
    this.#messages.add(listener);
    return () => this.#messages.delete(listener);
  }

  /** Calls `listener` when a later snapshot came: changes in between may have been missed. */
  onResume(listener: Listener<void>): () => void {
    this.#resumes.add(listener);
    return () => this.#resumes.delete(listener);
  }

  /** What a write route answered, without waiting for the event that says the same. */
  apply(change: Change): void {
    if (this.snapshot) this.#change(change);
  }

  /** Runs `call`; a refusal is shown. Null when it failed. */
  async attempt<T>(call: () => Promise<T>): Promise<T | null> {
    try {
      return await call();
    } catch (error) {
      const info = told(error);
      toasts.say(info.hint ? `${info.message} ${info.hint}` : info.message, "bad");
      return null;
    }
  }

  /** Take work again. */
  async resume(): Promise<void> {
    const node = await this.attempt(() => this.api.post<NodeInfo>("/resume"));
    if (node) this.apply({ node });
  }

  /** When `job` came, in Unix seconds: its `eta_s` counts from then. */
  heardAt(job: JobInfo): number {
    return this.#heard.get(job) ?? now();
  }

  #hear(jobs: JobInfo[]): void {
    for (const job of jobs) this.#heard.set(job, now());
  }

  /** The name of a node that an answer calls by id or by name. */
  nodeName(node: string | null): string {
    if (node !== null && node === this.node?.id) return this.node.name;
    return this.peers.find((peer) => peer.id === node)?.name ?? node ?? "";
  }

  #take(snapshot: Snapshot): void {
    const first = this.snapshot === null;
    if (!first && this.node?.version !== snapshot.node.version) {
      location.reload(); // this page came with another version of Quorum
      return;
    }
    this.refused = null;
    this.#renewed = false;
    this.#hear(snapshot.jobs);
    this.snapshot = { ...snapshot, jobs: ordered(snapshot.jobs), chats: newestFirst([...snapshot.chats]) };
    this.#paint();
    if (!first) this.#resumes.forEach((listener) => listener());
  }

  #change(change: Change): void {
    if (!this.snapshot) return;
    this.#hear(change.jobs ?? []);
    this.snapshot = merged(this.snapshot, change);
    if (change.settings) this.#paint();
    if (change.notice) toasts.say(change.notice);
    const message = change.message;
    if (message) this.#messages.forEach((listener) => listener(message));
  }

  #paint(): void {
    const theme = this.settings.find((setting) => setting.name === "theme");
    if (theme) applyTheme(theme.value);
  }
}

function now(): number {
  return Date.now() / 1000;
}

export const session = new Session();
