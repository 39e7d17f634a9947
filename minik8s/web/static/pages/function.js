// A function: its revisions, its replicas and why there are so many, who called it lately, and who calls whom.

import { get } from "../lib/api.js";
import { duration } from "../lib/format.js";
import { byId, collectionPath, linkTo, objectPath } from "../lib/kinds.js";
import { useLive } from "../lib/live.js";
import { Table } from "../lib/table.js";
import { Age, Card, Empty, Fields, href, html, Notice, State, useEffect, useState } from "../lib/ui.js";

const EVERY = 2000; // ms between looks at calls
const MOST = 12; // functions of a graph whose calls are asked for
const LABEL = "faas.minik8s.io/function";
const [WIDTH, HEIGHT, ACROSS, DOWN] = [150, 34, 230, 54]; // px of a box, and from one to the next

// The recent calls of functions of a namespace, and how often one handed over to another: {calls, edges, error}.
function useCalls(namespace, names) {
  const [state, set] = useState({ calls: [], edges: [], error: null, loaded: false });
  const key = names.join();
  useEffect(() => {
    let [current, timer] = [true, 0];
    const look = async () => {
      if (!document.hidden) {
        try {
          const found = await Promise.all(names.map((name) => get(`${objectPath(byId.functions, namespace, name)}/calls`)));
          const edges = new Map(found.flatMap((one) => one.edges).map((edge) => [`${edge.from}>${edge.to}`, edge]));
          if (current) set({ calls: found[0].items, edges: [...edges.values()], error: null, loaded: true });
        } catch (error) {
          if (current) set((old) => ({ ...old, error, loaded: true }));
        }
      }
      if (current) timer = setTimeout(look, EVERY);
    };
    look();
    return () => { current = false; clearTimeout(timer); };
  }, [namespace, key]);
  return state;
}

// Functions that a function is connected with, in columns from callers to called ones. Pure: {nodes, edges}.
export function callGraph(name, functions, counted) {
  const edges = new Map();
  for (const one of functions) for (const to of one.spec.invokes ?? []) edges.set(`${one.metadata.name}>${to}`, { from: one.metadata.name, to, count: 0 });
  for (const edge of counted) edges.set(`${edge.from}>${edge.to}`, edge);
  const column = new Map([[name, 0]]);
  for (let grown = true; grown;) {
    grown = false;
    for (const { from, to } of edges.values()) {
      if (column.has(from) && !column.has(to)) { column.set(to, column.get(from) + 1); grown = true; }
      else if (column.has(to) && !column.has(from)) { column.set(from, column.get(to) - 1); grown = true; }
    }
  }
  const least = Math.min(...column.values());
  const rows = new Map();
  const nodes = [...column].sort(([a], [b]) => (a < b ? -1 : 1)).map(([one, at]) => {
    const row = rows.get(at) ?? 0;
    rows.set(at, row + 1);
    return { name: one, x: 8 + (at - least) * ACROSS, y: 8 + row * DOWN };
  });
  return { nodes, edges: [...edges.values()].filter(({ from }) => column.has(from)) };
}

function Graph({ name, namespace, functions, counted }) {
  const { nodes, edges } = callGraph(name, functions, counted);
  const at = Object.fromEntries(nodes.map((node) => [node.name, node]));
  const width = Math.max(...nodes.map((node) => node.x)) + WIDTH + 8;
  const height = Math.max(...nodes.map((node) => node.y)) + HEIGHT + 8;
  const line = ({ from, to }) => {
    const [a, b] = [at[from], at[to]];
    const [x, y, tx, ty] = a.x <= b.x ? [a.x + WIDTH, a.y + HEIGHT / 2, b.x, b.y + HEIGHT / 2] : [a.x, a.y + HEIGHT / 2 + 8, b.x + WIDTH, b.y + HEIGHT / 2 + 8];
    return [`M${x} ${y}L${tx} ${ty}`, (x + tx) / 2, (y + ty) / 2 - 5];
  };
  return html`<div class="drawing"><svg viewBox="0 0 ${width} ${height}" width=${width} height=${height} font-size="13" role="img" aria-label="Who calls whom">
    <defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" /></marker></defs>
    ${edges.map((edge) => { const [d, x, y] = line(edge); return html`<g key=${`${edge.from}>${edge.to}`}><path class="way ${edge.count ? "" : "unused"}" d=${d} marker-end="url(#arrow)" /><text x=${x} y=${y} text-anchor="middle" font-size="11">${edge.count || ""}</text></g>`; })}
    ${nodes.map((node) => html`<a key=${node.name} href=${href("functions", namespace, node.name, "calls")}><g data-state=${node.name} data-status=${node.name === name ? "running" : ""}><title>${node.name}</title>
      <rect x=${node.x} y=${node.y} width=${WIDTH} height=${HEIGHT} rx="6" /><text x=${node.x + WIDTH / 2} y=${node.y + 22} text-anchor="middle">${node.name.length > 20 ? `${node.name.slice(0, 19)}…` : node.name}</text></g></a>`)}
  </svg></div>`;
}

