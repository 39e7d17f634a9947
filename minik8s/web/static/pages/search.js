// Every object of every kind by name, label or kind. Read once when the page is opened, as metadata only.

import { get, metadata } from "../lib/api.js";
import { age, byKind, linkTo, name, namespace } from "../lib/kinds.js";
import { Table } from "../lib/table.js";
import { html, Labels, Notice, useEffect, useState } from "../lib/ui.js";

const LEFT_OUT = new Set(["events"]); // too many and too short-lived to be looked for here

async function listed() {
  const groups = (await get("/apis")).groups ?? [];
  const versions = ["/api/v1", ...groups.filter((group) => !/^(metrics|events)\.k8s\.io$/.test(group.name)).map((group) => `/apis/${group.preferredVersion.groupVersion}`)];
  const found = await Promise.all(versions.map((path) => get(path).then(({ resources }) => resources.filter(
    (one) => one.verbs.includes("list") && !one.name.includes("/") && !LEFT_OUT.has(one.name)).map((one) => ({ ...one, path })))));
  return found.flat();
}

const COLUMNS = [
  { title: "Kind", value: (o) => o.kindName, width: "minmax(7rem, 1fr)" },
  { ...name, cell: (o) => (byKind[o.kindName] ? html`<a href=${linkTo(byKind[o.kindName])(o)}>${o.metadata.name}</a>` : o.metadata.name) },
  { ...namespace, wide: false },
  { title: "Labels", value: (o) => Object.entries(o.metadata.labels ?? {}).map(([key, value]) => `${key}=${value}`).join(" "), cell: (o) => html`<${Labels} of=${o.metadata.labels} />`, wide: true, width: "minmax(10rem, 3fr)" },
  { ...age, wide: true },
];

function Search({ namespace: where }) {
  const [items, setItems] = useState([]);
  const [loaded, setLoaded] = useState(false);
  const [error, setError] = useState(null);
  useEffect(() => {
    let current = true;
    setItems([]);
    setLoaded(false);
    const one = async (kind) => {
      const scope = where && kind.namespaced ? `/namespaces/${encodeURIComponent(where)}` : "";
      const list = await metadata(`${kind.path}${scope}/${kind.name}`);
      if (current) setItems((old) => [...old, ...list.items.map((item) => ({ ...item, kindName: kind.kind }))]);
    };
    listed()
      .then((kinds) => Promise.allSettled(kinds.map(one))) // kinds that this user may not list are left out
      .then(() => current && setLoaded(true), (failure) => current && setError(failure));
    return () => { current = false; };
  }, [where]);
  useEffect(() => { document.querySelector(".filter")?.focus(); }, []);
  return html`<div class="fill"><h1>Search</h1><${Notice} error=${error} />
    <${Table} label="objects" columns=${COLUMNS} items=${items} loaded=${loaded} order=${[1, 1]} /></div>`;
}

export default { id: "search", title: "Search", group: "", key: "/", view: Search };
