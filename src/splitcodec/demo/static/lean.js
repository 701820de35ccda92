/**
 * Beside jpeg.js: makes a baseline JPEG as short as it can be without touching a pixel, as `jpegtran -optimize` does.
 *
 * Chromium writes a colour profile of 474 bytes into every JPEG, and an encoder that keeps JPEG's example tables 420
 * bytes of those: most of a JPEG as small as a packet. Profile and comments go, Huffman tables are made to measure.
 * What is not baseline with one interleaved scan comes back as it was.   norm: ITU-T T.81, annexes C, F.2 and K.2
 */

const [SOF0, DHT, SOS, DRI] = [0xc0, 0xc4, 0xda, 0xdd];
const [APP0, ADOBE, APP15, COMMENT] = [0xe0, 0xee, 0xef, 0xfe]; // Adobe's segment says how colours are coded

/** Return the JPEG's bytes without ballast, or the same array where that is not possible or not shorter. */
export function lean(jpeg) {
  const file = parse(jpeg);
  if (!file) return jpeg;
  const tokens = readScan(file, jpeg);
  if (!tokens) return jpeg;
  const shorter = write(file, tokens);
  return shorter.length < jpeg.length ? shorter : jpeg;
}

function parse(jpeg) {
  const file = { head: [jpeg.subarray(0, 2)], tables: [], frame: null };
  for (let at = 2; at + 4 <= jpeg.length; ) {
    if (jpeg[at] !== 0xff) return null;
    const marker = jpeg[at + 1];
    const end = at + 2 + jpeg[at + 2] * 256 + jpeg[at + 3];
    const body = jpeg.subarray(at + 4, end);
    if (marker === DHT) readTables(body, file.tables);
    else if (marker === SOF0) file.frame = readFrame(body);
    else if ((marker > SOF0 && marker < 0xd0 && marker !== 0xc8 && marker !== 0xcc) || marker === DRI) return null;
    if (marker === SOS) {
      if (!file.frame || body[0] !== file.frame.parts.length || body[0] < 2) return null;
      file.order = [];
      for (let i = 0; i < body[0]; i++) {
        const part = file.frame.parts.find((one) => one.id === body[1 + 2 * i]);
        const dc = body[2 + 2 * i] >> 4;
        const ac = 2 + (body[2 + 2 * i] & 15);
        if (!part || dc > 1 || ac > 3) return null;
        for (let n = 0; n < part.across * part.down; n++) file.order.push({ dc, ac });
      }
      return { ...file, scanHead: jpeg.subarray(at, end), scan: end };
    }
    const ballast = (marker > APP0 && marker <= APP15 && marker !== ADOBE) || marker === COMMENT;
    if (marker !== DHT && !ballast) file.head.push(jpeg.subarray(at, end));
    at = end;
  }
  return null;
}

function readFrame(body) {
  const parts = [];
  for (let i = 0; i < body[5]; i++) {
    parts.push({ id: body[6 + 3 * i], across: body[7 + 3 * i] >> 4, down: body[7 + 3 * i] & 15 });
  }
  const wide = 8 * Math.max(...parts.map((part) => part.across));
  const tall = 8 * Math.max(...parts.map((part) => part.down));
  const units = Math.ceil((body[3] * 256 + body[4]) / wide) * Math.ceil((body[1] * 256 + body[2]) / tall);
  return { parts, units };
}

/** Tables are kept at 2 * class + id: how many codes of each length, and the symbols in the order of their codes. */
function readTables(body, tables) {
  for (let at = 0; at < body.length; ) {
    const lengths = body.subarray(at + 1, at + 17);
    const count = lengths.reduce((sum, one) => sum + one, 0);
    tables[(body[at] >> 4) * 2 + (body[at] & 15)] = { lengths, symbols: body.subarray(at + 17, at + 17 + count) };
    at += 17 + count;
  }
}

