// The volumes of pods: what each is made of, and where it is mounted.

import { byId, collectionPath } from "../lib/kinds.js";
import { useLive } from "../lib/live.js";
import { Table } from "../lib/table.js";
import { href, html, useMemo, useState } from "../lib/ui.js";

const KINDS = { configMap: ["configmaps", (v) => v.name], secret: ["secrets", (v) => v.secretName] };
const TELL = {
  hostPath: (v) => [v.path, v.type].filter(Boolean).join(" "),
  emptyDir: (v) => [v.medium === "Memory" ? "in memory" : "on disk", v.sizeLimit && `at most ${v.sizeLimit}`].filter(Boolean).join(", "),
  projected: (v) => (v.sources ?? []).map((s) => Object.entries(s).map(([type, of]) => [type, of.name].filter(Boolean).join(" "))).join(", "),
  downwardAPI: (v) => (v.items ?? []).map((i) => i.path).join(", "),
  persistentVolumeClaim: (v) => v.claimName, nfs: (v) => `${v.server}:${v.path}`, csi: (v) => v.driver, image: (v) => v.reference,
};
const TOKEN = /^kube-api-access-/; // the mounted credentials that every pod has

function volumesOf(pod) {
  const containers = [...(pod.spec.initContainers ?? []), ...pod.spec.containers];
  return (pod.spec.volumes ?? []).map((volume) => {
    const [type, of] = Object.entries(volume).find(([key]) => key !== "name") ?? ["emptyDir", {}];
    const mounts = containers.flatMap((c) => (c.volumeMounts ?? []).filter((m) => m.name === volume.name).map((m) => `${c.name}:${m.mountPath}${m.readOnly ? " (read-only)" : ""}`));
    const source = KINDS[type] ? KINDS[type][1](of) : TELL[type]?.(of) ?? "";
    return { name: volume.name, type, source, mounts: mounts.join(", "), pod, metadata: { uid: `${pod.metadata.uid}/${volume.name}`, name: volume.name } };
  });
}

const source = (o) => (KINDS[o.type] ? html`<a href=${href(KINDS[o.type][0], o.pod.metadata.namespace, o.source)}>${o.source}</a>` : o.source);
const COLUMNS = [
  { title: "Volume", value: (o) => o.name, width: "minmax(7rem, 1.4fr)" }, { title: "Type", value: (o) => o.type, width: "minmax(5.5rem, 1fr)" },
  { title: "Source", value: (o) => o.source, cell: source, width: "minmax(7rem, 2fr)" },
  { title: "Pod", value: (o) => o.pod.metadata.name, cell: (o) => html`<a href=${href("pods", o.pod.metadata.namespace, o.pod.metadata.name)}>${o.pod.metadata.name}</a>`, width: "minmax(7rem, 1.6fr)" },
  { title: "Namespace", value: (o) => o.pod.metadata.namespace, wide: true, width: "minmax(6rem, 1fr)" },
  { title: "Node", value: (o) => o.pod.spec.nodeName ?? "", cell: (o) => (o.pod.spec.nodeName ? html`<a href=${href("nodes", "", o.pod.spec.nodeName)}>${o.pod.spec.nodeName}</a>` : ""), wide: true, width: "minmax(6rem, 1fr)" },
  { title: "Mounted at", value: (o) => o.mounts, wide: true, width: "minmax(8rem, 2fr)" },
];

function Volumes({ namespace }) {
  const { items, loaded, error } = useLive(collectionPath(byId.pods, namespace));
  const [node, setNode] = useState("");
  const [tokens, setTokens] = useState(false);
  const nodes = useMemo(() => [...new Set(items.map((pod) => pod.spec.nodeName).filter(Boolean))].sort(), [items]);
  const volumes = useMemo(() => items.filter((pod) => !node || pod.spec.nodeName === node).flatMap(volumesOf).filter((o) => tokens || !TOKEN.test(o.name)), [items, node, tokens]);
  const tools = html`<select aria-label="Node" value=${node} onChange=${(e) => setNode(e.target.value)}><option value="">All nodes</option>${nodes.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>
    <label class="check" title="The credentials that are mounted into every pod"><input type="checkbox" checked=${tokens} onChange=${(e) => setTokens(e.target.checked)} />Tokens</label>
    ${node && html`<a href=${href("engine", node, "volumes")}>Volumes of its engine</a>`}`;
  return html`<div class="fill"><h1>Volumes</h1>
    <${Table} label="volumes" columns=${COLUMNS} items=${volumes} loaded=${loaded} error=${error} tools=${tools} none="No pod has volumes." /></div>`;
}

export default { id: "volumes", title: "Volumes", group: "Config", view: Volumes };
