// Numbers, times and states as people read them. Pure.

// How long it took, or has taken so far.
export function took({ startTime, completionTime } = {}, now = Date.now()) {
  if (!startTime) return "";
  return duration(((completionTime ? Date.parse(completionTime) : now) - Date.parse(startTime)) / 1000);
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

export function age(time, now = Date.now()) {
  if (!time) return "";
  const seconds = Math.max(0, Math.floor((now - Date.parse(time)) / 1000));
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours}h` : `${Math.floor(hours / 24)}d`;
}

const UNITS = {
  "": 1, n: 1e-9, u: 1e-6, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18,
  Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60,
};

export function quantity(text) {
  const match = /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)$/.exec(String(text ?? "0"));
  return match && match[2] in UNITS ? Number(match[1]) * UNITS[match[2]] : 0;
}

export function bytes(value) {
  if (value == null) return "–";
  for (const [unit, size] of [["Ti", 2 ** 40], ["Gi", 2 ** 30], ["Mi", 2 ** 20], ["Ki", 2 ** 10]]) {
    if (value >= size) return `${short(value / size)} ${unit}B`;
  }
  return `${Math.round(value)} B`;
}

export function cores(value) {
  if (value == null) return "–";
  return value >= 1 ? short(value) : `${Math.round(value * 1000)}m`;
}

const short = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)).replace(/\.0+$/, "");

export const condition = (object, type) => (object.status?.conditions ?? []).find((c) => c.type === type);

// [text, tone] of a pod, as kubectl has it; tones are ok, busy, bad, done, none.
export function podState(pod) {
  const status = pod.status ?? {};
  if (pod.metadata.deletionTimestamp) return ["Terminating", "busy"];
  if (status.reason) return [status.reason, status.phase === "Failed" ? "bad" : "busy"];
  for (const container of status.initContainerStatuses ?? []) {
    const waiting = container.state?.waiting?.reason;
    if (waiting && waiting !== "PodInitializing") return [`Init:${waiting}`, "bad"];
    if (container.state?.terminated?.exitCode) return ["Init:Error", "bad"];
  }
  for (const container of status.containerStatuses ?? []) {
    const { waiting, terminated } = container.state ?? {};
    if (waiting?.reason) return [waiting.reason, /Creating|Initializing/.test(waiting.reason) ? "busy" : "bad"];
    if (terminated && terminated.exitCode) return [terminated.reason || "Error", "bad"];
  }
  const tones = { Running: "ok", Pending: "busy", Succeeded: "done", Failed: "bad" };
  if (status.phase === "Running" && condition(pod, "Ready")?.status === "False") return ["Running", "busy"];
  return [status.phase === "Succeeded" ? "Completed" : status.phase || "Unknown", tones[status.phase] || "none"];
}

export const restarts = (pod) => (pod.status?.containerStatuses ?? []).reduce((sum, c) => sum + (c.restartCount ?? 0), 0);
export const readyContainers = (pod) =>
  `${(pod.status?.containerStatuses ?? []).filter((c) => c.ready).length}/${pod.spec?.containers?.length ?? 0}`;

export function requested(pods, resource) {
  let sum = 0;
  for (const pod of pods) {
    if (!pod.spec?.nodeName || pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed") continue;
    for (const container of pod.spec?.containers ?? []) sum += quantity(container.resources?.requests?.[resource]);
  }
  return sum;
}

export function nodeState(node) {
  const ready = condition(node, "Ready")?.status === "True";
  const text = ready ? "Ready" : condition(node, "Ready") ? "NotReady" : "Unknown";
  return node.spec?.unschedulable ? [`${text}, no new pods`, ready ? "busy" : "bad"] : [text, ready ? "ok" : "bad"];
}

export const selectorText = (labels) => Object.entries(labels ?? {}).map(([key, value]) => `${key}=${value}`).join(",");
