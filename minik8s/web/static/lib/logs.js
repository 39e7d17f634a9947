// A container's log, as it is written. Text goes into the page as text nodes, and old text leaves it.

import { followLog } from "./live.js";
import { html, Notice, useEffect, useRef, useState } from "./ui.js";

const MOST = 3000; // pieces of text that are kept

export function Logs({ pod }) {
  const statuses = [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];
  const [container, setContainer] = useState(pod.spec.containers?.[0]?.name ?? "");
  const [options, setOptions] = useState({ follow: true, timestamps: false, previous: false, wrap: true });
  const [error, setError] = useState(null);
  const [ended, setEnded] = useState(false);
  const screen = useRef(null);
  const { follow, timestamps, previous } = options;
  const { namespace, name } = pod.metadata;

  useEffect(() => {
    const pre = screen.current;
    const path = `/api/v1/namespaces/${namespace}/pods/${name}/log`;
    const query = { container, tailLines: "1000", follow: String(follow && !previous), timestamps: String(timestamps), previous: String(previous) };
    let last = "";
    return followLog(path, query, {
      begin() { pre.textContent = ""; setError(null); setEnded(false); },
      text(text) {
        const atEnd = pre.scrollTop + pre.clientHeight > pre.scrollHeight - 30;
        pre.append(text);
        last = text;
        while (pre.childNodes.length > MOST) pre.firstChild.remove();
        if (atEnd) pre.scrollTop = pre.scrollHeight;
      },
      end() { setEnded(true); if (last && !last.endsWith("\n")) pre.append("\n"); },
      error(status) { setError(status); },
    });
  }, [namespace, name, container, follow, timestamps, previous]);

  const flag = (key, label) => html`<label class="check"><input type="checkbox" checked=${options[key]}
    onChange=${(e) => setOptions({ ...options, [key]: e.target.checked })} />${label}</label>`;
  return html`<section class="logs">
    <div class="tools">
      <label>Container <select value=${container} onChange=${(e) => setContainer(e.target.value)}>
        ${statuses.map((c) => html`<option key=${c.name} value=${c.name}>${c.name}</option>`)}</select></label>
      ${flag("follow", "Follow")} ${flag("timestamps", "Times")} ${flag("previous", "Of the one before")} ${flag("wrap", "Wrap")}
      ${ended && html`<span class="quiet" role="status">The log has ended.</span>`}
    </div>
    <${Notice} error=${error} />
    <pre ref=${screen} class="screen ${options.wrap ? "wrap" : ""}" tabindex="0" aria-label="Log of ${container}"></pre>
  </section>`;
}
