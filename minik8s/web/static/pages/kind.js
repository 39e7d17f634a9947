// The pages of a kind: all objects of it, and one of them with what belongs to it.

import { may, patch, remove, session } from "../lib/api.js";
import { collectionPath, EVENT_COLUMNS, linkTo, objectPath } from "../lib/kinds.js";
import { useLive } from "../lib/live.js";
import { Table } from "../lib/table.js";
import { Action, Age, Card, Conditions, Fields, href, html, Labels, Notice, useAsked } from "../lib/ui.js";
import { Yaml } from "../lib/yaml.js";
import { Owned, PARTS, TABS } from "./parts.js";
import { RunActions, WorkflowActions } from "./workflow.js";
import { JobActions } from "./gpujob.js";

const MORE = { workflows: WorkflowActions, workflowruns: RunActions, gpujobs: JobActions };
const STRATEGIC = "application/strategic-merge-patch+json";

function List({ kind, namespace }) {
  const { items, loaded, error } = useLive(collectionPath(kind, namespace));
  return html`<div class="fill"><h1>${kind.title}</h1>
    <${Table} label=${kind.title} columns=${kind.columns} items=${items} loaded=${loaded} error=${error} open=${linkTo(kind)} none=${`There are no ${kind.title}.`} /></div>`;
}

function Events({ kind, object }) {
  const { namespace, name } = object.metadata;
  const where = kind.namespaced ? `/namespaces/${encodeURIComponent(namespace)}` : "";
  const { items, loaded, error } = useLive(`/api/v1${where}/events`, { fieldSelector: `involvedObject.kind=${kind.kind},involvedObject.name=${name}` });
  return html`<${Table} label="events" columns=${EVENT_COLUMNS.filter((column) => column.title !== "Object")} items=${items} loaded=${loaded} error=${error} none="Nothing has happened to it of late." />`;
}

function Overview({ kind, object }) {
  const { metadata } = object;
  const annotations = Object.entries(metadata.annotations ?? {}).filter(([key]) => key !== "kubectl.kubernetes.io/last-applied-configuration");
  const More = PARTS[kind.id];
  return html`<div class="page">
    <${Card}><${Fields} of=${[
      ["Namespace", metadata.namespace], ["Created", html`<${Age} time=${metadata.creationTimestamp} />`],
      ["Deleted", metadata.deletionTimestamp && html`<${Age} time=${metadata.deletionTimestamp} />`],
      ["Owner", metadata.ownerReferences?.length && html`<${Owned} by=${metadata.ownerReferences} namespace=${metadata.namespace} />`],
      ["Labels", Object.keys(metadata.labels ?? {}).length > 0 && html`<${Labels} of=${metadata.labels} />`],
      ["Annotations", annotations.length > 0 && html`<ul class="annotations">${annotations.map(([key, value]) => html`<li key=${key}><span>${key}</span> ${value}</li>`)}</ul>`],
    ]} /></${Card}>
    ${More && html`<${More} object=${object} />`}
    <${Conditions} of=${object.status?.conditions} />
  </div>`;
}

function Actions({ kind, object }) {
  const { namespace = "", name } = object.metadata;
  const path = objectPath(kind, namespace, name);
  const [scaling] = useAsked(() => may("patch", kind.group, kind.id, namespace, "scale"), `${path}|scale`);
  const [changing] = useAsked(() => may("patch", kind.group, kind.id, namespace), `${path}|patch`);
  const [removing] = useAsked(() => may("delete", kind.group, kind.id, namespace), `${path}|delete`);
  const restart = { spec: { template: { metadata: { annotations: { "kubectl.kubernetes.io/restartedAt": new Date().toISOString() } } } } };
  const closed = object.spec?.unschedulable;
  return html`<div class="actions">
    ${kind.scale && scaling && html`<${Action} label="Scale" title="Scale ${name}" field=${{ label: "Replicas", value: object.spec.replicas ?? 1 }}
      act=${(value) => patch(`${path}/scale`, { spec: { replicas: Number(value) } })} />`}
    ${kind.restart && changing && html`<${Action} label="Restart" title="Restart ${name}" text="Its pods are replaced step by step." act=${() => patch(path, restart, STRATEGIC)} />`}
    ${kind.id === "nodes" && changing && html`<${Action} label=${closed ? "Uncordon" : "Cordon"} title="${closed ? "Uncordon" : "Cordon"} ${name}"
      text=${closed ? "New pods may come onto this node again." : "No new pods come onto this node; those that run stay."} act=${() => patch(path, { spec: { unschedulable: closed ? null : true } })} />`}
    ${kind.id in MORE && html`<${MORE[kind.id]} object=${object} />`}
    ${removing && html`<${Action} label="Delete" danger title="Delete ${name}" text="${kind.kind} ${name} is deleted, and all that it owns." act=${async () => { await remove(`${path}?propagationPolicy=Background`); location.hash = href(kind.id); }} />`}
  </div>`;
}

function One({ kind, rest: [where, name, tab = "overview"] }) {
  const namespace = where === "_" ? "" : where;
  const { items, loaded, error } = useLive(collectionPath(kind, namespace), { fieldSelector: `metadata.name=${name}` });
  const [object] = items;
  const [editable] = useAsked(() => (kind.id === "secrets" ? Promise.resolve(false) : may("update", kind.group, kind.id, namespace)), `${kind.id}|${where}|update`);
  const tabs = ["overview", ...Object.keys(TABS[kind.id] ?? {}).filter((one) => one !== "terminal" || session.write), "events", "yaml"];
  const Extra = TABS[kind.id]?.[tab];
  return html`<div class="fill one">
    <div class="title"><h1><a class="quiet" href=${href(kind.id)}>${kind.title}</a> <span>${name}</span></h1>${object && html`<${Actions} kind=${kind} object=${object} />`}</div>
    <${Notice} error=${error} />
    ${!object && loaded && !error && html`<${Notice} tone="busy">There is no ${kind.kind} ${name}${namespace && ` in ${namespace}`}; it may have been deleted.</${Notice}>`}
    ${object && html`<nav class="tabs" aria-label="Parts of ${name}">${tabs.map((one) => html`<a key=${one} href=${href(kind.id, where, name, one)} aria-current=${one === tab ? "page" : undefined}>${one === "yaml" ? "YAML" : one[0].toUpperCase() + one.slice(1)}</a>`)}</nav>
      ${tab === "overview" ? html`<${Overview} kind=${kind} object=${object} />`
        : tab === "events" ? html`<${Events} kind=${kind} object=${object} />`
        : tab === "yaml" ? html`<${Yaml} path=${objectPath(kind, namespace, name)} editable=${editable} />`
        : Extra && html`<${Extra} pod=${object} object=${object} />`}`}
  </div>`;
}

export function kindPage(kind, group, key) {
  const view = ({ rest, namespace }) => (rest.length >= 2 ? html`<${One} key=${rest.slice(0, 2).join("/")} kind=${kind} rest=${rest} />` : html`<${List} kind=${kind} namespace=${namespace} />`);
  return { id: kind.id, title: kind.title, group, key, view };
}

