/**
 * Stage 3 of 7 in a browser under coding id 2: which row each symbol has.   norm: docs/wire-format.md, section 9
 *
 * All numbers are integers that a double holds exactly. Held to the device's packets by tests/demo/test_browser.py.
 */

const [LARGEST, HIGHEST, FARTHEST, TAPS] = [7, 255, 512, 9];
const [MEAN_SHIFT, WIDTH_SHIFT] = [256, 512];
const PHASES = [[0, 0], [1, 1], [0, 1], [1, 0]];

/** Make what `/demo/contexts` tells ready for use. */
export function openContexts(told) {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const steps = [];
  let first = 0;
  let column = 0;
  told.group.forEach((count, group) => {
    const each = PHASES.length / told.passes[group];
    const known = first + (told.passes[group] > 1 ? count : 0);
    for (let phase = 0; phase < PHASES.length; phase += each) {
      steps.push({ first, last: first + count, phase, phases: each, opens: phase === 0, column, known });
    }
    column += 2 * known;
    first += count;
  });
  return {
    ...told,
    steps,
    columns: column,
    into: new Int8Array(bytes(told.into)),
    into_bias: new Int32Array(bytes(told.into_bias)),
    out: new Int8Array(bytes(told.out)),
    out_bias: new Int32Array(bytes(told.out_bias)),
    networks: [],
    grids: new Map(),
  };
}

/**
 * Return [row, columns] in the order in which they are coded, for symbols (C, H, W); null where one lies outside of its
 * row, which coding id 0 must hold then.
 */
export function runsOf(symbols, level, rows, cols, contexts) {
  const places = placesOf(rows, cols, contexts);
  const [count, channels, hidden] = [rows * cols, contexts.order.length, contexts.hidden];
  const seen = new Float64Array((count + 1) * 2 * channels);
  const earlier = new Float64Array((count + 1) * hidden);
  const found = new Float64Array((count + 1) * hidden);
  const runs = [];
  (contexts.networks[level] ??= networksOf(level, contexts)).forEach((network, number) => {
    const { first, last, phase, phases, opens } = network.step;
    const [begin, end] = [places.ends[phase], places.ends[phase + phases]];
    if (opens) earlier.fill(0);
    if (opens) addSums(earlier, seen, network.into, 0, 2 * first, channels, hidden);
    if (number) {
      found.set(earlier);
      if (!opens) addSums(found, seen, network.into, 2 * first, 2 * last, channels, hidden);
      for (let n = 0; n < found.length; n++) {
        found[n] = Math.min(Math.max(found[n] + network.bias[n % hidden], 0), HIGHEST);
      }
    }
    const byRow = [];
    const around = new Float64Array(TAPS * hidden);
    for (let n = begin; n < end; n++) {
      for (let t = 0; number && t < TAPS; t++) {
        const at = places.around[n * TAPS + t] * hidden;
        for (let h = 0; h < hidden; h++) around[t * hidden + h] = found[at + h];
      }
      for (let c = 0; c < last - first; c++) {
        const [mean, width] = meanAndWidth(network, c, around, number > 0, contexts.widths);
        const whole = Math.floor((mean + 4) / 8);
        const row = 8 * width + mean - 8 * whole + 4;
        const symbol = symbols[contexts.order[first + c] * count + places.raster[n]];
        const one = symbol - whole - contexts.offset[row];
        if (one < 0 || one >= contexts.freq[row].length) return runs.push(null);
        (byRow[row] ??= []).push(one);
      }
    }
    byRow.forEach((columns, row) => runs.push([row, columns]));
    for (let n = begin; n < end; n++) {
      for (let c = first; c < last; c++) {
        const symbol = symbols[contexts.order[c] * count + places.raster[n]];
        const near = Math.min(Math.max(symbol, -LARGEST), LARGEST);
        seen[(n * channels + c) * 2] = near;
        seen[(n * channels + c) * 2 + 1] = Math.abs(near);
      }
    }
  });
  return runs.includes(null) ? null : runs;
}

