// A log, as it is written. Text goes into the page as text nodes, and old text leaves it.

import { followLog } from "./live.js";
import { html, Notice, useEffect, useRef, useState } from "./ui.js";

const MOST = 3000; // pieces of text that are kept

// `path` is a log of the API; `query` beside what the switches say. `switches` are shown before those that all logs have.
export function Log({ path, query = {}, label, previous: hasPrevious = false, switches }) {
  const [options, setOptions] = useState({ follow: true, timestamps: false, previous: false, wrap: true });
  const [error, setError] = useState(null);
  const [ended, setEnded] = useState(false);
  const screen = useRef(null);
  const { follow, timestamps, previous } = options;

  useEffect(() => {
    const pre = screen.current;
    const asked = { ...query, tailLines: "1000", follow: String(follow && !previous), timestamps: String(timestamps), previous: String(previous) };
    let last = "";
    return followLog(path, asked, {
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
  }, [path, JSON.stringify(query), follow, timestamps, previous]);

  const flag = (key, text) => html`<label class="check"><input type="checkbox" checked=${options[key]}
    onChange=${(e) => setOptions({ ...options, [key]: e.target.checked })} />${text}</label>`;
  return html`<section class="logs">
    <div class="tools">${switches}
      ${flag("follow", "Follow")} ${flag("timestamps", "Times")} ${hasPrevious && flag("previous", "Of the one before")} ${flag("wrap", "Wrap")}
      ${ended && html`<span class="quiet" role="status">The log has ended.</span>`}
    </div>
    <${Notice} error=${error} />
    <pre ref=${screen} class="screen ${options.wrap ? "wrap" : ""}" tabindex="0" aria-label="Log of ${label}"></pre>
  </section>`;
}

export function Logs({ pod }) {
  const containers = [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];
  const [container, setContainer] = useState(pod.spec.containers?.[0]?.name ?? "");
  const { namespace, name } = pod.metadata;
  const choice = html`<label>Container <select value=${container} onChange=${(e) => setContainer(e.target.value)}>
    ${containers.map((c) => html`<option key=${c.name} value=${c.name}>${c.name}</option>`)}</select></label>`;
  return html`<${Log} path=${`/api/v1/namespaces/${namespace}/pods/${name}/log`} query=${{ container }} label=${container} previous switches=${choice} />`;
}
