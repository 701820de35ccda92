/** The page: a picture comes in, packets of all levels are made, the chosen one and a JPEG of no more bytes are asked. */

import { openCamera } from "./camera.js";
import { openEncoder } from "./encoder.js";
import { jpegWithin } from "./jpeg.js";
import { cropPicture, openPicture } from "./picture.js";
import { askEdge, askTeachers, getBytes, getJson, useToken } from "./server.js";
import { $, SURE, count, drawAnswers, make, showGuesses, showPicture, showTimes } from "./view.js";

const TASK_NAMES = { detect: "Objects", segment: "Street scene, labelled" };

let bundle;
let encoder;
let picture; // {title, crop, packets, ms}
let source; // {blob, title, credit}: kept to try again
let turn = new AbortController(); // of the newest choice; older ones are dropped

start();

async function start() {
  connect();
  await guarded(async () => {
    bundle ??= await getJson("bundle");
    if (!$("samples").children.length) {
      showSamples();
      showTasks();
    }
    $("level").max = bundle.levels - 1;
    $("level").value = bundle.default_level;
    encoder ??= await openEncoder(bundle);
    $("how").textContent = howText();
    if (!source) await useSample(bundle.photographs[0]);
  });
}

function howText() {
  if (encoder.where === "browser") {
    return `This browser encodes; the picture stays here. ${bundle.bundle} answers from the packet; the JPEG is sent to compare.`;
  }
  return `The server encodes, so the picture itself travels there: ${encoder.reason}. ${bundle.bundle} answers from the packet.`;
}

function showSamples() {
  for (const photograph of bundle.photographs) {
    const button = make("button", "", { type: "button", "aria-pressed": "false", "data-name": photograph.name });
    button.append(make("img", "", { src: `demo/photos/${photograph.name}.jpg`, alt: photograph.title }));
    button.addEventListener("click", () => guarded(() => useSample(photograph)));
    $("samples").append(button);
  }
}

/** One box to tick for each task beside classification; boxes are drawn unless told otherwise. */
function showTasks() {
  for (const task of bundle.tasks.filter((one) => one !== "classify")) {
    const label = make("label", "");
    const box = make("input", "", { type: "checkbox", value: task });
    box.checked = task === "detect";
    box.addEventListener("change", () => guarded(ask));
    label.append(box, TASK_NAMES[task] ?? task);
    $("tasks").append(label);
    $("tasks").hidden = false;
  }
}

/** Those of some tasks that are wanted: classification, and what is ticked. */
function ticked(tasks) {
  const boxes = [...$("tasks").querySelectorAll("input:checked")].map((box) => box.value);
  return tasks.filter((task) => task === "classify" || boxes.includes(task));
}

async function useSample({ name, title, credit }) {
  const { signal } = renew();
  busy(true);
  const blob = new Blob([await getBytes(`photos/${name}.jpg`)], { type: "image/jpeg" });
  if (!signal.aborted) await usePicture({ blob, title, credit: `Photograph: ${credit}`, name });
}

async function usePicture(chosen) {
  if (!encoder) throw new Error("The encoder is still being opened. Try again in a moment.");
  source = chosen;
  const { signal } = renew();
  picture = null;
  busy(true);
  const begin = performance.now();
  const crop = cropPicture(await openPicture(chosen.blob, bundle.limits.pixels), bundle);
  const cropMs = performance.now() - begin;
  if (signal.aborted) return;
  for (const button of $("samples").children) {
    button.setAttribute("aria-pressed", String(button.dataset.name === chosen.name));
  }
  $("credit").textContent = chosen.credit ?? "";
  showPicture($("ours-picture"), crop, `${chosen.title}, as the encoder sees it`);
  clearAnswers();
  const { packets, ms } = await encoder.encode({ crop, cropMs, blob: chosen.blob, signal });
  if (signal.aborted) return;
  picture = { title: chosen.title, crop, packets, ms };
  openControls();
  await ask();
}

function openControls() {
  const sizes = picture.packets.map((packet) => packet.length);
  const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
  $("budget").min = Math.max(20, Math.floor((least * 0.8) / 10) * 10);
  $("budget").max = Math.ceil(most / 10) * 10;
  if ($("level").disabled) setBudget(Math.round(sizes[bundle.default_level] / 100) * 100);
  for (const id of ["level", "budget", "budget-number"]) $(id).disabled = false;
  $("budget").value = $("budget-number").value;
}

/** The best level within the budget, or the slider's; -1 where none fits. */
function chosenLevel() {
  if ($("by-budget").hidden) return Number($("level").value);
  const budget = Number($("budget-number").value);
  return picture.packets.findLastIndex((packet) => packet.length <= budget);
}

function showRate() {
  if (!picture) return;
  const level = Number($("level").value);
  const size = picture.packets[level].length;
  $("level-text").textContent = `${level} of ${bundle.levels - 1} · ${count(size)} bytes`;
  $("level").setAttribute("aria-valuetext", `level ${level} of ${bundle.levels - 1}, ${count(size)} bytes`);
  $("budget").setAttribute("aria-valuetext", `at most ${count($("budget").value)} bytes`);
}

function setBudget(bytes) {
  $("budget").value = bytes;
  $("budget-number").value = bytes;
}

