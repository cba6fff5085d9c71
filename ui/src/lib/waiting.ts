/** What a waiting user is told: from the state events of a job. Pure. */

import { ordinal, rough } from "./format";
import { t } from "./strings";
import type { State } from "../wire.gen";

/** One short line for `state`; `elsewhere` names a node that is another computer, and is empty for this one. */
export function waitingText(state: State | null, elsewhere: (node: string) => string): string {
  if (state === null) return t.waiting.sent;
  switch (state.state) {
    case "queued":
      return queued(state, elsewhere);
    case "loading":
      return state.loading_pct === null ? t.waiting.loading : t.waiting.loadingPct(state.loading_pct);
    case "working":
      return t.waiting.reading;
    default:
      return "";
  }
}

/** Reasons that matter more than the place in line. */
const HELD = new Set(["waits-paused", "waits-draining", "retry"]);

/** The node's word for why, as a sentence; words it learnt later show as they are. */
export function reasonText(why: string): string {
  return t.reasons[why] ?? why;
}

function queued(state: State, elsewhere: (node: string) => string): string {
  const name = state.node === null ? "" : elsewhere(state.node);
  const where = name ? t.waiting.on(name) : "";
  const place = state.place === null ? t.waiting.queued : state.place <= 1 ? t.waiting.next : placed(state.place);
  const eta = state.eta_s === null ? "" : t.waiting.eta(rough(state.eta_s));
  if (HELD.has(state.why)) return `${reasonText(state.why)}${eta}`;
  const why = state.place === null && state.why ? `: ${reasonText(state.why)}` : "";
  const again = state.attempt > 0 ? t.waiting.again(state.attempt + 1) : "";
  return `${place}${where}${why}${eta}${again}`;
}

function placed(place: number): string {
  return t.waiting.place(ordinal(place));
}
