// The kinds that have pages: where they are in the API, and their columns. A column's value is what is sorted and
// filtered; `cell` shows it otherwise; `wide` columns are left out on a phone, where `narrow` is the width of others.

import { bytes, condition, nodeState, podState, quantity, readyContainers, restarts, selectorText, took } from "./format.js";
import { Age, href, html, State } from "./ui.js";

export const name = { title: "Name", value: (o) => o.metadata.name, width: "minmax(11rem, 2.4fr)" };
export const namespace = { title: "Namespace", value: (o) => o.metadata.namespace ?? "", wide: true, width: "minmax(6rem, 1fr)" };
export const age = {
  title: "Age", value: (o) => o.metadata.creationTimestamp, sort: (o) => -Date.parse(o.metadata.creationTimestamp),
  cell: (o) => html`<${Age} time=${o.metadata.creationTimestamp} />`, width: "4.5rem", number: true, narrow: "2.8rem",
};
const text = (title, value, more = {}) => ({ title, value: (o) => value(o) ?? "", ...more });
const count = (title, value, more = {}) => ({ title, value: (o) => Number(value(o) ?? 0), number: true, width: "6rem", ...more });
const state = (value, title = "Status") => ({ title, value: (o) => value(o)[0], cell: (o) => html`<${State} of=${value(o)} />`, width: "minmax(8rem, 1fr)", narrow: "minmax(0, 1.7fr)" });

const rollout = (o) => {
  const wanted = o.spec.replicas ?? 1;
  const ready = o.status?.availableReplicas ?? 0;
  if (condition(o, "Progressing")?.reason === "ProgressDeadlineExceeded") return ["Stuck", "bad"];
  return ready >= wanted && (o.status?.updatedReplicas ?? wanted) >= wanted ? ["Available", wanted ? "ok" : "done"] : ["Progressing", "busy"];
};
const daemons = (o) => {
  const { desiredNumberScheduled: wanted = 0, numberAvailable: ready = 0 } = o.status ?? {};
  return ready >= wanted ? ["Available", "ok"] : ["Progressing", "busy"];
};
export const jobState = (o) => {
  if (condition(o, "Failed")?.status === "True") return ["Failed", "bad"];
  if (condition(o, "Complete")?.status === "True") return ["Complete", "done"];
  return o.spec.suspend ? ["Suspended", "none"] : ["Running", "busy"];
};
const images = (o) => o.spec.template.spec.containers.map((c) => c.image).join(", ");
const ready = (value) => text("Ready", value, { width: "6rem", number: true });
const image = text("Images", images, { wide: true, width: "minmax(8rem, 2fr)" });
const ports = (o) => (o.spec.ports ?? []).map((p) => `${p.port}${p.nodePort ? `:${p.nodePort}` : ""}/${p.protocol ?? "TCP"}`).join(", ");
const external = (o) => (o.status?.loadBalancer?.ingress ?? []).map((i) => i.ip ?? i.hostname).concat(o.spec.externalIPs ?? []).join(", ");

function metrics(o) {
  const current = new Map((o.status?.currentMetrics ?? []).map((m) => [(m.resource ?? m.containerResource)?.name, (m.resource ?? m.containerResource)?.current]));
  return (o.spec.metrics ?? []).map((m) => {
    const { name: what, target = {} } = m.resource ?? m.containerResource ?? { name: m.type };
    const now = current.get(what);
    const seen = now?.averageUtilization != null ? `${now.averageUtilization}%` : now?.averageValue ?? "unknown";
    return `${what} ${seen} of ${target.averageUtilization != null ? `${target.averageUtilization}%` : target.averageValue ?? target.value ?? "?"}`;
  }).join(", ");
}

const FAAS = "faas.minik8s.io";
const PHASES = { Succeeded: "done", Failed: "bad", TimedOut: "bad", Lost: "bad", Aborted: "none", Cancelled: "none" };
export const phaseOf = (o) => [o.status?.phase || "Pending", PHASES[o.status?.phase] ?? "busy"];
const readiness = (o, type = "Ready") => {
  const found = condition(o, type);
  if (found?.status === "True") return [type, "ok"];
  return [found?.reason || (found ? `Not ${type.toLowerCase()}` : "Unknown"), found?.status === "False" ? "bad" : "busy"];
};
export const definitionOf = (o) => (typeof o.spec.definition === "object" && o.spec.definition) || {};
const when = (o) => (o.spec.cron ? `${o.spec.cron.schedule} ${o.spec.cron.timeZone ?? ""}`.trim() : o.spec.http ? `${o.spec.http.method || "any"} ${o.spec.http.path}` : "");

const pod = [
  name, namespace, state(podState),
  text("Ready", readyContainers, { width: "4.5rem", number: true, wide: true }), count("Restarts", restarts, { width: "6rem", wide: true }),
  text("Node", (o) => o.spec.nodeName, { wide: true }), text("IP", (o) => o.status?.podIP, { wide: true, width: "8rem" }), age,
];

