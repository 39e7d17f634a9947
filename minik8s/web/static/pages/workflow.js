// Workflows and their runs: the graph, what a run did laid over it as it does it, and what went in and out of a state.

import { get, may, post, text } from "../lib/api.js";
import { Drawing } from "../lib/drawing.js";
import { duration, took } from "../lib/format.js";
import { byId, collectionPath, linkTo, objectPath, phaseOf } from "../lib/kinds.js";
import { useLive } from "../lib/live.js";
import { Table } from "../lib/table.js";
import { Action, Age, Card, Empty, Fields, href, html, Notice, State, useAsked, useEffect, useRef, useState, useTick } from "../lib/ui.js";

const PAUSE = 500; // ms between drawings of a run that goes on
const MOST = 5000; // events that are asked for
const shown = (value) => (value === undefined ? "" : JSON.stringify(value, null, 2));
const Value = ({ title, value }) => (value === undefined || value === null ? null : html`<div><h3>${title}</h3><pre class="wrap value">${shown(value)}</pre></div>`);

// What `ask` gives, asked again when `key` changes, but not more often than a person can look: [value, error].
function useFollowed(ask, key) {
  const [state, set] = useState([undefined, null]);
  const last = useRef(0);
  useEffect(() => {
    let current = true;
    const timer = setTimeout(() => {
      last.current = Date.now();
      ask().then((value) => current && set([value, null]), (error) => current && set(([old]) => [old, error]));
    }, Math.max(0, last.current + PAUSE - Date.now()));
    return () => { current = false; clearTimeout(timer); };
  }, [key]);
  return state;
}

export function WorkflowPart({ object }) {
  const { metadata } = object;
  const path = objectPath(byId.workflows, metadata.namespace, metadata.name);
  const [drawing, error] = useAsked(() => text(`${path}/graph`), `${path}|${metadata.generation}`);
  const query = { fieldSelector: `spec.workflowRef.name=${metadata.name}` };
  const runs = useLive(collectionPath(byId.workflowruns, metadata.namespace), query);
  const columns = byId.workflowruns.columns.filter((column) => !["Namespace", "Workflow"].includes(column.title));
  return html`<${Card} title="Graph"><${Notice} error=${error} />${drawing && html`<${Drawing} source=${drawing} label="Graph of ${metadata.name}" />`}</${Card}>
    <${Card} title="Runs" aside=${html`<span class="quiet">${runs.items.length}</span>`}><${Notice} error=${runs.error} />
      ${runs.items.length ? html`<${Table} short=${runs.items.length <= 12} label="runs" columns=${columns} items=${runs.items} order=${[columns.length - 1, 1]} open=${linkTo(byId.workflowruns)} />` : html`<${Empty}>It has not been run.</${Empty}>`}</${Card}>`;
}

// How often a state was passed through: what went in and out, when, and what went wrong. Pure.
export function passages(events, name) {
  const of = new Map(); // event -> the passage in which it happened
  const found = [];
  for (const event of events) {
    const { details = {}, type } = event;
    let at = of.get(event.previousEventId);
    if (type.endsWith("StateEntered")) {
      at = { name: details.name, input: details.input, entered: event.timestamp, errors: [] };
      found.push(at);
    } else if (type.endsWith("StateExited")) {
      if (at?.name !== details.name) at = found.findLast((one) => one.name === details.name && !one.left);
      if (at) Object.assign(at, { output: details.output, left: event.timestamp });
    } else if (at && (details.error !== undefined || /(Failed|TimedOut)$/.test(type))) {
      at.errors.push([details.error || type, details.cause].filter(Boolean).join(": "));
    }
    of.set(event.id, at);
  }
  return found.filter((one) => one.name === name);
}

function Passages({ path, name, version, ended }) {
  const [history, error] = useFollowed(() => get(`${path}/history?limit=${MOST}`), `${name}|${version}`);
  const found = history ? passages(history.events, name).reverse() : [];
  return html`<${Card} title=${name} className="passages"><${Notice} error=${error} />
    ${history && !found.length && html`<${Empty}>The run has not come here.</${Empty}>`}
    ${found.slice(0, 20).map((one, i) => html`<article key=${found.length - i}>
      <header><b>${found.length > 1 ? `${found.length - i} of ${found.length}` : ""}</b> <${Age} time=${one.entered} /> <span class="quiet">${one.left ? `took ${duration((Date.parse(one.left) - Date.parse(one.entered)) / 1000)}` : ended ? "not left" : "goes on"}</span></header>
      ${one.errors.map((text_, n) => html`<${Notice} key=${n}>${text_}</${Notice}>`)}
      <div class="columns"><${Value} title="Input" value=${one.input} /><${Value} title="Output" value=${one.output} /></div></article>`)}
    ${found.length > 20 && html`<p class="quiet">The newest 20 of ${found.length}.</p>`}</${Card}>`;
}

