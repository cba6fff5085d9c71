/** Models as the picker offers them. Pure. */

import type { EngineInfo, ModelInfo } from "../wire.gen";
import { t } from "./strings";

/** One name a conversation can ask for: the holder that would be taken first stands for all of them. */
export interface Choice {
  name: string;
  model: ModelInfo;
  where: string[];
}

export interface Choices {
  loaded: Choice[];
  disk: Choice[];
  /** Names that only other computers hold. */
  elsewhere: Choice[];
}

const BY_RESIDENCY: Record<string, number> = { warm: 0, loading: 1, cold: 2 };

/** Whether a conversation with the model is possible: not one for embeddings only, not one with a problem. */
export function canChat(model: ModelInfo): boolean {
  const embedsOnly = model.capabilities.includes("embedding") && !model.capabilities.includes("chat");
  return !embedsOnly && model.problem === "";
}

/** Whether the weights that go by this name can be talked to, though no holder that calls them so is there now. */
export function goesByWeights(models: readonly ModelInfo[], name: string): boolean {
  const digests = new Set(models.filter((model) => model.name === name).map((model) => model.digest));
  return models.some((model) => model.digest !== null && digests.has(model.digest) && canChat(model));
}

export function canSee(models: readonly ModelInfo[], name: string): boolean {
  return models.some((model) => model.name === name && model.capabilities.includes("vision"));
}

/** Whether an engine is another computer, which picks the engine there by itself. */
export function isPeer(engine: string): boolean {
  return engine.startsWith("peer-");
}

export function engineLabel(engines: readonly EngineInfo[], id: string): string {
  if (isPeer(id)) return t.receipt.there;
  return engines.find((engine) => engine.id === id)?.label ?? id;
}

/** Where a model is, as the picker says it: its engine here, its computer elsewhere. */
export function place(model: ModelInfo, engines: readonly EngineInfo[]): string {
  return model.local ? engineLabel(engines, model.engine) : model.node_name;
}

/** Models to talk to, one entry a name, loaded ones first. */
export function choices(models: readonly ModelInfo[], engines: readonly EngineInfo[]): Choices {
  const byName = new Map<string, Choice>();
  const usable = models.filter(canChat).sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
  for (const model of usable) {
    const known = byName.get(model.name);
    if (known) known.where.push(place(model, engines));
    else byName.set(model.name, { name: model.name, model, where: [place(model, engines)] });
  }
  const local = new Set(usable.filter((model) => model.local).map((model) => model.name));
  const all = [...byName.values()];
  const here = all.filter((choice) => local.has(choice.name));
  return {
    loaded: here.filter((choice) => choice.model.residency !== "cold"),
    disk: here.filter((choice) => choice.model.residency === "cold"),
    elsewhere: all.filter((choice) => !local.has(choice.name)),
  };
}

function rank(model: ModelInfo): number {
  return BY_RESIDENCY[model.residency] ?? 2;
}

/** The name to begin with: the one asked for when it is there, else a loaded one, else any. */
export function firstChoice(offered: Choices, wanted: string): string {
  const all = [...offered.loaded, ...offered.disk, ...offered.elsewhere];
  return (all.find((choice) => choice.name === wanted) ?? all[0])?.name ?? "";
}
