/** What a pushed change does to what the page shows. Pure. */

import type { Change, ChatInfo, JobInfo, Snapshot } from "../wire.gen";

/** Jobs the page keeps: the last that ended, and those next in line; the node tells of others as they come near. */
export const ENDED_KEPT = 50;
export const WAITING_KEPT = 500;

const LIVE: ReadonlySet<string> = new Set(["queued", "loading", "working"]);

export function isLive(job: JobInfo): boolean {
  return LIVE.has(job.state);
}

/** `snapshot` with `change` in it: jobs and chats merge by id, whole lists are replaced, `gone` ids are dropped. */
export function merged(snapshot: Snapshot, change: Change): Snapshot {
  const gone = new Set(change.gone ?? []);
  return {
    node: change.node ?? snapshot.node,
    engines: change.engines ?? snapshot.engines,
    models: change.models ?? snapshot.models,
    settings: change.settings ?? snapshot.settings,
    peers: change.peers ?? snapshot.peers,
    pairing: change.pairing ?? snapshot.pairing,
    jobs: change.jobs || gone.size > 0 ? ordered(byId(snapshot.jobs, change.jobs ?? [], gone)) : snapshot.jobs,
    chats:
      change.chats || gone.size > 0 ? newestFirst(byId(snapshot.chats, change.chats ?? [], gone)) : snapshot.chats,
  };
}

function byId<T extends { id: string }>(old: T[], changed: T[], gone: ReadonlySet<string>): T[] {
  const all = new Map(old.map((item) => [item.id, item]));
  for (const item of changed) all.set(item.id, item);
  for (const id of gone) all.delete(id);
  return [...all.values()];
}

/** Running first, then waiting by place, then the last ended ones, newest first. */
export function ordered(jobs: JobInfo[]): JobInfo[] {
  const running = jobs.filter((job) => job.state === "loading" || job.state === "working");
  const waiting = jobs.filter((job) => job.state === "queued");
  const ended = jobs.filter((job) => !isLive(job));
  running.sort((a, b) => (a.started_at ?? a.created_at) - (b.started_at ?? b.created_at));
  waiting.sort((a, b) => (a.place ?? Infinity) - (b.place ?? Infinity) || a.created_at - b.created_at);
  ended.sort((a, b) => (b.completed_at ?? b.created_at) - (a.completed_at ?? a.created_at));
  return [...running, ...waiting.slice(0, WAITING_KEPT), ...ended.slice(0, ENDED_KEPT)];
}

export function newestFirst(chats: ChatInfo[]): ChatInfo[] {
  return chats.sort((a, b) => b.updated_at - a.updated_at);
}
