// The cluster at a glance: nodes, what is asked of them and used, pods by phase, what needs attention, what happened.

import { bytes, cores, nodeState, podState, quantity, requested } from "../lib/format.js";
import { byId, collectionPath, EVENT_COLUMNS, eventTime, linkTo } from "../lib/kinds.js";
import { useHistory, Usage } from "../lib/chart.js";
import { useLive } from "../lib/live.js";
import { Table } from "../lib/table.js";
import { Card, Empty, href, html, Meter, Notice, State } from "../lib/ui.js";

const TONES = [["ok", "Running"], ["busy", "On the way"], ["bad", "Failing"], ["done", "Completed"]];

const Tile = ({ to, label, value, children }) => html`<a class="tile" href=${to}><span>${label}</span><b>${value}</b><small>${children}</small></a>`;

function Phases({ pods }) {
  const counts = Object.fromEntries(TONES.map(([tone]) => [tone, 0]));
  for (const pod of pods) {
    const tone = podState(pod)[1];
    counts[tone in counts ? tone : "busy"] += 1;
  }
  return html`<div class="phases"><div class="stack" role="img" aria-label=${TONES.map(([tone, text]) => `${counts[tone]} ${text}`).join(", ")}>
    ${TONES.map(([tone]) => counts[tone] > 0 && html`<i key=${tone} class=${tone} style=${{ flexGrow: counts[tone] }}></i>`)}</div>
    <ul>${TONES.map(([tone, text]) => html`<li key=${tone}><span class="state ${tone}"><i></i>${text}</span><b>${counts[tone]}</b></li>`)}</ul></div>`;
}

function Capacity({ nodes, pods }) {
  const { history } = useHistory("nodes");
  const total = (resource) => nodes.items.reduce((sum, node) => sum + quantity(node.status?.allocatable?.[resource]), 0);
  return html`<${Card} title="Capacity">
    <${Meter} label="CPU requested" value=${requested(pods.items, "cpu")} limit=${total("cpu")} show=${cores} />
    <${Meter} label="Memory requested" value=${requested(pods.items, "memory")} limit=${total("memory")} show=${bytes} />
    ${history?.times.length > 0 && html`<${Meter} label="CPU used" value=${history.cpu.at(-1) ?? 0} limit=${total("cpu")} show=${cores} />
      <${Meter} label="Memory used" value=${history.memory.at(-1) ?? 0} limit=${total("memory")} show=${bytes} />`}
    <${Meter} label="Pods" value=${pods.items.filter((pod) => pod.spec.nodeName && podState(pod)[1] !== "done").length} limit=${total("pods")} show=${String} />
  </${Card}>`;
}

function Overview({ namespace }) {
  const at = (id) => collectionPath(byId[id], namespace);
  const nodes = useLive(at("nodes"));
  const pods = useLive(at("pods"));
  const deployments = useLive(at("deployments"));
  const jobs = useLive(at("jobs"));
  const events = useLive(namespace ? `/api/v1/namespaces/${encodeURIComponent(namespace)}/events` : "/api/v1/events");
  const ready = nodes.items.filter((node) => nodeState(node)[1] !== "bad").length;
  const running = pods.items.filter((pod) => podState(pod)[1] === "ok").length;
  const available = deployments.items.filter((d) => (d.status?.availableReplicas ?? 0) >= (d.spec.replicas ?? 1)).length;
  const active = jobs.items.filter((job) => job.status?.active).length;
  const failing = pods.items.filter((pod) => podState(pod)[1] === "bad");
  const newest = [...events.items].sort((a, b) => Date.parse(eventTime(b)) - Date.parse(eventTime(a)));
  const warnings = newest.filter((event) => event.type === "Warning");
  const errors = [nodes, pods, deployments, jobs, events].map((one) => one.error).filter(Boolean);
  return html`<div class="page overview"><h1>Overview${namespace && html` <small>of ${namespace}</small>`}</h1>
    ${errors.slice(0, 3).map((error) => html`<${Notice} key=${error.message} error=${error} />`)}
    <div class="tiles">
      <${Tile} to=${href("nodes")} label="Nodes" value=${`${ready}/${nodes.items.length}`}>ready</${Tile}>
      <${Tile} to=${href("pods")} label="Pods" value=${`${running}/${pods.items.length}`}>running</${Tile}>
      <${Tile} to=${href("deployments")} label="Deployments" value=${`${available}/${deployments.items.length}`}>available</${Tile}>
      <${Tile} to=${href("jobs")} label="Jobs" value=${`${active}/${jobs.items.length}`}>active</${Tile}>
      <${Tile} to=${href("events")} label="Warnings" value=${warnings.length}>events kept</${Tile}>
    </div>
    <div class="columns">
      <${Card} title="Pods"><${Phases} pods=${pods.items} />
        ${failing.length > 0 && html`<ul class="attention">${failing.slice(0, 8).map((pod) => html`<li key=${pod.metadata.uid}>
          <a href=${linkTo(byId.pods)(pod)}>${pod.metadata.name}</a><${State} of=${podState(pod)} /></li>`)}
          ${failing.length > 8 && html`<li class="quiet">and ${failing.length - 8} more</li>`}</ul>`}
      </${Card}>
      <${Capacity} nodes=${nodes} pods=${pods} />
    </div>
    <${Usage} kind="nodes" title="Usage of all nodes in the last hour" />
    <${Card} title="Warnings">${warnings.length
      ? html`<${Table} short label="warnings" columns=${EVENT_COLUMNS} items=${warnings.slice(0, 6)} />` : html`<${Empty}>No warnings.</${Empty}>`}</${Card}>
    <${Card} title="Newest events">${newest.length
      ? html`<${Table} short label="newest events" columns=${EVENT_COLUMNS} items=${newest.slice(0, 10)} />` : html`<${Empty}>Nothing has happened of late.</${Empty}>`}</${Card}>
  </div>`;
}

export default { id: "overview", title: "Overview", group: "", key: "o", view: Overview };
