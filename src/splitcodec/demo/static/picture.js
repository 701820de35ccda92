/**
 * Stage 1 of 7 in a browser: a picture file -> the square that the encoder sees, as device/placed.py cuts it.
 *
 * The browser decodes and turns upright; the resizing is Pillow's bicubic filter with antialiasing in its fixed-point
 * arithmetic, so equal pixels give an equal crop. What may differ is the decoding: browsers do transparency in their own
 * rounding.
 */

const PRECISION_BITS = 22; // Pillow's: 32 - 8 - 2
const LONGEST_RESIZED = 16384;

/** A refusal that names what came and what to do. */
export class PictureError extends Error {}

/** Return {width, height, rgba} of a picture file, upright, on white. Throws PictureError. */
export async function openPicture(blob, maxPixels) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new PictureError("This file is not a picture that your browser can open. Choose a JPEG, PNG or WebP.");
  }
  const { width, height } = bitmap;
  try {
    if (width * height > maxPixels) {
      throw new PictureError(
        `This picture has ${mega(width * height)} megapixels; at most ${mega(maxPixels)} are taken. Shrink it first.`,
      );
    }
    const canvas = canvasOf(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    return { width, height, rgba: context.getImageData(0, 0, width, height).data };
  } finally {
    bitmap.close();
  }
}

function mega(pixels) {
  return (pixels / 1e6).toFixed(1);
}

/** Resize the short side to `resize` and cut `crop` x `crop` from the centre: {side, rgb: Uint8Array (crop, crop, 3)}. */
export function cropPicture({ width, height, rgba }, { resize, crop }) {
  const short = Math.min(width, height);
  const long = Math.floor((resize * Math.max(width, height)) / short);
  if (long > LONGEST_RESIZED) {
    throw new PictureError(`A picture of ${width} x ${height} is too narrow. Cut it to a less extreme shape first.`);
  }
  const [wide, tall] = width <= height ? [resize, long] : [long, resize];
  const left = roundHalfEven((wide - crop) / 2);
  const top = roundHalfEven((tall - crop) / 2);
  return { side: crop, rgb: resample({ width, height, data: rgba, step: 4 }, { wide, tall, left, top, crop }) };
}

/** Scale a square of RGB bytes to another side, with the same filter. */
export function scaleSquare({ side, rgb }, to) {
  if (side === to) return { side, rgb };
  const whole = { wide: to, tall: to, left: 0, top: 0, crop: to };
  return { side: to, rgb: resample({ width: side, height: side, data: rgb, step: 3 }, whole) };
}

function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

function resample({ width, height, data, step }, { wide, tall, left, top, crop }) {
  const across = taps(width, wide, left, crop);
  const down = taps(height, tall, top, crop);
  const firstRow = down.start[0];
  const rows = down.start[crop - 1] + down.count[crop - 1] - firstRow;
  const half = 1 << (PRECISION_BITS - 1);
  const narrow = new Uint8ClampedArray(rows * crop * 3);
  for (let y = 0; y < rows; y++) {
    const line = (firstRow + y) * width;
    for (let x = 0; x < crop; x++) {
      const base = x * across.size;
      let at = (line + across.start[x]) * step;
      let red = half;
      let green = half;
      let blue = half;
      for (let i = 0; i < across.count[x]; i++, at += step) {
        const weight = across.weights[base + i];
        red += weight * data[at];
        green += weight * data[at + 1];
        blue += weight * data[at + 2];
      }
      const to = (y * crop + x) * 3;
      narrow[to] = red >> PRECISION_BITS;
      narrow[to + 1] = green >> PRECISION_BITS;
      narrow[to + 2] = blue >> PRECISION_BITS;
    }
  }
  const rgb = new Uint8ClampedArray(crop * crop * 3);
  const stride = crop * 3;
  for (let y = 0; y < crop; y++) {
    const base = y * down.size;
    const start = (down.start[y] - firstRow) * stride;
    for (let x = 0; x < stride; x++) {
      let sum = half;
      for (let i = 0, at = start + x; i < down.count[y]; i++, at += stride) sum += down.weights[base + i] * narrow[at];
      rgb[y * stride + x] = sum >> PRECISION_BITS;
    }
  }
  return new Uint8Array(rgb.buffer);
}

/** The weights of `count` outputs from `first` on, when `from` samples become `to`: Pillow's precompute_coeffs. */
function taps(from, to, first, count) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = 2 * stretch;
  const size = Math.ceil(support) * 2 + 1;
  const out = { size, start: new Int32Array(count), count: new Int32Array(count), weights: new Int32Array(count * size) };
  const exact = new Float64Array(size);
  for (let n = 0; n < count; n++) {
    const centre = (first + n + 0.5) * scale;
    const start = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), from);
    let sum = 0;
    for (let i = 0; i < end - start; i++) sum += exact[i] = cubic((i + start - centre + 0.5) * (1 / stretch));
    for (let i = 0; i < end - start; i++) {
      const weight = (sum === 0 ? exact[i] : exact[i] / sum) * (1 << PRECISION_BITS);
      out.weights[n * size + i] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    out.start[n] = start;
    out.count[n] = end - start;
  }
  return out;
}

function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/** Return a canvas that is in no document. */
export function canvasOf(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/** Return a canvas that shows a square of RGB bytes. */
export function toCanvas({ side, rgb }) {
  const canvas = canvasOf(side, side);
  const image = new ImageData(side, side);
  for (let n = 0; n < side * side; n++) {
    image.data[4 * n] = rgb[3 * n];
    image.data[4 * n + 1] = rgb[3 * n + 1];
    image.data[4 * n + 2] = rgb[3 * n + 2];
    image.data[4 * n + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
