// What one object of a kind shows besides what all have: PARTS[id] is a component that is given {object}.

import { Usage } from "../lib/chart.js";
import { bytes, cores, podState, quantity, requested, selectorText } from "../lib/format.js";
import { byId, byKind, collectionPath, linkTo } from "../lib/kinds.js";
import { useLive } from "../lib/live.js";
import { Logs } from "../lib/logs.js";
import { Terminal } from "../lib/terminal.js";
import { Table } from "../lib/table.js";
import { Card, Empty, Fields, href, html, Labels, Meter, Notice, State } from "../lib/ui.js";

import { Calls, FunctionPart } from "./function.js";
import { ClusterPart, JobPart, Output, Results } from "./gpujob.js";
import { History, RunPart, WorkflowPart } from "./workflow.js";

export const Owned = ({ by, namespace }) => by.map((owner) => {
  const kind = byKind[owner.kind];
  const shown = `${owner.kind}/${owner.name}`;
  return kind ? html`<a key=${owner.uid} href=${href(kind.id, kind.namespaced ? namespace : "", owner.name)}>${shown}</a>` : shown;
});

function Pods({ title = "Pods", path, query, without = [] }) {
  const { items, loaded, error } = useLive(path, query);
  const columns = byId.pods.columns.filter((column) => !without.includes(column.title));
  return html`<${Card} title=${title} aside=${html`<span class="quiet">${items.length}</span>`}><${Notice} error=${error} />
    ${loaded && !items.length && !error ? html`<${Empty}>There are none.</${Empty}>`
      : html`<${Table} short=${items.length <= 12} label=${title} columns=${columns} items=${items} loaded=${loaded} open=${linkTo(byId.pods)} />`}</${Card}>`;
}

function selector({ matchLabels, matchExpressions }) {
  const written = { In: (e) => `${e.key} in (${e.values.join(",")})`, NotIn: (e) => `${e.key} notin (${e.values.join(",")})`, Exists: (e) => e.key, DoesNotExist: (e) => `!${e.key}` };
  return [selectorText(matchLabels), ...(matchExpressions ?? []).map((e) => written[e.operator](e))].filter(Boolean).join(",");
}

function Workload({ object }) {
  const { spec, status = {}, metadata } = object;
  const labels = selector(spec.selector ?? {});
  return html`<${Card} title="Workload"><${Fields} of=${[
    ["Replicas", spec.replicas], ["Updated", status.updatedReplicas], ["Ready", status.readyReplicas ?? status.numberReady], ["Available", status.availableReplicas ?? status.numberAvailable],
    ["Strategy", (spec.strategy ?? spec.updateStrategy)?.type], ["Completions", spec.completions], ["Parallelism", spec.parallelism],
    ["Succeeded", status.succeeded], ["Failed", status.failed], ["Selector", labels],
    ["Images", spec.template?.spec.containers.map((c) => c.image).join(", ")],
  ]} /></${Card}>
  ${labels && html`<${Pods} path=${collectionPath(byId.pods, metadata.namespace)} query=${{ labelSelector: labels }} without=${["Namespace"]} />`}`;
}

function containerState({ state = {}, ready } = {}) {
  if (state.running) return [ready ? "Running" : "Running, not ready", ready ? "ok" : "busy"];
  if (state.terminated) return [`${state.terminated.reason || "Ended"} (${state.terminated.exitCode})`, state.terminated.exitCode ? "bad" : "done"];
  return [state.waiting?.reason ?? "Waiting", /BackOff|Err|Invalid/.test(state.waiting?.reason ?? "") ? "bad" : "busy"];
}

function Container({ spec, status, first }) {
  const amounts = (of) => Object.entries(of ?? {}).map(([key, value]) => `${key} ${value}`).join(", ");
  return html`<li><header><b>${spec.name}</b>${first && html`<span class="quiet">first</span>`}<${State} of=${containerState(status)} /></header>
    <${Fields} of=${[
      ["Image", spec.image], ["Command", [...(spec.command ?? []), ...(spec.args ?? [])].join(" ")],
      ["Ports", (spec.ports ?? []).map((p) => `${p.containerPort}/${p.protocol ?? "TCP"}`).join(", ")],
      ["Requests", amounts(spec.resources?.requests)], ["Limits", amounts(spec.resources?.limits)], ["Restarts", status?.restartCount],
      ["Ended last", status?.lastState?.terminated && `${status.lastState.terminated.reason} (${status.lastState.terminated.exitCode})`],
      ["Message", status?.state?.waiting?.message ?? status?.state?.terminated?.message],
      ["Mounts", (spec.volumeMounts ?? []).map((m) => `${m.mountPath} ← ${m.name}`).join(", ")],
      ["Environment", (spec.env ?? []).map((e) => e.name).join(", ")],
    ]} /></li>`;
}

