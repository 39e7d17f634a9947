// Jobs on supercomputers: how far each is, what it prints, and the files that it has left.

import { bytesOf, get, may, patch } from "../lib/api.js";
import { bytes, took } from "../lib/format.js";
import { byId, objectPath, phaseOf } from "../lib/kinds.js";
import { Table } from "../lib/table.js";
import { Action, Card, Empty, Fields, href, html, Notice, State, useAsked, useEffect, useMemo, useRef, useState } from "../lib/ui.js";

const ENDED = new Set(["Succeeded", "Failed", "Cancelled", "Lost"]);
const EVERY = 2000; // ms between looks at output that grows
const LAST = 256 * 1024; // bytes of it that are shown at first
const KEPT = 2000; // pieces of text that are kept

const pathOf = ({ metadata }) => objectPath(byId.gpujobs, metadata.namespace, metadata.name);
const filePath = (object, file) => `${pathOf(object)}/results/${file.split("/").map(encodeURIComponent).join("/")}`;

export function JobPart({ object }) {
  const { spec, status = {} } = object;
  const { resources = {} } = spec;
  const tasks = status.tasks && Object.entries(status.tasks).map(([key, value]) => `${value} ${key}`).join(", ");
  return html`<${Card} title="Job"><${Fields} of=${[
    ["Phase", html`<${State} of=${phaseOf(object)} />`], ["Reason", status.reason], ["Message", status.message],
    ["Cluster", (status.clusterName || spec.clusterName) && html`<a href=${href("hpcclusters", object.metadata.namespace, status.clusterName || spec.clusterName)}>${status.clusterName || spec.clusterName}</a>`],
    ["Slurm ID", status.jobId], ["Slurm state", status.slurmState], ["Partition", status.partition || resources.partition], ["Nodes", status.nodes], ["Attempt", status.attempt], ["Exit code", status.exitCode],
    ["Tasks", tasks], ["Took", took(status)], ["Results", status.files > 0 && `${status.files} files, ${bytes(status.bytes)}`], ["On the cluster", status.remotePath],
    ["Asks for", Object.entries(resources).filter(([, value]) => value).map(([key, value]) => `${key} ${value}`).join(", ")],
    ["Depends on", (spec.dependsOn ?? []).map((one) => `${one.name} (${one.condition ?? "Succeeded"})`).join(", ")],
  ]} /></${Card}>
  <${Card} title="Commands"><pre class="wrap value">${spec.script || [...(spec.build ?? []), ...(spec.run ?? [])].join("\n") || "–"}</pre></${Card}>`;
}

export function ClusterPart({ object }) {
  const { spec, status = {} } = object;
  return html`<${Card} title="Cluster"><${Fields} of=${[
    ["Type", spec.type], ["Host", spec.host && `${spec.host}:${spec.port ?? 22}`], ["User", spec.user], ["By way of", spec.proxyJump?.host], ["Slurm", status.version], ["Jobs that go on", status.jobs],
    ["Driver", spec.driver], ["Host key", spec.knownHosts ? "given" : status.hostKey ? "pinned on first use" : spec.hostKeyPolicy], ["Image", spec.local?.image],
  ]} /></${Card}>`;
}

// What a job prints, from its last part on, for as long as it goes on.
export function Output({ object }) {
  const { spec, status = {} } = object;
  const [stream, setStream] = useState("stdout");
  const [error, setError] = useState(null);
  const [nothing, setNothing] = useState(false);
  const screen = useRef(null);
  const file = [spec.workDir, spec.output?.[stream] ?? ""].filter(Boolean).join("/");
  const many = file.includes("%");
  const ended = ENDED.has(status.phase);
  useEffect(() => {
    const pre = screen.current;
    if (many || !pre) return undefined;
    let [current, timer, offset, begun] = [true, 0, 0, false];
    const decoder = new TextDecoder();
    pre.textContent = "";
    const look = async () => {
      try {
        if (!begun) {
          const known = (await get(`${pathOf(object)}/results`)).items.find((one) => one.path === file);
          offset = Math.max(0, (known?.size ?? 0) - LAST);
        }
        const data = await bytesOf(`${filePath(object, file)}?offset=${offset}`);
        if (!current) return;
        const atEnd = pre.scrollTop + pre.clientHeight > pre.scrollHeight - 30;
        if (data.byteLength) pre.append(decoder.decode(data, { stream: true }));
        while (pre.childNodes.length > KEPT) pre.firstChild.remove();
        if (atEnd) pre.scrollTop = pre.scrollHeight;
        [begun, offset] = [true, offset + data.byteLength];
        setError(null);
        setNothing(offset === 0);
      } catch (failure) {
        if (!current) return;
        setNothing(failure.code === 404);
        setError(failure.code === 404 ? null : failure);
      }
      if (current && !ended) timer = setTimeout(look, EVERY);
    };
    look();
    return () => { current = false; clearTimeout(timer); };
  }, [object.metadata.uid, file, ended]);
  return html`<section class="logs"><div class="tools"><label>Stream <select value=${stream} onChange=${(e) => setStream(e.target.value)}><option value="stdout">stdout</option><option value="stderr">stderr</option></select></label>
      ${nothing && html`<span class="quiet" role="status">Nothing has been written${ended ? "" : " yet"}.</span>`}${ended && !nothing && html`<span class="quiet" role="status">The job has ended.</span>`}</div>
    <${Notice} error=${error} />
    ${many ? html`<${Empty}>Each task has a file of its own (${file}): see the results.</${Empty}>` : html`<pre ref=${screen} class="screen wrap" tabindex="0" aria-label="Output of ${object.metadata.name}"></pre>`}</section>`;
}

export function Results({ object }) {
  const { status = {}, metadata } = object;
  const [index, error] = useAsked(() => get(`${pathOf(object)}/results`).catch((failure) => { if (failure.code === 404) return { items: [] }; throw failure; }), `${metadata.uid}|${status.phase}|${status.files}`);
  const items = useMemo(() => (index?.items ?? []).map((one) => ({ ...one, metadata: { uid: one.path, name: one.path } })), [index]);
  const columns = useMemo(() => [
    { title: "File", value: (one) => one.path, cell: (one) => html`<a href=${filePath(object, one.path)} download>${one.path}</a>`, width: "minmax(10rem, 4fr)" },
    { title: "Size", value: (one) => bytes(one.size), sort: (one) => one.size, number: true, width: "7rem" },
  ], [metadata.uid]);
  const tools = items.length > 0 && html`<a href="${pathOf(object)}/results?format=zip" download>All of it (zip)</a>`;
  return html`<${Table} label="results" columns=${columns} items=${items} loaded=${index !== undefined} error=${error} tools=${tools} none="There are no results yet." />`;
}

export function JobActions({ object }) {
  const { namespace, name } = object.metadata;
  const [changing] = useAsked(() => may("patch", byId.gpujobs.group, "gpujobs", namespace), `gpujobs|${namespace}`);
  const going = !ENDED.has(object.status?.phase) && !object.spec.cancel;
  return changing && going && html`<${Action} label="Cancel" title="Cancel ${name}" text="Its job is taken out of the queue, or ended; results so far are fetched." act=${() => patch(pathOf(object), { spec: { cancel: true } })} />`;
}