export function RunPart({ object }) {
  useTick(1);
  const { metadata, spec, status = {} } = object;
  const path = objectPath(byId.workflowruns, metadata.namespace, metadata.name);
  const version = `${status.phase}|${status.events}|${status.redrives}|${(status.currentStates ?? []).join()}`;
  const [drawing, error] = useFollowed(() => text(`${path}/graph`), `${path}|${version}`);
  const [chosen, choose] = useState("");
  return html`<${Card} title="Run"><${Fields} of=${[
    spec.functionRef ? ["Function", html`<a href=${href("functions", metadata.namespace, spec.functionRef.name)}>${spec.functionRef.name}</a>`]
      : ["Workflow", html`<a href=${href("workflows", metadata.namespace, spec.workflowRef?.name)}>${spec.workflowRef?.name}</a>`], ["Phase", html`<${State} of=${phaseOf(object)} />`],
    ["Took", took(status)], ["State", (status.currentStates ?? []).join(", ")], ["Events", status.events], ["Redriven", status.redrives],
  ]} />${status.error && html`<${Notice}>${[status.error, status.cause].filter(Boolean).join(": ")}</${Notice}>`}</${Card}>
  <div class="beside"><${Card} title="Graph" aside=${html`<span class="quiet">Choose a state to see what went in and out.</span>`}>
    ${error && (error.code === 404 ? html`<${Empty}>The run has not begun.</${Empty}>` : html`<${Notice} error=${error} />`)}
    ${drawing && html`<${Drawing} source=${drawing} label="Graph of ${metadata.name}" chosen=${chosen} choose=${(state) => choose(state === chosen ? "" : state)} />`}</${Card}>
  ${chosen && html`<${Passages} key=${chosen} path=${path} name=${chosen} version=${version} ended=${Boolean(status.completionTime)} />`}</div>
  <${Card} title="Input and output"><div class="columns"><${Value} title="Input" value=${spec.input ?? null} /><${Value} title="Output" value=${status.output} /></div>
    ${spec.input == null && status.output == null && html`<${Empty}>There is neither.</${Empty}>`}</${Card}>`;
}

const HISTORY = [
  { title: "ID", value: (e) => e.id, number: true, width: "4rem" },
  { title: "Time", value: (e) => e.timestamp, cell: (e) => html`<${Age} time=${e.timestamp} />`, width: "5rem", wide: true },
  { title: "Type", value: (e) => e.type, width: "minmax(9rem, 1.4fr)" }, { title: "State", value: (e) => e.details?.name ?? "", width: "minmax(6rem, 1fr)" },
  { title: "Details", value: (e) => Object.entries(e.details ?? {}).filter(([key]) => key !== "name").map(([key, value]) => `${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(" · "), wide: true, width: "minmax(9rem, 4fr)" },
];

export function History({ object }) {
  const { metadata, status = {} } = object;
  const path = objectPath(byId.workflowruns, metadata.namespace, metadata.name);
  const [history, error] = useFollowed(() => get(`${path}/history?limit=${MOST}`), `${status.phase}|${status.events}`);
  const items = (history?.events ?? []).map((event) => ({ ...event, metadata: { uid: event.id } }));
  return html`${history?.metadata.continue && html`<${Notice} tone="busy">The first ${MOST} events are shown; 'minik8s wf history' has all.</${Notice}>`}
    <${Table} label="history" columns=${HISTORY} items=${items} loaded=${history !== undefined} error=${error} none="Nothing has happened yet." />`;
}

export function WorkflowActions({ object }) {
  const { namespace, name } = object.metadata;
  const [starting] = useAsked(() => may("create", byId.workflowruns.group, "workflowruns", namespace), `runs|${namespace}`);
  const start = async (written) => {
    let input;
    try { input = written.trim() ? JSON.parse(written) : undefined; } catch (error) { throw new Error(`The input is no JSON: ${error.message}`); }
    const spec = { workflowRef: { name }, ...(input === undefined ? {} : { input }) };
    const made = await post(collectionPath(byId.workflowruns, namespace), { apiVersion: "faas.minik8s.io/v1", kind: "WorkflowRun", metadata: { generateName: `${name}-` }, spec });
    location.hash = linkTo(byId.workflowruns)(made);
  };
  return starting && html`<${Action} label="Start a run" title="Run ${name}" field=${{ text: true, label: "Input (JSON)", value: object.spec.input == null ? "{}" : shown(object.spec.input) }} act=${start} />`;
}

export function RunActions({ object }) {
  const { namespace, name } = object.metadata;
  const path = objectPath(byId.workflowruns, namespace, name);
  const allowed = (what) => useAsked(() => may("create", byId.workflowruns.group, "workflowruns", namespace, what), `runs|${namespace}|${what}`)[0];
  const [stopping, redriving] = [allowed("stop"), allowed("redrive")];
  const { phase } = object.status ?? {};
  return html`${stopping && phase === "Running" && html`<${Action} label="Stop" title="Stop ${name}" text="It ends as Aborted; what its tasks have made stays." act=${() => post(`${path}/stop`, {})} />`}
    ${redriving && ["Failed", "TimedOut", "Aborted"].includes(phase) && html`<${Action} label="Redrive" title="Redrive ${name}" text="It goes on where it broke off." act=${() => post(`${path}/redrive`, {})} />`}`;
}
