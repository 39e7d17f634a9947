// What the container engine of a node holds: containers, images, volumes and networks, whoever made them. Asked of the
// node's kubelet now and then, by those who may reach it (nodes/proxy).

import { get, may, post, remove } from "../lib/api.js";
import { bytes } from "../lib/format.js";
import { useLive } from "../lib/live.js";
import { Log } from "../lib/logs.js";
import { Table } from "../lib/table.js";
import { Action, Age, Card, Fields, href, html, Labels, Notice, State, useAsked, useEffect, useMemo, useState } from "../lib/ui.js";

const EVERY = 5000; // ms
const KINDS = { containers: "Containers", images: "Images", volumes: "Volumes", networks: "Networks" };
const TONES = { running: "ok", paused: "busy", restarting: "busy", created: "busy", removing: "busy", dead: "bad" };

const enginePath = (node, ...more) => ["/api/v1/nodes", encodeURIComponent(node), "proxy/engine", ...more.map(encodeURIComponent)].join("/");
const short = (id) => id.replace(/^sha256:/, "").slice(0, 12);
const time = (seconds) => (seconds > 0 ? new Date(seconds * 1000).toISOString() : "");
const size = (value) => (value == null ? "" : bytes(value));
const state = (one) => [one.state, TONES[one.state] ?? (/\(0\)/.test(one.status) ? "done" : "bad")];
const addresses = (one) => Object.entries(one.networks).filter(([, address]) => address).map(([, address]) => address).join(", ");
const podLink = ({ pod }) => (pod ? html`<a href=${href("pods", pod.namespace, pod.name)}>${pod.namespace}/${pod.name}</a>` : "");
const isSandbox = (one) => one.pod && !one.pod.container;
const title = { containers: (one) => (one.pod ? one.pod.container || "sandbox" : one.name), images: (one) => one.names[0] ?? short(one.id), volumes: (one) => one.id, networks: (one) => one.name };
const unused = (one) => (one.used_by.length ? String(one.used_by.length) : "unused");

const column = (name, value, more = {}) => ({ title: name, value: (one) => value(one) ?? "", ...more });
const created = { title: "Created", value: (one) => time(one.created), sort: (one) => -one.created, cell: (one) => html`<${Age} time=${time(one.created)} />`, width: "5rem", number: true };
const measured = { title: "Size", value: (one) => size(one.size), sort: (one) => one.size ?? -1, width: "6rem", number: true, wide: true };
const users = column("Used by", unused, { width: "5rem", number: true });
const COLUMNS = {
  containers: [
    { title: "Name", value: (one) => one.name, cell: title.containers, width: "minmax(7rem, 1.6fr)" },
    { title: "State", value: (one) => one.state, cell: (one) => html`<${State} of=${state(one)} />`, width: "6.5rem" },
    { title: "Pod", value: (one) => (one.pod ? `${one.pod.namespace}/${one.pod.name}` : ""), cell: podLink, width: "minmax(7rem, 1.8fr)" },
    column("Image", (one) => one.image, { wide: true, width: "minmax(7rem, 1.8fr)" }), column("Address", addresses, { wide: true, width: "8rem" }),
    column("Ports", (one) => one.ports.join(", "), { wide: true, width: "minmax(5rem, 1fr)" }), measured, created,
  ],
  images: [column("Name", title.images, { width: "minmax(9rem, 3fr)" }), column("ID", (one) => short(one.id), { wide: true, width: "8rem" }), { ...measured, wide: false }, users, created],
  volumes: [column("Name", (one) => one.id, { width: "minmax(9rem, 2fr)" }), column("Driver", (one) => one.driver, { wide: true, width: "6rem" }), column("Path", (one) => one.path, { wide: true, width: "minmax(9rem, 3fr)" }), measured, users, created],
  networks: [column("Name", (one) => one.name, { width: "minmax(9rem, 2fr)" }), column("Driver", (one) => one.driver, { width: "6rem" }), column("Subnets", (one) => one.subnets.join(", "), { wide: true, width: "minmax(8rem, 2fr)" }), users, created],
};

// {found, error, again}: asked for as long as somebody looks.
function useEngine(node, sizes) {
  const [answer, set] = useState({ found: null, error: null });
  const [round, setRound] = useState(0);
  useEffect(() => set({ found: null, error: null }), [node]);
  useEffect(() => {
    if (!node) return undefined;
    let current = true;
    let timer = 0;
    const ask = async () => {
      if (!document.hidden) {
        try {
          const found = await get(`${enginePath(node)}${sizes ? "?sizes=true" : ""}`);
          for (const kind of Object.keys(KINDS)) for (const one of found[kind]) one.metadata = { uid: one.id, name: title[kind](one) };
          if (current) set({ found, error: null });
        } catch (error) {
          if (current) set((old) => ({ ...old, error }));
        }
      }
      if (current) timer = setTimeout(ask, EVERY);
    };
    ask();
    return () => { current = false; clearTimeout(timer); };
  }, [node, sizes, round]);
  return { ...answer, again: () => setRound((n) => n + 1) };
}

