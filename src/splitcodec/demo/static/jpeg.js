/** The JPEG beside the packet: of the same crop, never more bytes than the packet, and as close to the crop as can be. */

import { lean } from "./lean.js";
import { canvasOf, scaleSquare, toCanvas } from "./picture.js";

const SCALES = [1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 1 / 16];
const ENOUGH = 2; // smaller sizes in a row that were further from the crop: the smaller ones will be too

/**
 * Return the JPEG of at most `budget` bytes that differs least from the crop (squared error after scaling back):
 * {blob, side, quality, shown, fullFits}, the last telling whether any JPEG of the crop's own size fits. Where none
 * fits at all, {blob: null, smallest}: the bytes of the smallest that this browser writes. Sizes are tried from the crop's own downwards, and for each the best quality that fits. `stop()` ends it with null.
 */
export async function jpegWithin(crop, budget, stop) {
  let best = null;
  let smallest = Infinity;
  let worse = 0;
  let fullFits = false;
  for (const scale of SCALES) {
    const small = scaleSquare(crop, Math.max(1, Math.round(crop.side * scale)));
    const found = await bestQuality(toCanvas(small), budget);
    if (stop()) return null;
    smallest = Math.min(smallest, found.smallest);
    if (!found.blob) continue;
    fullFits ||= small.side === crop.side;
    const shown = scaleSquare(await decoded(found.blob, small.side), crop.side);
    const error = squaredError(shown.rgb, crop.rgb);
    if (best && error >= best.error) {
      if (++worse === ENOUGH) break;
    } else {
      worse = 0;
      best = { blob: found.blob, quality: found.quality, side: small.side, shown, error };
    }
  }
  return best ? { ...best, fullFits } : { blob: null, smallest };
}

async function bestQuality(canvas, budget) {
  let blob = await write(canvas, 0);
  const smallest = blob.size;
  if (smallest > budget) return { blob: null, smallest };
  let quality = 0;
  let above = 101;
  while (above - quality > 1) {
    const middle = (quality + above) >> 1;
    const tried = await write(canvas, middle);
    if (tried.size <= budget) [blob, quality] = [tried, middle];
    else above = middle;
  }
  return { blob, quality, smallest };
}

async function write(canvas, quality) {
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", quality / 100));
  if (blob?.type !== "image/jpeg") throw new Error("This browser writes no JPEG to compare with.");
  return new Blob([lean(new Uint8Array(await blob.arrayBuffer()))], { type: blob.type });
}

async function decoded(blob, side) {
  const bitmap = await createImageBitmap(blob);
  const context = canvasOf(side, side).getContext("2d", { willReadFrequently: true, alpha: false });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, side, side);
  const rgb = new Uint8Array(side * side * 3);
  for (let n = 0; n < side * side; n++) for (let i = 0; i < 3; i++) rgb[3 * n + i] = data[4 * n + i];
  return { side, rgb };
}

function squaredError(one, other) {
  let sum = 0;
  for (let n = 0; n < one.length; n++) sum += (one[n] - other[n]) ** 2;
  return sum;
}
