/** The way to the server and back. Every failure becomes a ServerError with a sentence for people. */

const BASE = new URL("..", import.meta.url); // .../demo/

let token = "";

/** Send this bearer token from now on. */
export function useToken(text) {
  token = text.trim();
}

/** A refusal, or nobody there. `status` is 0 where nobody answered. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** GET JSON below /demo/. */
export async function getJson(path) {
  return (await request(new URL(path, BASE), {})).json();
}

/** GET bytes below /demo/. */
export async function getBytes(path) {
  return new Uint8Array(await (await request(new URL(path, BASE), {})).arrayBuffer());
}

/** POST a picture below /demo/ and return the answer's JSON. */
export async function postForJson(path, body, { signal } = {}) {
  return (await request(new URL(path, BASE), { method: "POST", body, signal })).json();
}

/** Send a JPEG, for the uncompressed networks of all `tasks` to answer. */
export async function askTeachers(jpeg, { tasks, signal }) {
  return postForJson(`picture?tasks=${named(tasks)}`, jpeg, { signal });
}

/** Send a packet to the edge, for all `tasks`, boxes from `score` on: {answer, link}, the milliseconds of the link. */
export async function askEdge(packet, { tasks, score, signal }) {
  const url = new URL(`../v1/answer?top=5&score=${score}&tasks=${named(tasks)}`, BASE);
  const begin = performance.now();
  const answer = await (await request(url, { method: "POST", body: packet, signal })).json();
  const whole = performance.now() - begin;
  const inside = Object.values(answer.ms).reduce((sum, ms) => sum + ms, 0);
  return { answer, link: Math.max(0, whole - inside) };
}

const named = (tasks) => tasks.map(encodeURIComponent).join(",");

async function request(url, { method = "GET", body, signal }) {
  if (body instanceof Blob) body = await body.arrayBuffer(); // a file that has gone fails here, by its own name
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (body) headers["content-type"] = "application/octet-stream";
  let response;
  try {
    response = await fetch(url, { method, body, signal, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is splitcodec serve --demo still running?", 0);
  }
  if (response.ok) return response;
  throw new ServerError(await told(response), response.status);
}

async function told(response) {
  let detail = "";
  try {
    const problem = await response.json();
    detail = `${problem.title}: ${problem.detail}`;
  } catch {
    detail = response.statusText;
  }
  if (response.status === 401) return "The server asks for a token.";
  if (response.status === 413) return "The server refused this: it is larger than it takes.";
  if (response.status === 429 || response.status === 503) {
    const seconds = response.headers.get("retry-after");
    return `The server is busy. Try again${seconds ? ` in ${seconds} s` : " in a moment"}.`;
  }
  return `The server refused this (${response.status}). ${detail}`;
}