function Pod({ object }) {
  const { spec, status = {}, metadata } = object;
  const of = (list, name) => (list ?? []).find((one) => one.name === name);
  const sum = (resource) => spec.containers.reduce((all, c) => all + quantity(c.resources?.limits?.[resource]), 0);
  return html`<${Card} title="Pod"><${Fields} of=${[
    ["Status", html`<${State} of=${podState(object)} />`], ["Node", spec.nodeName && html`<a href=${href("nodes", "", spec.nodeName)}>${spec.nodeName}</a>`],
    ["IP", status.podIP], ["Quality", status.qosClass], ["Priority", spec.priority], ["Service account", spec.serviceAccountName], ["Message", status.message],
  ]} /></${Card}>
  <${Card} title="Containers"><ul class="containers">
    ${(spec.initContainers ?? []).map((c) => html`<${Container} key=${c.name} first spec=${c} status=${of(status.initContainerStatuses, c.name)} />`)}
    ${spec.containers.map((c) => html`<${Container} key=${c.name} spec=${c} status=${of(status.containerStatuses, c.name)} />`)}</ul></${Card}>
  <${Usage} kind="pods" namespace=${metadata.namespace} name=${metadata.name} limits=${{ cpu: sum("cpu"), memory: sum("memory") }} />`;
}

function Node({ object }) {
  const { status = {}, spec = {}, metadata } = object;
  const path = collectionPath(byId.pods, "");
  const query = { fieldSelector: `spec.nodeName=${metadata.name}` };
  const pods = useLive(path, query);
  const allocatable = (resource) => quantity(status.allocatable?.[resource]);
  return html`<div class="columns"><${Card} title="Machine"><${Fields} of=${[
    ["Addresses", (status.addresses ?? []).map((a) => a.address).join(", ")], ["Operating system", status.nodeInfo?.osImage], ["Kernel", status.nodeInfo?.kernelVersion],
    ["Engine", html`<a href=${href("engine", metadata.name)}>${status.nodeInfo?.containerRuntimeVersion || "containers"}</a>`], ["Version", status.nodeInfo?.kubeletVersion], ["Architecture", status.nodeInfo?.architecture], ["Pod range", spec.podCIDR],
    ["Taints", (spec.taints ?? []).map((t) => `${t.key}${t.value ? `=${t.value}` : ""}:${t.effect}`).join(", ")],
    ["Also has", Object.entries(status.allocatable ?? {}).filter(([key]) => key.includes("/")).map(([key, value]) => `${key} ${value}`).join(", ")],
  ]} /></${Card}>
  <${Card} title="Requested">
    <${Meter} label="CPU" value=${requested(pods.items, "cpu")} limit=${allocatable("cpu")} show=${cores} />
    <${Meter} label="Memory" value=${requested(pods.items, "memory")} limit=${allocatable("memory")} show=${bytes} />
    <${Meter} label="Pods" value=${pods.items.length} limit=${allocatable("pods")} show=${String} /></${Card}></div>
  <${Usage} kind="nodes" name=${metadata.name} limits=${{ cpu: allocatable("cpu"), memory: allocatable("memory") }} />
  <${Pods} path=${path} query=${query} without=${["Node"]} />`;
}

const ENDPOINTS = [
  { title: "Address", value: (e) => e.address, width: "9rem" }, { title: "Pod", value: (e) => e.pod, cell: (e) => (e.pod ? html`<a href=${href("pods", e.namespace, e.pod)}>${e.pod}</a>` : ""), width: "minmax(8rem, 2fr)" },
  { title: "Node", value: (e) => e.node ?? "", wide: true }, { title: "Ports", value: (e) => e.ports, wide: true },
  { title: "Ready", value: (e) => (e.ready ? "Ready" : "Not ready"), cell: (e) => html`<${State} of=${[e.ready ? "Ready" : "Not ready", e.ready ? "ok" : "busy"]} />`, width: "8rem" },
];

