/** Pictures for models that can see: read, checked, scaled down, as `data:` addresses. */

import { t } from "./strings";

const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif"];
export const ACCEPT = KINDS.join(",");
export const MOST_IMAGES = 8;
const MOST_BYTES = 25_000_000;
/** Longest side in pixels: what vision models look at at most. */
const MOST_SIDE = 1568;
/** Letters of a `data:` address up to which a picture stays free of loss; eight of them fit in one request. */
const MOST_EXACT = 3_000_000;

/** A picture as a `data:` address. Throws an Error whose message is for the user. */
export async function readImage(file: File): Promise<string> {
  if (!KINDS.includes(file.type)) throw new Error(t.images.kind(file.name));
  if (file.size > MOST_BYTES) throw new Error(t.images.tooLarge(file.name));
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(t.images.unreadable(file.name));
  }
  const scale = Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const exact = file.type === "image/jpeg" ? "" : canvas.toDataURL("image/png");
  if (exact !== "" && exact.length <= MOST_EXACT) return exact;
  // JPEG knows no transparency: what shines through becomes white, not black.
  if (context) {
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  return canvas.toDataURL("image/jpeg", 0.9);
}

export function imageFiles(list: DataTransfer | null): File[] {
  return [...(list?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}
