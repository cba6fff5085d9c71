/** What the Settings page does with values: from the text of a field to JSON, and back. Pure. */

import { bytes, duration } from "./format";
import { t } from "./strings";
import type { NodeInfo, SettingInfo } from "../wire.gen";

export type Value = boolean | number | string;

export interface Group {
  name: string;
  settings: SettingInfo[];
}

/** Groups in the order in which the server first names them. */
export function grouped(settings: readonly SettingInfo[]): Group[] {
  const groups = new Map<string, SettingInfo[]>();
  for (const setting of settings) groups.set(setting.group, [...(groups.get(setting.group) ?? []), setting]);
  return [...groups].map(([name, members]) => ({ name, settings: members }));
}

/** What a field shows for a value of the server. */
export function shown(value: unknown): string {
  return typeof value === "number" ? String(value) : typeof value === "string" ? value : value === true ? "on" : "";
}

/** The value to send for the text of a field, or a sentence why it can't be sent. */
export function parsed(setting: SettingInfo, text: string): { value: Value } | { problem: string } {
  if (setting.type !== "integer" && setting.type !== "number") return { value: text };
  const plain = text.trim().replace(/[\s_]/g, "");
  if (!/^[+-]?\d+(?:\.\d+)?$/.test(plain)) {
    return { problem: setting.type === "integer" ? t.settings.wholeNumber : t.settings.number };
  }
  const value = Number(plain);
  if (setting.type === "integer" && !Number.isInteger(value)) return { problem: t.settings.wholeNumber };
  return { value };
}

export function isFixed(setting: SettingInfo): boolean {
  return setting.source === "environment";
}

export function isDefault(setting: SettingInfo): boolean {
  return setting.value === setting.default;
}

export function choiceText(choice: string): string {
  return t.settings.choices[choice] ?? choice;
}

/** The default in words, for the line under a field. */
export function defaultText(setting: SettingInfo): string {
  if (setting.type === "switch") return setting.default ? t.settings.on : t.settings.off;
  if (setting.default === "") return t.settings.empty;
  if (setting.type === "choice") return choiceText(shown(setting.default));
  return setting.unit ? `${shown(setting.default)} ${setting.unit}` : shown(setting.default);
}

/** A large number of seconds or MiB as people say it; empty where the field itself is clear. */
export function inWords({ unit, value }: SettingInfo): string {
  if (typeof value !== "number") return "";
  if (unit === "s" && value >= 120) return duration(value);
  return unit === "MiB" && value >= 1024 ? bytes(value * 2 ** 20) : "";
}

/** What an empty field stands for, or how a filled one looks. */
export function example(setting: SettingInfo, node: NodeInfo | null): string {
  if (setting.name === "name") return node?.name ?? "";
  if (setting.name === "models_dir") return node ? `${node.data_dir}/models` : "";
  return t.settings.examples[setting.name] ?? "";
}