function Actions({ node, kind, one, again }) {
  const [acting] = useAsked(() => may("create", "", "nodes", "", "proxy"), "engine|create");
  const [removing] = useAsked(() => may("delete", "", "nodes", "", "proxy"), "engine|delete");
  const name = one.metadata.name;
  const act = (what) => async () => { await post(enginePath(node, "containers", one.id, what)); again(); };
  const leave = async () => { await remove(enginePath(node, kind, one.id)); location.hash = href("engine", node, kind); again(); };
  const running = one.state === "running";
  const removable = kind === "containers" ? !running : !one.used_by.length;
  const kept = one.pod ? " Its pod's restart policy says whether the kubelet starts it again." : "";
  return html`<div class="actions">
    ${kind === "containers" && acting && running && html`<${Action} label="Stop" title="Stop ${name}" text="It is asked to end, and killed after 10 seconds.${kept}" act=${act("stop")} />`}
    ${kind === "containers" && acting && html`<${Action} label="Restart" title="Restart ${name}" text="It is stopped and started.${kept}" act=${act("restart")} />`}
    ${removing && removable && html`<${Action} label="Remove" danger title="Remove ${name}" text="It is removed from ${node}.${kind === "volumes" ? " What is in it is lost." : ""}" act=${leave} />`}
  </div>`;
}

function One({ node, kind, one, again }) {
  const list = (names) => names.length > 0 && html`<ul>${names.map((name) => html`<li key=${name}>${name}</li>`)}</ul>`;
  return html`<div class="page">
    <div class="title"><h1><a class="quiet" href=${href("engine", node, kind)}>${KINDS[kind]}</a> <span>${one.metadata.name}</span></h1><${Actions} node=${node} kind=${kind} one=${one} again=${again} /></div>
    <${Card}><${Fields} of=${[
      ["Name", one.name], ["Names", list(one.names ?? [])], ["ID", one.id !== one.name && one.id], ["State", one.state && html`<${State} of=${[one.status || one.state, state(one)[1]]} />`],
      ["Pod", one.pod && podLink(one)], ["Image", one.image], ["Command", one.command], ["Addresses", one.networks && Object.entries(one.networks).map(([network, address]) => `${address} ${network}`.trim()).join(", ")],
      ["Ports", one.ports?.join(", ")], ["Volumes", list(one.volumes ?? [])], ["Driver", one.driver], ["Path", one.path], ["Subnets", one.subnets?.join(", ")], ["Internal", one.internal && "yes"],
      ["Size", size(one.size)], ["Created", html`<${Age} time=${time(one.created)} />`], ["Used by", list(one.used_by ?? [])],
    ]} /></${Card}>
    ${Object.keys(one.labels).length > 0 && html`<${Card} title="Labels"><${Labels} of=${one.labels} /></${Card}>`}
    ${kind === "containers" && !isSandbox(one) && html`<${Log} path=${enginePath(node, "containers", one.id, "log")} label=${one.metadata.name} />`}
  </div>`;
}

function Engine({ rest: [asked, kind = "containers", id] }) {
  const nodes = useLive("/api/v1/nodes");
  const names = nodes.items.map((node) => node.metadata.name).sort();
  const node = asked ?? names[0] ?? "";
  const [sizes, setSizes] = useState(false);
  const [sandboxes, setSandboxes] = useState(false);
  const { found, error, again } = useEngine(node, sizes);
  const shown = (which) => (found?.[which] ?? []).filter((one) => which !== "containers" || sandboxes || !isSandbox(one));
  const items = useMemo(() => shown(kind), [found, kind, sandboxes]);
  const columns = useMemo(() => COLUMNS[kind]?.filter((each) => each !== measured || sizes), [kind, sizes]);
  const one = id && found?.[kind]?.find((each) => each.id === id);
  if (one) return html`<${One} key=${id} node=${node} kind=${kind} one=${one} again=${again} />`;
  const flag = (value, set, text, told) => html`<label class="check" title=${told}><input type="checkbox" checked=${value} onChange=${(e) => set(e.target.checked)} />${text}</label>`;
  const tools = html`${flag(sizes, setSizes, "Sizes", "Measures what containers and volumes hold")} ${kind === "containers" && flag(sandboxes, setSandboxes, "Sandboxes", "The containers that hold pods' networks")}`;
  return html`<div class="fill">
    <div class="title"><h1>Containers</h1><label>Node <select aria-label="Node" value=${node} onChange=${(e) => { location.hash = href("engine", e.target.value, kind); }}>
      ${node && !names.includes(node) && html`<option value=${node}>${node}</option>`}${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label></div>
    ${id && found && html`<${Notice} tone="busy">It is not there any more.</${Notice}>`}
    <nav class="tabs" aria-label="What the engine holds">${Object.entries(KINDS).map(([key, text]) => html`<a key=${key} href=${href("engine", node, key)} aria-current=${key === kind ? "page" : undefined}>${text}${found ? ` ${shown(key).length}` : ""}</a>`)}</nav>
    ${columns && html`<${Table} key=${kind} label=${KINDS[kind]} columns=${columns} items=${items} loaded=${found !== null} error=${error ?? nodes.error} tools=${tools}
      open=${(each) => href("engine", node, kind, each.id)} none="There are none." />`}
  </div>`;
}

export default { id: "engine", title: "Containers", group: "Cluster", view: Engine };
