// The session, and requests to the API as its user. An error is thrown as a Failure with the API's own message.

export const session = { user: "", groups: [], csrf: "", write: false, version: "" };

export class Failure extends Error {
  constructor(message, code, reason) {
    super(message);
    this.code = code;
    this.reason = reason;
  }
}

let loggedOut = () => {};
export const onLoggedOut = (callback) => { loggedOut = callback; };

async function ask(path, { method = "GET", body, type = "application/json", headers = {} } = {}) {
  const all = { ...headers };
  if (method !== "GET") all["X-CSRF-Token"] = session.csrf;
  if (body !== undefined) all["Content-Type"] = type;
  let answer;
  try {
    answer = await fetch(path, { method, headers: all, body, credentials: "same-origin", cache: "no-store" });
  } catch {
    throw new Failure("The dashboard cannot be reached.", 0, "Unreachable");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let status = {};
  try { status = JSON.parse(text); } catch { status = { message: text }; }
  if (answer.status === 401 && path !== "/session") loggedOut();
  throw new Failure(status.message || `HTTP ${answer.status}`, answer.status, status.reason || "");
}

// Is somebody logged in? A server that does not answer is thrown.
export async function resume() {
  Object.assign(session, await (await ask("/session")).json());
  return session.user !== "";
}

// After a broken connection: is the session still there? A server that does not answer says nothing about that.
export const check = () => resume().then((known) => known || loggedOut(), () => {});

export async function login(credentials) {
  const answer = await ask("/session", { method: "POST", body: JSON.stringify({ credentials }) });
  Object.assign(session, await answer.json());
}

export async function logout() {
  await ask("/session", { method: "DELETE" }).catch(() => {});
  loggedOut();
}

export const get = async (path) => (await ask(path)).json();
export const metadata = async (path) => (await ask(path, { headers: { "X-Metadata-Only": "1" } })).json();
export const text = async (path) => (await ask(path)).text();
export const bytesOf = async (path) => (await ask(path)).arrayBuffer();
export const remove = async (path) => (await ask(path, { method: "DELETE" })).json();
export const post = async (path, object) => (await ask(path, { method: "POST", body: JSON.stringify(object) })).json();
export const patch = async (path, change, type = "application/merge-patch+json") =>
  (await ask(path, { method: "PATCH", body: JSON.stringify(change), type })).json();
export const readYaml = (path) => text(`/yaml${path}`);
export const writeYaml = async (path, yaml, dryRun) =>
  (await ask(`/yaml${path}${dryRun ? "?dryRun=All" : ""}`, { method: "PUT", body: yaml, type: "text/plain" })).text();

const answers = new Map();

// May the user do this? Asked of the API once; what the dashboard itself forbids is no.
export function may(verb, group, resource, namespace = "", subresource = "") {
  if (!session.write) return Promise.resolve(false);
  const key = [session.user, verb, group, resource, namespace, subresource].join("|");
  if (!answers.has(key)) {
    const spec = { resourceAttributes: { verb, group, resource, namespace, subresource } };
    const review = { apiVersion: "authorization.k8s.io/v1", kind: "SelfSubjectAccessReview", spec };
    const asked = post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).then((r) => !!r.status?.allowed);
    answers.set(key, asked.catch(() => { answers.delete(key); return false; }));
  }
  return answers.get(key);
}