const CALLS = [
  { title: "Time", value: (c) => c.time, cell: (c) => html`<${Age} time=${c.time} />`, width: "5rem" },
  { title: "Status", value: (c) => c.status, cell: (c) => html`<${State} of=${[String(c.status), c.status < 400 ? "ok" : c.status < 500 ? "busy" : "bad"]} />`, width: "6rem" },
  { title: "Took", value: (c) => duration(c.seconds), sort: (c) => c.seconds, number: true, width: "6rem" }, { title: "Start", value: (c) => (c.cold ? "cold" : "warm"), width: "5rem", wide: true },
  { title: "Revision", value: (c) => c.revision, wide: true, width: "minmax(7rem, 1fr)" }, { title: "From", value: (c) => c.parent ?? "", wide: true, width: "minmax(6rem, 1fr)" },
  { title: "Error", value: (c) => c.error ?? "", width: "minmax(6rem, 2fr)" }, { title: "Call", value: (c) => c.id, wide: true, width: "minmax(6rem, 1fr)" },
];

export function Calls({ object }) {
  const { namespace, name } = object.metadata;
  const functions = useLive(collectionPath(byId.functions, namespace));
  const others = callGraph(name, functions.items, []).nodes.map((node) => node.name).filter((one) => one !== name && functions.items.some((each) => each.metadata.name === one));
  const { calls, edges, error, loaded } = useCalls(namespace, [name, ...others].slice(0, MOST));
  const items = calls.map((call) => ({ ...call, metadata: { uid: `${call.id}/${call.time}` } }));
  const graph = callGraph(name, functions.items, edges);
  return html`${graph.nodes.length > 1 && html`<${Card} title="Who calls whom"><${Graph} name=${name} namespace=${namespace} functions=${functions.items} counted=${edges} /></${Card}>`}
    <${Table} label="calls" columns=${CALLS} items=${items} loaded=${loaded} error=${error} order=${[0, -1]} none="It has not been called lately." />`;
}

export function FunctionPart({ object }) {
  const { spec, status = {}, metadata } = object;
  const revisions = useLive(collectionPath(byId.functionrevisions, metadata.namespace), { labelSelector: `${LABEL}=${metadata.name}` });
  const pods = useLive(collectionPath(byId.pods, metadata.namespace), { labelSelector: `${LABEL}=${metadata.name}` });
  const without = (columns, ...titles) => columns.filter((column) => !titles.includes(column.title));
  const list = (title, kind, { items, error }, columns) => html`<${Card} title=${title} aside=${html`<span class="quiet">${items.length}</span>`}><${Notice} error=${error} />
    ${items.length ? html`<${Table} short=${items.length <= 12} label=${title} columns=${columns} items=${items} open=${linkTo(kind)} />` : html`<${Empty}>There are none.</${Empty}>`}</${Card}>`;
  return html`<${Card} title="Function"><${Fields} of=${[
    ["URL", status.url], ["Replicas", `${status.replicas ?? 0}, wanted ${status.desiredReplicas ?? 0} (${spec.scale?.minReplicas ?? 0} to ${spec.scale?.maxReplicas ?? 10})`], ["Why", status.reason],
    ["Ready revision", status.readyRevision], ["Latest revision", status.latestRevision], ["Traffic", (status.traffic ?? []).map((one) => `${one.percent} % ${one.revision}`).join(", ")],
    ["Handler", spec.handler || "found by itself"], ["Environment", spec.environment && html`<a href=${href("environments", metadata.namespace, spec.environment)}>${spec.environment}</a>`],
    ["In flight per replica", spec.concurrency], ["Workers", spec.workers], ["Timeout", spec.timeoutSeconds && `${spec.timeoutSeconds} s`], ["Invokes", (spec.invokes ?? []).join(", ")],
  ]} /></${Card}>
  ${list("Revisions", byId.functionrevisions, revisions, without(byId.functionrevisions.columns, "Namespace", "Function"))}
  ${list("Replicas", byId.pods, pods, without(byId.pods.columns, "Namespace"))}`;
}