/** Return every Huffman symbol of the scan with the bits that follow it, [table, symbol, bits] flat; null if damaged. */
function readScan({ frame, order, tables, scan }, jpeg) {
  const tokens = [];
  let at = scan;
  let held = 0;
  let left = 0;
  const bit = () => {
    if (left === 0) {
      held = jpeg[at++] ?? 0;
      if (held === 0xff) at++; // the stuffed zero
      left = 8;
    }
    return (held >> --left) & 1;
  };
  const symbolOf = (key) => {
    const { lengths, symbols } = tables[key];
    let code = 0;
    let first = 0;
    let index = 0;
    for (let length = 0; length < 16; length++) {
      code = code * 2 + bit();
      if (code - first < lengths[length]) return symbols[index + code - first];
      index += lengths[length];
      first = (first + lengths[length]) * 2;
    }
    return -1;
  };
  const take = (key) => {
    const symbol = symbolOf(key);
    let bits = 0;
    for (let i = 0; i < (symbol & 15); i++) bits = bits * 2 + bit();
    tokens.push(key, symbol, bits);
    return symbol;
  };
  for (let unit = 0; unit < frame.units; unit++) {
    for (const { dc, ac } of order) {
      if (take(dc) < 0) return null;
      for (let k = 1; k < 64; k++) {
        const symbol = take(ac);
        if (symbol < 0 || at > jpeg.length) return null;
        if (symbol === 0) break; // end of block
        k += symbol >> 4;
      }
    }
  }
  return tokens;
}

function write({ head, scanHead }, tokens) {
  const frequencies = [];
  for (let i = 0; i < tokens.length; i += 3) {
    (frequencies[tokens[i]] ??= new Array(256).fill(0))[tokens[i + 1]]++;
  }
  const made = frequencies.map(bestTable);
  const out = [];
  for (const segment of head) out.push(...segment);
  const size = made.reduce((sum, { symbols }) => sum + 17 + symbols.length, 2);
  out.push(0xff, DHT, size >> 8, size & 255);
  made.forEach(({ lengths, symbols }, key) => out.push(((key >> 1) << 4) | (key & 1), ...lengths, ...symbols));
  out.push(...scanHead);
  writeScan(out, tokens, made);
  out.push(0xff, 0xd9);
  return Uint8Array.from(out);
}

function writeScan(out, tokens, made) {
  let held = 0;
  let count = 0;
  const put = (bits, length) => {
    for (let i = length - 1; i >= 0; i--) {
      held = held * 2 + ((bits >> i) & 1);
      if (++count < 8) continue;
      out.push(held);
      if (held === 0xff) out.push(0);
      held = count = 0;
    }
  };
  for (let i = 0; i < tokens.length; i += 3) {
    const [code, length] = made[tokens[i]].codes[tokens[i + 1]];
    put(code, length);
    put(tokens[i + 2], tokens[i + 1] & 15);
  }
  if (count) put(0x7f, 8 - count); // the last byte is filled with ones
}

/** Return the shortest code of at most 16 bits (annex K.2); a symbol that never occurs keeps all ones free. */
function bestTable(frequency) {
  const weight = [...frequency, 1];
  const length = new Array(257).fill(0);
  let groups = weight.flatMap((w, symbol) => (w ? [{ w, members: [symbol] }] : []));
  while (groups.length > 1) {
    groups.sort((a, b) => b.w - a.w || b.members.length - a.members.length);
    const [one, other] = groups.splice(-2);
    const members = [...one.members, ...other.members];
    for (const symbol of members) length[symbol]++;
    groups.push({ w: one.w + other.w, members });
  }
  const perLength = new Array(Math.max(17, ...length) + 1).fill(0);
  for (const one of length) if (one) perLength[one]++;
  for (let i = perLength.length - 1; i > 16; i--) {
    while (perLength[i] > 0) {
      let j = i - 2;
      while (perLength[j] === 0) j--;
      perLength[i] -= 2;
      perLength[i - 1]++;
      perLength[j + 1] += 2;
      perLength[j]--;
    }
  }
  let longest = 16;
  while (perLength[longest] === 0) longest--;
  perLength[longest]--; // the code of all ones
  const symbols = weight.map((_, symbol) => symbol).filter((symbol) => symbol < 256 && length[symbol]);
  symbols.sort((a, b) => length[a] - length[b] || a - b);
  const lengths = perLength.slice(1, 17);
  return { lengths, symbols, codes: codesOf(lengths, symbols) };
}

function codesOf(lengths, symbols) {
  const codes = [];
  let code = 0;
  let next = 0;
  lengths.forEach((count, i) => {
    for (let n = 0; n < count; n++) codes[symbols[next++]] = [code++, i + 1];
    code *= 2;
  });
  return codes;
}