async function ask() {
  if (!picture) return;
  const { signal } = renew();
  const { packets, crop, ms, title } = picture;
  showRate();
  const level = chosenLevel();
  if (level < 0) {
    clearAnswers();
    const least = Math.min(...packets.map((packet) => packet.length));
    throw new Error(`No packet fits: the smallest of this picture has ${count(least)} bytes. Allow more.`);
  }
  busy(true);
  const packet = packets[level];
  $("ours-bytes").textContent = count(packet.length);
  $("ours-note").textContent = `rate level ${level} of ${bundle.levels - 1}`;
  const { answer, link } = await askEdge(packet, { tasks: ticked(bundle.tasks), score: SURE, signal });
  if (signal.aborted) return;
  showGuesses($("ours-answers"), answer.answers.classify);
  await drawAnswers($("ours-drawn"), $("ours-classes"), answer.answers, () => signal.aborted);
  if (signal.aborted) return;
  showTimes({ ...ms, link, ...answer.ms });
  const best = await askJpeg(crop, packet.length, title, signal);
  if (signal.aborted) return;
  busy(false);
  const first = answer.answers.classify?.[0];
  $("status").textContent = `${count(packet.length)} bytes: ${first ? first.label.split(",")[0] : "answered"}. ${best}`;
}

async function askJpeg(crop, budget, title, signal) {
  const jpeg = await jpegWithin(crop, budget, () => signal.aborted);
  if (!jpeg || signal.aborted) return "";
  if (!jpeg.blob) {
    showPicture($("jpeg-picture"), null, "No JPEG");
    showGuesses($("jpeg-answers"), null);
    await drawAnswers($("jpeg-drawn"), $("jpeg-classes"), null);
    $("jpeg-bytes").textContent = "–";
    $("jpeg-note").textContent = `none is so small: at lowest quality and size it has ${count(jpeg.smallest)}`;
    return "No JPEG is so small.";
  }
  const { answers } = await askTeachers(jpeg.blob, { tasks: ticked(bundle.jpeg_tasks), signal });
  if (signal.aborted) return "";
  showPicture($("jpeg-picture"), jpeg.shown, `${title}, as a JPEG of ${count(jpeg.blob.size)} bytes shows it`);
  $("jpeg-bytes").textContent = count(jpeg.blob.size);
  $("jpeg-note").textContent = jpegNote(jpeg, crop.side);
  showGuesses($("jpeg-answers"), answers.classify);
  await drawAnswers($("jpeg-drawn"), $("jpeg-classes"), answers, () => signal.aborted);
  const first = answers.classify?.[0];
  return `JPEG, ${count(jpeg.blob.size)} bytes: ${first ? first.label.split(",")[0] : "answered"}.`;
}

function jpegNote({ side, quality, fullFits }, full) {
  const square = (pixels) => `${pixels}\u00a0×\u00a0${pixels}`;
  const shrunk = fullFits ? `closer to the crop than any at ${square(full)}` : `at ${square(full)} none is so small`;
  return `${square(side)}, quality\u00a0${quality}${side < full ? `; ${shrunk}` : ""}`;
}

function clearAnswers() {
  showGuesses($("ours-answers"), null);
  showGuesses($("jpeg-answers"), null);
  showPicture($("jpeg-picture"), null, "No picture yet");
  for (const side of ["ours", "jpeg"]) drawAnswers($(`${side}-drawn`), $(`${side}-classes`), null);
  showTimes({});
  for (const id of ["ours-bytes", "jpeg-bytes"]) $(id).textContent = "–";
  for (const id of ["ours-note", "jpeg-note"]) $(id).textContent = "\u00a0";
}

function renew() {
  turn.abort();
  turn = new AbortController();
  return turn;
}

function busy(yes) {
  $("pair").setAttribute("aria-busy", String(yes));
}

/** Run something; what fails is told in one sentence, and what was overtaken is dropped in silence. */
async function guarded(task) {
  try {
    $("problem").textContent = "";
    await task();
  } catch (error) {
    if (error.name === "AbortError") return;
    busy(false);
    $("token").hidden = error.status !== 401;
    $("problem").textContent = error.status === 401 ? "" : error.message;
    if (!encoder && error.status !== 401) $("how").textContent = "The encoder is not open.";
    if (error.status === 401) $("token-text").focus();
  }
}

function connect() {
  let timer;
  const soon = () => {
    if (!picture) return;
    busy(true);
    showRate();
    clearTimeout(timer);
    timer = setTimeout(() => guarded(ask), 150);
  };
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    $("file").value = ""; // so that the same file can be chosen again
    useFile(file);
  });
  $("level").addEventListener("input", soon);
  $("budget").addEventListener("input", () => (setBudget($("budget").value), soon()));
  $("budget-number").addEventListener("input", () => (($("budget").value = $("budget-number").value), soon()));
  for (const radio of document.getElementsByName("mode")) {
    radio.addEventListener("change", () => {
      $("by-level").hidden = radio.value !== "level";
      $("by-budget").hidden = radio.value === "level";
      soon();
    });
  }
  $("camera").addEventListener("click", () =>
    guarded(() => openCamera((blob) => guarded(() => usePicture({ blob, title: "The camera’s picture" })))),
  );
  $("token").addEventListener("submit", (event) => {
    event.preventDefault();
    useToken($("token-text").value);
    $("token").hidden = true;
    if (encoder && source) guarded(() => usePicture(source));
    else start();
  });
  connectDrops();
}

function connectDrops() {
  const over = (yes) => document.body.classList.toggle("dropping", yes);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget || over(false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    useFile(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => event.clipboardData.files.length && useFile(event.clipboardData.files[0]));
}

function useFile(file) {
  if (file) guarded(() => usePicture({ blob: file, title: file.name }));
}