/** Add what inputs `from` to `to` give to the hidden numbers of every place; most symbols are zero. */
function addSums(sums, seen, into, from, to, channels, hidden) {
  for (let n = 0; n * hidden < sums.length; n++) {
    for (let a = from; a < to; a++) {
      const x = seen[n * 2 * channels + a];
      if (x === 0) continue;
      for (let h = 0; h < hidden; h++) sums[n * hidden + h] += x * into[a * hidden + h];
    }
  }
}

function meanAndWidth({ out, outBias, base }, c, around, told, widths) {
  let mean = told ? outBias[2 * c] : base[0][c];
  let width = told ? outBias[2 * c + 1] : base[1][c];
  if (told) {
    const [first, second] = [2 * c * around.length, (2 * c + 1) * around.length];
    for (let x = 0; x < around.length; x++) {
      mean += out[first + x] * around[x];
      width += out[second + x] * around[x];
    }
    mean = Math.floor((mean + MEAN_SHIFT / 2) / MEAN_SHIFT);
    width = Math.floor((width + WIDTH_SHIFT / 2) / WIDTH_SHIFT);
  }
  return [Math.min(Math.max(mean, -FARTHEST), FARTHEST), Math.min(Math.max(width, 0), widths - 1)];
}

/** Lay out a level's weights as they are used: `into` by input, then hidden number; `out` by channel, tap, hidden. */
function networksOf(level, contexts) {
  const { hidden, columns, steps } = contexts;
  const later = contexts.out_bias.length / (2 * contexts.levels);
  let at = 0;
  return steps.map((step, number) => {
    const into = new Float64Array(2 * step.known * hidden);
    for (let a = 0; a < 2 * step.known; a++) {
      for (let h = 0; h < hidden; h++) {
        into[a * hidden + h] = contexts.into[(level * hidden + h) * columns + step.column + a];
      }
    }
    if (!number) return { step, into, base: contexts.base[level] };
    const many = step.last - step.first;
    const out = new Float64Array(2 * many * TAPS * hidden);
    const outBias = new Float64Array(2 * many);
    for (let y = 0; y < 2 * many; y++) {
      const from = (level * 2 + (y & 1)) * later + at + (y >> 1);
      outBias[y] = contexts.out_bias[from];
      for (let x = 0; x < TAPS * hidden; x++) {
        out[y * TAPS * hidden + x] = contexts.out[(from * hidden + (x % hidden)) * TAPS + Math.floor(x / hidden)];
      }
    }
    at += many;
    const begin = (level * (steps.length - 1) + number - 1) * hidden;
    return { step, into, bias: contexts.into_bias.subarray(begin, begin + hidden), out, outBias };
  });
}

/** Return the places of a grid in the order in which they are coded, the 3 x 3 around each, and where phases end. */
function placesOf(rows, cols, { grids }) {
  const key = `${rows} ${cols}`;
  if (grids.has(key)) return grids.get(key);
  const raster = [];
  const ends = [0];
  for (const [down, right] of PHASES) {
    for (let i = down; i < rows; i += 2) for (let j = right; j < cols; j += 2) raster.push(i * cols + j);
    ends.push(raster.length);
  }
  const number = new Int32Array(rows * cols);
  raster.forEach((place, n) => (number[place] = n));
  const around = new Int32Array(raster.length * TAPS);
  raster.forEach((place, n) => {
    for (let t = 0; t < TAPS; t++) {
      const i = Math.floor(place / cols) + Math.floor(t / 3) - 1;
      const j = (place % cols) + (t % 3) - 1;
      const inside = i >= 0 && i < rows && j >= 0 && j < cols;
      around[n * TAPS + t] = inside ? number[i * cols + j] : rows * cols;
    }
  });
  const places = { raster, around, ends };
  grids.set(key, places);
  return places;
}
