/** What the page shows: numbers, answers, stage times, pictures, and boxes and masks where an answer has them. */

import { toCanvas } from "./picture.js";

const SHORES = { preprocess: "device", encoder: "device", coding: "device", link: "link" };
const number = new Intl.NumberFormat("en");
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
 * Draw boxes and masks over the crop. Boxes are {label, p, box: [left, top, right, bottom]} from 0 to 1; a mask is
 * {rows, cols, labels, mask: [a class for each cell, row by row]}, class 0 being background.
 */
export function drawAnswers(canvas, answers) {
  const side = 448;
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  for (const found of Object.values(answers ?? {})) {
    if (found?.mask) drawMask(context, side, found);
    if (Array.isArray(found)) found.filter((one) => one.box).forEach((one, n) => drawBox(context, side, one, n));
  }
}

function drawMask(context, side, { rows, cols, mask }) {
  for (let n = 0; n < rows * cols; n++) {
    if (!mask[n]) continue;
    context.fillStyle = `hsl(${HUES[mask[n] % HUES.length]} 75% 50% / .45)`;
    const x = n % cols;
    const y = (n - x) / cols;
    context.fillRect((x * side) / cols, (y * side) / rows, side / cols + 0.5, side / rows + 0.5);
  }
}

function drawBox(context, side, { label, p, box }, n) {
  const [left, top, right, bottom] = box.map((part) => part * side);
  const colour = `hsl(${HUES[n % HUES.length]} 75% 45%)`;
  context.lineWidth = 4;
  context.strokeStyle = context.fillStyle = colour;
  context.strokeRect(left, top, right - left, bottom - top);
  context.font = "22px system-ui, sans-serif";
  const text = `${label.split(",")[0]} ${(100 * p).toFixed(0)} %`;
  context.fillRect(left, Math.max(0, top - 30), context.measureText(text).width + 14, 30);
  context.fillStyle = "#fff";
  context.fillText(text, left + 7, Math.max(0, top - 30) + 22);
}
