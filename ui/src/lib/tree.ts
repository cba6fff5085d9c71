/** A conversation is a tree by `parent_id`; the page shows one path through it. Pure. */

import type { Message } from "../wire.gen";

/** One message of the path, with the other versions of it. */
export interface Step {
  message: Message;
  /** All messages with the same parent, oldest first; this one is at `index`. */
  versions: Message[];
  index: number;
}

const ROOT = "";

function childrenOf(messages: readonly Message[]): Map<string, Message[]> {
  const known = new Set(messages.map((message) => message.id));
  const children = new Map<string, Message[]>();
  for (const message of messages) {
    const parent = message.parent_id !== null && known.has(message.parent_id) ? message.parent_id : ROOT;
    children.set(parent, [...(children.get(parent) ?? []), message]);
  }
  return children;
}

/** The newest message at or below `from` (anywhere when null): messages come oldest first. Null in an empty tree. */
export function newestLeaf(messages: readonly Message[], from: string | null = null): string | null {
  if (from === null) return messages.at(-1)?.id ?? null;
  const below = new Set([from]);
  let newest = from;
  for (const message of messages) {
    if (message.parent_id === null || !below.has(message.parent_id)) continue;
    below.add(message.id);
    newest = message.id;
  }
  return newest;
}

/** The path through `anchor` to the newest leaf below it; to the newest of all when `anchor` is null or unknown. */
export function pathTo(messages: readonly Message[], anchor: string | null): Step[] {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const children = childrenOf(messages);
  const end = newestLeaf(messages, anchor !== null && byId.has(anchor) ? anchor : null);
  const steps: Step[] = [];
  const seen = new Set<string>();
  let at = end === null ? undefined : byId.get(end);
  while (at && !seen.has(at.id)) {
    seen.add(at.id);
    const parent = at.parent_id !== null && byId.has(at.parent_id) ? at.parent_id : ROOT;
    const versions = children.get(parent) ?? [at];
    steps.unshift({ message: at, versions, index: versions.indexOf(at) });
    at = parent === ROOT ? undefined : byId.get(parent);
  }
  return steps;
}

/** The message to go through after the user steps by `by` versions at `step`. */
export function turned(step: Step, by: number): string {
  return (step.versions[step.index + by] ?? step.message).id;
}

/** `messages` with `changed` in place of the message of its id, or added at the end. */
export function withMessage(messages: readonly Message[], changed: Message): Message[] {
  const known = messages.some((message) => message.id === changed.id);
  return known
    ? messages.map((message) => (message.id === changed.id ? changed : message))
    : [...messages, changed];
}
