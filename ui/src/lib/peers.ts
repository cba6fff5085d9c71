/** Other computers as the Peers page lists them. Pure. */

import { t } from "./strings";
import type { DoctorReport, ModelInfo, PeerInfo, PeerState } from "../wire.gen";

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
  const away = paired.filter((peer) => peer.state === "unhealthy" || peer.state === "offline");
  const resting = paired.filter((peer) => peer.state === "draining");
  const parts = [
    away.length === 0 ? t.peers.allReachable : one(away, t.peers.someAway),
    resting.length === 0 ? "" : one(resting, t.peers.someRest),
  ];
  return t.peers.summary(paired.length + 1, different(usable), parts.filter(Boolean).join(", "));
}

/** How many models there are: the same weights are one, whatever they are called. */
function different(models: readonly ModelInfo[]): number {
  const names = new Set<string>();
  const firstName = new Map<string, string>();
  for (const { name, digest } of models) {
    const known = digest === null ? name : (firstName.get(digest) ?? name);
    if (digest !== null) firstName.set(digest, known);
    names.add(known);
  }
  return names.size;
}

/** One by its name, several by their number. */
function one(peers: readonly PeerInfo[], several: (count: number) => string): string {
  const [first] = peers;
  return first && peers.length === 1 ? t.peers.oneIs(first.name, first.state) : several(peers.length);
}

export function stateText(state: PeerState): string {
  return t.peers.states[state];
}

/** The names that more than one of the computers has: those are told apart by their ids. */
export function named(peers: readonly { name: string }[]): Set<string> {
  const seen = new Set<string>();
  return new Set(peers.filter(({ name }) => seen.has(name) || !seen.add(name)).map(({ name }) => name));
}

/** What the doctor found, in a few words. */
export function diagnosis(report: DoctorReport): string {
  const all = [...report.here, ...report.peers];
  const wrong = all.filter((finding) => finding.level === "bad").length;
  if (wrong > 0) return t.doctor.wrong(wrong);
  return all.every((finding) => finding.level === "good") ? t.doctor.green : t.doctor.notes;
}

/** The points of a line through `values`, from 0 at the bottom to the largest at the top. */
export function line(values: readonly number[], width: number, height: number): string {
  const top = Math.max(...values, Number.MIN_VALUE);
  const step = width / Math.max(1, values.length - 1);
  return values.map((value, at) => `${(at * step).toFixed(1)},${(height - 1 - (value / top) * (height - 2)).toFixed(1)}`).join(" ");
}

/** How much of a memory is taken, from 0 to 1; null where its size isn't known. */
export function taken(total: number, free: number): number | null {
  return total > 0 ? Math.min(1, Math.max(0, (total - free) / total)) : null;
}
