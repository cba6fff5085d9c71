/** Saves text as a file: through the window where it offers that, as a download elsewhere. */

import type { Desktop } from "./desktop";

/** False when the user thought better of it. */
export async function saveFile(desktop: Desktop | null, name: string, text: string, type: string): Promise<boolean> {
  if (desktop?.save_file) return desktop.save_file(name, text);
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  return true;
}
