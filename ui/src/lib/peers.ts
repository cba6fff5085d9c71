/** Other computers as the Peers page lists them. Pure. */

import { t } from "./strings";
import type { ModelInfo, PeerInfo, PeerState } from "../wire.gen";

export const TONES: Record<PeerState, string> = {
  discovered: "",
  pending: "busy",
  healthy: "good",
  unhealthy: "bad",
  draining: "warn",
  offline: "",
};

export interface Groups {
  paired: PeerInfo[];
  seen: PeerInfo[];
  ignored: PeerInfo[];
}

/** Paired ones, those that could be, and those the user wants to hear nothing of; each by name. */
export function grouped(peers: readonly PeerInfo[]): Groups {
  const sorted = [...peers].sort((a, b) => a.name.localeCompare(b.name) || a.id.localeCompare(b.id));
  return {
    paired: sorted.filter((peer) => peer.paired && !peer.ignored),
    seen: sorted.filter((peer) => !peer.paired && !peer.ignored),
    ignored: sorted.filter((peer) => peer.ignored),
  };
}

/** The one sentence before everything else. */
export function sentence(paired: readonly PeerInfo[], models: readonly ModelInfo[]): string {
  if (paired.length === 0) return t.peers.alone;
  const usable = models.filter((model) => model.capabilities.length > 0);
  const names = new Set(usable.map((model) => model.name)).size;
  const away = paired.filter((peer) => peer.state !== "healthy");
  const first = away[0];
  const reach =
    first === undefined
      ? t.peers.allReachable
      : away.length === 1
        ? t.peers.oneIs(first.name, stateText(first.state).toLowerCase())
        : t.peers.someAway(away.length);
  return t.peers.summary(paired.length + 1, names, reach);
}

export function stateText(state: PeerState): string {
  return t.peers.states[state];
}

/** How much of a memory is taken, from 0 to 1; null where its size isn't known. */
export function taken(total: number, free: number): number | null {
  return total > 0 ? Math.min(1, Math.max(0, (total - free) / total)) : null;
}
