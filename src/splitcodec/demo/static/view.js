/** What the page shows: numbers, answers, stage times, pictures, and boxes and masks where an answer has them. */

import { toCanvas } from "./picture.js";

const SHORES = { preprocess: "device", encoder: "device", coding: "device", link: "link" };
const number = new Intl.NumberFormat("en");

/** Boxes of a lower score are not drawn, as by `ask --draw`, and not asked for. */
export const SURE = 0.5;
const HUES = [350, 205, 40, 140, 275, 20, 180, 60, 320, 100];

/** Return the element with that id. */
export const $ = (id) => document.getElementById(id);

/** Return a count for people: 1,687. */
export const count = (value) => number.format(value);

/** Return an element with text and attributes. */
export function make(name, text = "", attributes = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Show a square of RGB bytes on a canvas of the page; none clears it. */
export function showPicture(canvas, square, label) {
  const side = square?.side ?? 1;
  canvas.width = canvas.height = side;
  if (square) canvas.getContext("2d").drawImage(toCanvas(square), 0, 0);
  canvas.setAttribute("aria-label", label);
}

/** Show the best guesses of a classifier in an ordered list; none empties it. */
export function showGuesses(list, guesses) {
  list.replaceChildren(
    ...(guesses ?? []).map(({ label, p }) => {
      const item = make("li");
      const percent = `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`;
      const bar = make("meter", "", { min: 0, max: 1, value: p, "aria-hidden": "true" });
      item.append(make("span", label.split(",")[0], { title: label }), make("b", percent), bar);
      return item;
    }),
  );
}

/** Show the milliseconds of each stage as a bar and a list, in the order in which they come. */
export function showTimes(ms) {
  const stages = Object.entries(ms);
  const whole = stages.reduce((sum, [, spent]) => sum + spent, 0);
  $("whole").textContent = whole ? `${whole.toFixed(0)} ms in all` : "";
  const bar = stages.map(([stage, spent]) => {
    const part = make("i", "", { class: SHORES[stage] ?? "edge" });
    part.style.flexGrow = Math.max(spent, 0.001);
    return part;
  });
  $("bar").replaceChildren(...bar);
  $("times").replaceChildren(
    ...stages.map(([stage, spent]) => {
      const shore = SHORES[stage] ?? "edge";
      const entry = make("div");
      entry.append(make("dt", stage, { class: shore, title: shore }), make("dd", `${spent.toFixed(1)} ms`));
      return entry;
    }),
  );
}

/**
 * Draw boxes and label maps over the crop, and list the classes of the label maps. As docs/answers.md has them: boxes
 * are {label, score, box: [left, top, right, bottom]} from 0 to 1, a label map is {png, classes: [{index, label,
 * share}]}, a PNG with a palette. `aborted` tells whether a newer answer is on its way; none clears both.
 */
export async function drawAnswers(canvas, list, answers, aborted = () => false) {
  const found = Object.values(answers ?? {});
  const maps = await Promise.all(found.filter((one) => one?.png).map(openMap));
  if (aborted()) return;
  const side = 448;
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.globalAlpha = 0.5;
  for (const { bitmap } of maps) context.drawImage(bitmap, 0, 0, side, side);
  context.globalAlpha = 1;
  const boxes = found.flatMap((one) => (Array.isArray(one) ? one : [])).filter((one) => one.box && one.score >= SURE);
  boxes.toReversed().forEach((one) => drawBox(context, side, one));
  list.replaceChildren(...maps.flatMap(classItems));
}

/** Return a label map's picture, its palette and its classes. */
async function openMap({ png, classes }) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  return { bitmap: await createImageBitmap(new Blob([bytes], { type: "image/png" })), palette: paletteOf(bytes), classes };
}

/** Return the colours of a PNG with a palette: the chunk PLTE, three bytes each. */
function paletteOf(bytes) {
  const view = new DataView(bytes.buffer);
  for (let at = 8; at + 8 <= bytes.length; at += 12 + view.getUint32(at)) {
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === "PLTE") return bytes.subarray(at + 8, at + 8 + view.getUint32(at));
  }
  return new Uint8Array();
}

function classItems({ palette, classes }) {
  return classes
    .filter(({ share }) => share >= 0.01)
    .slice(0, 6)
    .map(({ index, label, share }) => {
      const item = make("li", `${label} ${(100 * share).toFixed(0)} %`);
      const swatch = make("i", "", { "aria-hidden": "true" });
      swatch.style.background = `rgb(${palette.subarray(3 * index, 3 * index + 3).join(" ")})`;
      item.prepend(swatch);
      return item;
    });
}

function drawBox(context, side, { index, label, score, box }) {
  const [left, top, right, bottom] = box.map((part) => part * side);
  const colour = `hsl(${HUES[index % HUES.length]} 75% 40%)`;
  context.lineWidth = 4;
  context.strokeStyle = context.fillStyle = colour;
  context.strokeRect(left, top, right - left, bottom - top);
  context.font = "22px system-ui, sans-serif";
  const text = `${label.split(",")[0]} ${(100 * score).toFixed(0)} %`;
  context.fillRect(left, Math.max(0, top - 30), context.measureText(text).width + 14, 30);
  context.fillStyle = "#fff";
  context.fillText(text, left + 7, Math.max(0, top - 30) + 22);
}
