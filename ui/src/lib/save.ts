/** Saves text as a file. */

/** The window reads the text only after its user has picked a place. */
const KEPT_MS = 600_000;

/** Offers `text` as a download; the window asks where to put it. */
export function saveFile(name: string, text: string, type: string): void {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), KEPT_MS);
}