const kind = (id, kindName, group, version, namespaced, title, columns, more = {}) => ({ id, kind: kindName, group, version, namespaced, title, columns, ...more });

export const KINDS = [
  kind("nodes", "Node", "", "v1", false, "Nodes", [
    name, state(nodeState), text("Roles", (o) => Object.keys(o.metadata.labels ?? {}).filter((l) => l.startsWith("node-role.kubernetes.io/")).map((l) => l.split("/")[1]).join(", ") || "–", { wide: true }),
    text("Version", (o) => o.status?.nodeInfo?.kubeletVersion, { wide: true }),
    text("Address", (o) => o.status?.addresses?.find((a) => a.type === "InternalIP")?.address, { width: "8rem" }),
    text("CPU", (o) => o.status?.capacity?.cpu, { number: true, width: "4rem", wide: true }),
    { title: "Memory", value: (o) => bytes(quantity(o.status?.capacity?.memory ?? "0")), sort: (o) => quantity(o.status?.capacity?.memory ?? "0"), number: true, width: "7rem", wide: true }, age,
  ]),
  kind("deployments", "Deployment", "apps", "v1", true, "Deployments", [
    name, namespace, state(rollout), ready((o) => `${o.status?.readyReplicas ?? 0}/${o.spec.replicas ?? 1}`), image, age], { scale: true, restart: true, pods: true }),
  kind("replicasets", "ReplicaSet", "apps", "v1", true, "ReplicaSets", [
    name, namespace, count("Desired", (o) => o.spec.replicas), count("Ready", (o) => o.status?.readyReplicas), { ...image }, age], { scale: true, pods: true }),
  kind("daemonsets", "DaemonSet", "apps", "v1", true, "DaemonSets", [
    name, namespace, state(daemons), ready((o) => `${o.status?.numberReady ?? 0}/${o.status?.desiredNumberScheduled ?? 0}`), image, age], { restart: true, pods: true }),
  kind("jobs", "Job", "batch", "v1", true, "Jobs", [
    name, namespace, state(jobState), text("Done", (o) => `${o.status?.succeeded ?? 0}/${o.spec.completions ?? 1}`, { number: true, width: "6rem" }),
    count("Failed", (o) => o.status?.failed, { wide: true }), image, age], { pods: true }),
  kind("pods", "Pod", "", "v1", true, "Pods", pod),
  kind("services", "Service", "", "v1", true, "Services", [
    name, namespace, text("Type", (o) => o.spec.type, { wide: true }), text("Cluster IP", (o) => o.spec.clusterIP, { width: "8rem" }),
    text("External", external, { wide: true }), text("Ports", ports, { width: "minmax(7rem, 1.4fr)" }), age]),
  kind("ingresses", "Ingress", "networking.k8s.io", "v1", true, "Ingresses", [
    name, namespace, text("Hosts", (o) => (o.spec.rules ?? []).map((r) => r.host || "*").join(", "), { width: "minmax(8rem, 2fr)" }),
    text("Address", external, { wide: true }), age]),
  kind("horizontalpodautoscalers", "HorizontalPodAutoscaler", "autoscaling", "v2", true, "Autoscalers", [
    name, namespace, text("Scales", (o) => `${o.spec.scaleTargetRef?.kind}/${o.spec.scaleTargetRef?.name}`, { wide: true, width: "minmax(8rem, 1.4fr)" }),
    text("Metrics", metrics, { width: "minmax(8rem, 1.6fr)" }),
    text("Replicas", (o) => `${o.status?.currentReplicas ?? 0} (${o.spec.minReplicas ?? 1}–${o.spec.maxReplicas})`, { width: "7rem", number: true }), age]),
  kind("configmaps", "ConfigMap", "", "v1", true, "ConfigMaps", [
    name, namespace, text("Keys", (o) => [...Object.keys(o.data ?? {}), ...Object.keys(o.binaryData ?? {})].join(", "), { width: "minmax(8rem, 3fr)" }), age]),
  kind("secrets", "Secret", "", "v1", true, "Secrets", [
    name, namespace, text("Type", (o) => o.type, { wide: true, width: "minmax(8rem, 2fr)" }), text("Keys", (o) => Object.keys(o.data ?? {}).join(", "), { width: "minmax(8rem, 2fr)" }), age]),
  kind("functions", "Function", FAAS, "v1", true, "Functions", [
    name, namespace, state(readiness), text("Replicas", (o) => `${o.status?.replicas ?? 0}/${o.status?.desiredReplicas ?? 0}`, { number: true, width: "6rem" }),
    text("Revision", (o) => o.status?.readyRevision, { wide: true, width: "minmax(7rem, 1fr)" }), text("Why", (o) => o.status?.reason, { wide: true, width: "minmax(8rem, 2fr)" }), age]),
  kind("functionrevisions", "FunctionRevision", FAAS, "v1", true, "Revisions", [
    name, namespace, text("Function", (o) => o.spec.function, { width: "minmax(7rem, 1fr)" }), state(readiness), text("Contract", (o) => o.status?.contract, { wide: true }), age]),
  kind("triggers", "Trigger", FAAS, "v1", true, "Triggers", [
    name, namespace, text("Function", (o) => o.spec.function, { width: "minmax(7rem, 1fr)" }), text("When", when, { width: "minmax(8rem, 1.6fr)" }), state((o) => readiness(o, "Accepted"), "Accepted"), age]),
  kind("environments", "Environment", FAAS, "v1", true, "Environments", [
    name, namespace, state(readiness), text("Requirements", (o) => [o.spec.requirements ?? []].flat().join(", "), { wide: true, width: "minmax(8rem, 2fr)" }), count("Pool", (o) => o.status?.pool, { width: "5rem" }), age]),
  kind("workflows", "Workflow", FAAS, "v1", true, "Workflows", [
    name, namespace, count("States", (o) => Object.keys(definitionOf(o).States ?? {}).length), text("Comment", (o) => definitionOf(o).Comment, { wide: true, width: "minmax(8rem, 3fr)" }), age]),
  kind("workflowruns", "WorkflowRun", FAAS, "v1", true, "Runs", [
    name, namespace, text("Workflow", (o) => o.spec.workflowRef?.name ?? `function/${o.spec.functionRef?.name}`, { wide: true, width: "minmax(7rem, 1fr)" }), state(phaseOf),
    text("State", (o) => (o.status?.currentStates ?? []).join(", "), { width: "minmax(6rem, 1.4fr)" }), count("Events", (o) => o.status?.events, { wide: true, width: "5rem" }),
    { title: "Took", value: (o) => took(o.status), number: true, width: "5rem", wide: true }, age]),
  kind("gpujobs", "GpuJob", "hpc.minik8s.io", "v1", true, "GPU jobs", [
    name, namespace, state(phaseOf), text("Slurm ID", (o) => o.status?.jobId, { wide: true, width: "6rem" }), text("Cluster", (o) => o.status?.clusterName || o.spec.clusterName, { wide: true }),
    text("Partition", (o) => o.status?.partition || o.spec.resources?.partition, { wide: true }), text("Reason", (o) => o.status?.reason, { wide: true }), age]),
  kind("hpcclusters", "HpcCluster", "hpc.minik8s.io", "v1", true, "Supercomputers", [
    name, namespace, state((o) => readiness(o, "Reachable"), "Reachable"), text("Host", (o) => o.spec.host ?? o.spec.type, { width: "minmax(8rem, 2fr)" }), age]),
  kind("namespaces", "Namespace", "", "v1", false, "Namespaces", [name, state((o) => [o.status?.phase ?? "", o.status?.phase === "Active" ? "ok" : "busy"]), age]),
];

