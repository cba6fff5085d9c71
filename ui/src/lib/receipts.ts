/** A receipt in words: what was expected beside what it took, and what became of every computer. Pure. */

import { t } from "./strings";
import type { Receipt, Try, Verdict } from "../wire.gen";

/** One stretch of a job's time, in seconds; null where it is not known. */
export interface Stretch {
  name: string;
  expected: number | null;
  took: number | null;
}

/** The stretches in their order, then the whole. Other computers that were tried first count as waiting. */
export function stretches(receipt: Receipt): Stretch[] {
  const seen = receipt.predicted;
  const worked = receipt.working_s;
  const read = receipt.ttft_s;
  const lost = receipt.total_s === null || worked === null ? 0 : receipt.total_s - receipt.queued_s - receipt.loading_s - worked;
  const written = worked === null ? null : worked - (read ?? 0);
  const parts: Stretch[] = [
    { name: t.receipt.queued, expected: seen && seen.after_s + seen.wait_s, took: receipt.queued_s + Math.max(0, lost) },
    { name: t.receipt.loading, expected: seen && seen.load_s, took: receipt.loading_s },
  ];
  if (read === null) {
    parts.push({ name: t.receipt.working, expected: seen && seen.prefill_s + seen.decode_s, took: written });
  } else {
    parts.push({ name: t.receipt.reading, expected: seen && seen.prefill_s, took: read });
    parts.push({ name: t.receipt.writing, expected: seen && seen.decode_s, took: written });
  }
  const whole = seen && seen.after_s + seen.wait_s + seen.load_s + seen.prefill_s + seen.decode_s;
  return [...parts, { name: t.receipt.total, expected: whole, took: receipt.total_s }];
}

const NEUTRAL = new Set(["cold", "busy", "draining", "paused", "missing"]);

/** Colour of a verdict: the one that answered, one that could have, one in the way. */
export function tone(verdict: Verdict, served: boolean): string {
  if (served || verdict.verdict === "warm") return "good";
  return NEUTRAL.has(verdict.verdict) ? "" : "warn";
}

/** A verdict in a word or two, and as a sentence; a word learnt later shows as it is. */
export function verdictText(verdict: Verdict): [string, string] {
  const [word, sentence] = t.verdicts[verdict.verdict] ?? [verdict.verdict, ""];
  return [word, verdict.detail || sentence];
}

/** Whether this is the line of the computer and engine that answered. */
export function served(receipt: Receipt, verdict: Verdict): boolean {
  return verdict.node === receipt.node && verdict.engine === receipt.engine;
}

/** How one try ended, in words. */
export function resultText(one: Try): string {
  return t.results[one.result] ?? one.result;
}

/** Whether the tries tell more than the line of the one that answered. */
export function tellsMore(receipt: Receipt): boolean {
  return receipt.tries.length > 1 || receipt.tries.some((one) => one.result !== "ok");
}
