/** Saves what was made as a file. */

/** The window reads the content only after its user has picked a place. */
const KEPT_MS = 600_000;

/** Offers `content` as a download; the window asks where to put it. */
export function saveFile(name: string, content: Blob): void {
  const address = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), KEPT_MS);
}
