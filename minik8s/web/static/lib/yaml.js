// An object as YAML; changed by those who may. The API checks a change before it is made, and tells of conflicts.

import { readYaml, writeYaml } from "./api.js";
import { html, Notice, useEffect, useState } from "./ui.js";

export function Yaml({ path, editable }) {
  const [text, setText] = useState(null);
  const [original, setOriginal] = useState("");
  const [error, setError] = useState(null);
  const [news, setNews] = useState("");
  const load = () => readYaml(path).then(
    (yaml) => { setText(yaml); setOriginal(yaml); setError(null); setNews(""); }, (failure) => setError(failure));
  useEffect(() => { load(); }, [path]);
  const send = (dryRun) => async () => {
    setError(null);
    setNews("");
    try {
      const answer = await writeYaml(path, text, dryRun);
      if (!dryRun) { setText(answer); setOriginal(answer); }
      setNews(dryRun ? "The API would take this." : "Saved.");
    } catch (failure) {
      setError(failure);
    }
  };
  const changed = text !== original;
  const conflict = error?.code === 409;
  return html`<section class="yaml">
    <div class="tools">
      ${editable && html`<button type="button" disabled=${!changed} onClick=${send(true)}>Check</button>
        <button type="button" class="primary" disabled=${!changed} onClick=${send(false)}>Save</button>`}
      <button type="button" onClick=${load}>${changed || conflict ? "Discard, load the newest" : "Load again"}</button>
      ${!editable && html`<span class="quiet">Read-only.</span>`}
      ${news && html`<span class="good" role="status">${news}</span>`}
    </div>
    <${Notice} error=${error} />
    ${text !== null && html`<textarea class="screen" spellcheck="false" autocomplete="off" aria-label="YAML" readonly=${!editable} value=${text}
      onInput=${(e) => setText(e.target.value)}></textarea>`}
  </section>`;
}
