/**
 * Stages 3 and 4 of 7 in a browser: latent -> symbols -> payload -> packet.   norm: docs/wire-format.md
 *
 * The coder's state has 64 bits; JavaScript's numbers are exact to 53, so it is kept as two halves of 32 bits and every
 * intermediate value stays below 2^53. Held to the golden vectors by tests/demo/test_browser.py.
 */

const VERSION = 1;
const HEADER = 8;

/**
 * Multiply by the gain, round half to even and clip, all in binary32: (C, H, W) -> Int32Array of the same order.
 * `tables` is {freq, offset, table_of_lxc, gain_lc}. Throws on NaN.
 */
export function quantise(latent, level, tables) {
  const rows = tables.table_of_lxc[level][0];
  const gains = tables.gain_lc[level];
  const area = latent.length / rows.length;
  const symbols = new Int32Array(latent.length);
  for (let c = 0; c < rows.length; c++) {
    const gain = Math.fround(gains[c]);
    const low = tables.offset[rows[c]];
    const high = low + tables.freq[rows[c]].length - 1;
    for (let n = c * area; n < (c + 1) * area; n++) {
      const scaled = Math.fround(latent[n] * gain);
      if (Number.isNaN(scaled)) throw new Error("the encoder gave NaN; its graph or the browser's WebAssembly is broken");
      symbols[n] = Math.min(Math.max(roundHalfEven(scaled), low), high);
    }
  }
  return symbols;
}

function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Return the payload of symbols (C, H, W) under coding id 0. */
export function encodePayload(symbols, level, tables) {
  const rows = tables.table_of_lxc[level][0];
  const area = symbols.length / rows.length;
  const runs = rows.map((row, c) => [row, symbols.subarray(c * area, (c + 1) * area).map((q) => q - tables.offset[row])]);
  return encodeRuns(runs, tables);
}

/** Return the payload of runs [row, columns]: the stream's words without trailing zero bytes. */
export function encodeRuns(runs, tables) {
  const words = [];
  let high = 0;
  let low = 0;
  for (let r = runs.length - 1; r >= 0; r--) {
    const [row, columns] = runs[r];
    const freq = tables.freq[row];
    const before = cumulative(tables, row);
    for (let n = columns.length - 1; n >= 0; n--) {
      const column = columns[n];
      const f = freq[column];
      if (f === undefined) throw new RangeError(`column ${column} is outside of row ${row}; clip first`);
      if (high >= f * 256) { // x >= f * 2^40
        words.push(low);
        low = high;
        high = 0;
      }
      // x / f in three digits: the high word, then 16 bits at a time, so that no remainder times 2^16 exceeds 2^40
      const top = Math.floor(high / f);
      const middle = (high - top * f) * 65536 + Math.floor(low / 65536);
      const next = Math.floor(middle / f);
      const bottom = (middle - next * f) * 65536 + (low % 65536);
      const last = Math.floor(bottom / f);
      const remainder = bottom - last * f;
      const quotient = top * 4294967296 + next * 65536 + last; // below 2^40
      high = Math.floor(quotient / 256);
      low = (quotient % 256) * 16777216 + remainder + before[column];
    }
  }
  for (; high > 0 || low > 0; low = high, high = 0) words.push(low);
  return trimmed(words);
}

const cumulativeOf = new WeakMap();

function cumulative(tables, row) {
  let rows = cumulativeOf.get(tables);
  if (!rows) cumulativeOf.set(tables, (rows = []));
  if (!rows[row]) {
    let sum = 0;
    rows[row] = tables.freq[row].map((f) => (sum += f) - f);
  }
  return rows[row];
}

function trimmed(words) {
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  words.forEach((word, i) => view.setUint32(4 * i, word, true));
  let length = bytes.length;
  while (length > 0 && bytes[length - 1] === 0) length--;
  return length ? bytes.slice(0, length) : new Uint8Array(1);
}

/** Return a packet of table set 0; `fingerprint` is the bundle's, in hexadecimal. */
export function pack({ level, coding, fingerprint, rows, cols, payload }) {
  const packet = new Uint8Array(HEADER + payload.length + 4);
  packet[0] = (VERSION << 4) | level;
  packet[1] = coding << 4;
  for (let i = 0; i < 4; i++) packet[2 + i] = parseInt(fingerprint.slice(2 * i, 2 * i + 2), 16);
  packet[6] = rows;
  packet[7] = cols;
  packet.set(payload, HEADER);
  new DataView(packet.buffer).setUint32(HEADER + payload.length, crc32(packet.subarray(0, HEADER + payload.length)), true);
  return packet;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** Return the CRC-32 of zlib, PNG and Ethernet. */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
