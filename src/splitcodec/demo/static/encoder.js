/**
 * Stages 2 to 4 of 7: a crop -> one packet for every level. By this browser, or by the server where it cannot.
 *
 * Both ways give {where, packets: [Uint8Array by level], ms: {preprocess, encoder, coding}}.
 */

import { openContexts, runsOf } from "./contexts.js";
import { encodePayload, encodeRuns, pack, quantise } from "./coder.js";
import { getBytes, getJson, postForJson } from "./server.js";

const [BY_CHANNEL, BY_CONTEXT] = [0, 2];

/** Open the bundle's encoder in this browser, or give the reason why the server must do it: {encode, where, reason}. */
export async function openEncoder(bundle) {
  const asked = new URLSearchParams(location.search).get("encode");
  if (asked === "server") return serverEncoder(bundle, "as the address of this page asks");
  if (!bundle.ort) return serverEncoder(bundle, "onnxruntime-web is not installed there (splitcodec demo-assets)");
  try {
    return await browserEncoder(bundle);
  } catch (error) {
    return serverEncoder(bundle, `this browser could not open the encoder (${error.message})`);
  }
}

async function browserEncoder(bundle) {
  const here = new URL(`../ort/${bundle.ort.version}/`, import.meta.url);
  const [ort, tables, contexts, graph] = await Promise.all([
    import(new URL(bundle.ort.module, here)),
    getJson(`tables?sha256=${bundle.tables_sha256}`),
    bundle.contexts_sha256 ? getJson(`contexts?sha256=${bundle.contexts_sha256}`).then(openContexts) : null,
    getBytes(`encoder.onnx?sha256=${bundle.encoder_sha256}`),
  ]);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { wasm: new URL(bundle.ort.wasm, here).href };
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  const latentOf = async ({ side, rgb }) => {
    const image = new ort.Tensor("uint8", rgb, [1, side, side, 3]);
    const latent = (await session.run({ [session.inputNames[0]]: image }))[session.outputNames[0]];
    return { data: latent.data, rows: latent.dims[2], cols: latent.dims[3] };
  };
  await latentOf({ side: bundle.crop, rgb: new Uint8Array(bundle.crop * bundle.crop * 3) }); // warm

  return {
    where: "browser",
    reason: "",
    async encode({ crop, cropMs }) {
      const begin = performance.now();
      const latent = await latentOf(crop);
      const encoded = performance.now();
      const packets = encodeLevels(latent, bundle, { tables, contexts });
      const coding = (performance.now() - encoded) / packets.length;
      return { where: "browser", packets, ms: { preprocess: cropMs, encoder: encoded - begin, coding } };
    },
  };
}

/** Return the packets of one latent {data, rows, cols} at all levels: by context where the bundle has contexts. */
export function encodeLevels({ data, rows, cols }, { levels, fingerprint }, { tables, contexts }) {
  return Array.from({ length: levels }, (_, level) => {
    const symbols = quantise(data, level, tables);
    const runs = contexts && runsOf(symbols, level, rows, cols, contexts);
    const payload = runs ? encodeRuns(runs, contexts) : encodePayload(symbols, level, tables);
    return pack({ level, coding: runs ? BY_CONTEXT : BY_CHANNEL, fingerprint, rows, cols, payload });
  });
}

function serverEncoder(bundle, reason) {
  return {
    where: "server",
    reason,
    async encode({ blob, signal }) {
      if (blob.size > bundle.limits.encode_bytes) {
        const most = Math.floor(bundle.limits.encode_bytes / 1e6);
        throw new Error(`This file is larger than ${most} MB, the most that the server takes. Choose a smaller one.`);
      }
      const answer = await postForJson("encode", blob, { signal });
      const packets = answer.packets.map((text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
      return { where: "server", packets, ms: answer.ms };
    },
  };
}