function Service({ object }) {
  const { spec, metadata } = object;
  const slices = useLive(`/apis/discovery.k8s.io/v1/namespaces/${encodeURIComponent(metadata.namespace)}/endpointslices`, { labelSelector: `kubernetes.io/service-name=${metadata.name}` });
  const endpoints = slices.items.flatMap((slice) => (slice.endpoints ?? []).map((e) => ({
    metadata: { uid: `${slice.metadata.uid}/${e.addresses[0]}` }, address: e.addresses[0], pod: e.targetRef?.kind === "Pod" ? e.targetRef.name : "", namespace: metadata.namespace, node: e.nodeName,
    ports: (slice.ports ?? []).map((p) => `${p.name ? `${p.name} ` : ""}${p.port}/${p.protocol}`).join(", "), ready: e.conditions?.ready !== false,
  })));
  return html`<${Card} title="Service"><${Fields} of=${[
    ["Type", spec.type], ["Cluster IP", spec.clusterIP], ["External name", spec.externalName], ["Selector", html`<${Labels} of=${spec.selector} />`],
    ["Ports", (spec.ports ?? []).map((p) => `${p.name ? `${p.name} ` : ""}${p.port} → ${p.targetPort ?? p.port}${p.nodePort ? `, node port ${p.nodePort}` : ""}/${p.protocol ?? "TCP"}`).join("; ")],
    ["Affinity", spec.sessionAffinity === "None" ? "" : spec.sessionAffinity],
  ]} /></${Card}>
  <${Card} title="Endpoints" aside=${html`<span class="quiet">${endpoints.length}</span>`}><${Notice} error=${slices.error} />
    ${endpoints.length ? html`<${Table} short=${endpoints.length <= 12} label="endpoints" columns=${ENDPOINTS} items=${endpoints} />` : html`<${Empty}>No pod answers for this Service.</${Empty}>`}</${Card}>`;
}

function Ingress({ object }) {
  const { spec, metadata } = object;
  const backend = ({ service }) => (service ? html`<a href=${href("services", metadata.namespace, service.name)}>${service.name}:${service.port?.number ?? service.port?.name}</a>` : "");
  const rules = (spec.rules ?? []).flatMap((rule) => (rule.http?.paths ?? []).map((p) => [rule.host || "any host", p.path || "/", p.backend]));
  return html`<${Card} title="Rules"><ul class="rules">
    ${rules.map(([host, path, to], i) => html`<li key=${i}><b>${host}</b><span>${path}</span><span>→ ${backend(to)}</span></li>`)}
    ${spec.defaultBackend && html`<li><b>all else</b><span></span><span>→ ${backend(spec.defaultBackend)}</span></li>`}</ul>
    <${Fields} of=${[["Class", spec.ingressClassName], ["TLS", (spec.tls ?? []).map((t) => `${(t.hosts ?? []).join(", ")} (${t.secretName})`).join("; ")]]} /></${Card}>`;
}

function Autoscaler({ object }) {
  const { spec, status = {}, metadata } = object;
  const target = byKind[spec.scaleTargetRef?.kind];
  const metrics = byId.horizontalpodautoscalers.columns.find((column) => column.title === "Metrics").value(object);
  return html`<${Card} title="Autoscaler"><${Fields} of=${[
    ["Scales", target ? html`<a href=${href(target.id, metadata.namespace, spec.scaleTargetRef.name)}>${spec.scaleTargetRef.kind}/${spec.scaleTargetRef.name}</a>` : spec.scaleTargetRef?.name],
    ["Replicas", `${status.currentReplicas ?? 0}, wanted ${status.desiredReplicas ?? 0}`], ["Bounds", `${spec.minReplicas ?? 1} to ${spec.maxReplicas}`], ["Metrics", metrics], ["Last scaled", status.lastScaleTime],
  ]} /></${Card}>`;
}

function Data({ object }) {
  const entries = Object.entries(object.data ?? {});
  return html`<${Card} title="Data">${entries.length ? html`<ul class="data">${entries.map(([key, value]) => html`<li key=${key}><b>${key}</b><pre class="wrap">${value}</pre></li>`)}</ul>` : html`<${Empty}>It is empty.</${Empty}>`}
    ${Object.keys(object.binaryData ?? {}).map((key) => html`<p key=${key}><b>${key}</b> <span class="quiet">is binary</span></p>`)}</${Card}>`;
}

const Hidden = ({ object }) => html`<${Card} title="Data"><${Fields} of=${[["Type", object.type]]} />
  <ul class="data">${Object.keys(object.data ?? {}).map((key) => html`<li key=${key}><b>${key}</b> <span class="quiet">hidden</span></li>`)}</ul></${Card}>`;

export const PARTS = {
  workflows: WorkflowPart, workflowruns: RunPart, gpujobs: JobPart, hpcclusters: ClusterPart, functions: FunctionPart,
  deployments: Workload, replicasets: Workload, daemonsets: Workload, jobs: Workload, pods: Pod, nodes: Node, services: Service, ingresses: Ingress,
  horizontalpodautoscalers: Autoscaler, configmaps: Data, secrets: Hidden,
};
export const TABS = { pods: { logs: Logs, terminal: Terminal }, workflowruns: { history: History }, gpujobs: { output: Output, results: Results }, functions: { calls: Calls } };
