/** Numbers and times as people read them. */

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];

/** 4_700_000_000 as `4.7 GB`; powers of 1000, as disks and model pages count. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 && unit > 1 ? value.toFixed(1) : Math.round(value)} ${BYTE_UNITS[unit]}`;
}

/** Seconds as `80 ms`, `1.4 s`, `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d`. */
export function duration(seconds: number): string {
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return pair(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86_400) return pair(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return pair(Math.floor(whole / 86_400), "d", Math.floor((whole % 86_400) / 3600), "h");
}

/** The same in whole seconds, for what is estimated or still runs: `0 s`, `42 s`, `3 min 5 s`. */
export function rough(seconds: number): string {
  return seconds < 59.5 ? `${Math.max(0, Math.round(seconds))} s` : duration(seconds);
}

/** How long ago something was, in steps that don't tick: `42 s`, `3 min`, `2 h`, `3 d`. */
export function ago(seconds: number): string {
  const step = seconds < 60 ? 1 : seconds < 3600 ? 60 : seconds < 86_400 ? 3600 : 86_400;
  return rough(Math.max(0, Math.floor(seconds / step) * step));
}

/** Short times: `0.4 ms`, `38 ms`, `1.2 s`. */
export function milliseconds(seconds: number): string {
  return seconds < 0.01 ? `${(seconds * 1000).toFixed(1)} ms` : duration(seconds);
}

function pair(large: number, unit: string, small: number, smallUnit: string): string {
  return small > 0 ? `${large} ${unit} ${small} ${smallUnit}` : `${large} ${unit}`;
}

/** Tokens a second: `125 tokens/s`, `8.4 tokens/s`. */
export function rate(perSecond: number): string {
  return `${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond)} tokens/s`;
}

export function whole(count: number): string {
  return count.toLocaleString("en");
}

/** 1st, 2nd, 3rd, 11th, 21st. */
export function ordinal(count: number): string {
  const teen = count % 100 >= 11 && count % 100 <= 13;
  const ending = teen ? "th" : (["th", "st", "nd", "rd"][count % 10] ?? "th");
  return `${count}${ending}`;
}

/** Unix seconds as local time of day. */
export function clock(at: number): string {
  return new Date(at * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

export function dateTime(at: number): string {
  return new Date(at * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

export type Age = "today" | "yesterday" | "week" | "older";

/** In which part of the conversation list a time belongs. */
export function age(at: number, now: Date): Age {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime() / 1000;
  if (at >= midnight) return "today";
  if (at >= midnight - 86_400) return "yesterday";
  return at >= midnight - 6 * 86_400 ? "week" : "older";
}

/** Where a computer is, as people type it: `10.0.0.2`, `10.0.0.2:7413`, `[fd00::2]:7413`; empty when unknown. */
export function address(peer: { addresses: string[]; port: number }): string {
  const host = peer.addresses[0];
  if (!host) return "";
  return host.includes(":") ? `[${host}]:${peer.port}` : `${host}:${peer.port}`;
}

/** What programs that speak OpenAI's dialect are given as base address. */
export function openaiAddress(node: { address: string }): string {
  return `${node.address.replace(/\/(?:v1)?$/, "")}/v1`;
}

/** A long digest or id, shortened in the middle of nowhere special: its beginning is what people compare. */
export function shortened(text: string, length = 12): string {
  const bare = text.replace(/^sha256:/, "");
  return bare.length > length ? `${bare.slice(0, length)}…` : bare;
}