export const EVENT_COLUMNS = [
  { title: "Last seen", value: (o) => eventTime(o), sort: (o) => -Date.parse(eventTime(o)), cell: (o) => html`<${Age} time=${eventTime(o)} />`, width: "6rem", narrow: "2.8rem" },
  { title: "Type", value: (o) => o.type, cell: (o) => html`<${State} of=${[o.type, o.type === "Warning" ? "bad" : "none"]} />`, width: "7rem", wide: true },
  text("Reason", (o) => o.reason, { width: "minmax(7rem, 1fr)" }),
  { title: "Object", value: (o) => `${o.involvedObject.kind}/${o.involvedObject.name}`, cell: (o) => involved(o), width: "minmax(8rem, 1.6fr)" },
  text("Message", (o) => o.message, { width: "minmax(8rem, 3fr)" }),
  count("Count", (o) => o.series?.count ?? o.count ?? 1, { width: "5rem", wide: true }),
];

export const eventTime = (o) => o.series?.lastObservedTime || o.lastTimestamp || o.eventTime || o.metadata.creationTimestamp;

function involved(event) {
  const { kind: kindName, name: objectName, namespace: where } = event.involvedObject;
  const found = KINDS.find((one) => one.kind === kindName);
  const shown = `${kindName}/${objectName}`;
  return found ? html`<a href=${href(found.id, found.namespaced ? where : "", objectName)}>${shown}</a>` : shown;
}

export const byId = Object.fromEntries(KINDS.map((one) => [one.id, one]));
export const byKind = Object.fromEntries(KINDS.map((one) => [one.kind, one]));

const base = ({ group, version }) => (group ? `/apis/${group}/${version}` : `/api/${version}`);
export const collectionPath = (of, where) => `${base(of)}${of.namespaced && where ? `/namespaces/${encodeURIComponent(where)}` : ""}/${of.id}`;
export const objectPath = (of, where, objectName) => `${collectionPath(of, where)}/${encodeURIComponent(objectName)}`;
export const linkTo = (of) => (o) => href(of.id, o.metadata.namespace ?? "", o.metadata.name);
export { selectorText };
