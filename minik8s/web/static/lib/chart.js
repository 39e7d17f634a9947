// A line over the last hour, with its scale, and the value under the pointer.

import { get } from "./api.js";
import { bytes, cores } from "./format.js";
import { Card, Empty, html, Notice, useEffect, useState } from "./ui.js";

const WIDTH = 600;
const HEIGHT = 120;

function top(values) {
  const most = Math.max(...values.filter((value) => value != null), 0);
  if (!most) return 1;
  const step = 10 ** Math.floor(Math.log10(most));
  return Math.ceil((most * 1.1) / (step / 2)) * (step / 2);
}

function Line({ title, times, values, show, limit }) {
  const [under, setUnder] = useState(-1);
  const end = times.at(-1);
  const begin = Math.min(times[0], end - 300);
  const most = top(limit ? [...values, limit] : values);
  const x = (time) => ((time - begin) / Math.max(1, end - begin)) * WIDTH;
  const y = (value) => HEIGHT - (value / most) * HEIGHT;
  let line = "";
  let pen = false;
  values.forEach((value, i) => {
    if (value != null) line += `${pen ? "L" : "M"}${x(times[i]).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = value != null;
  });
  const moved = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const time = begin + ((event.clientX - box.left) / box.width) * (end - begin);
    let nearest = 0;
    times.forEach((t, i) => { if (Math.abs(t - time) < Math.abs(times[nearest] - time)) nearest = i; });
    setUnder(nearest);
  };
  const chosen = under >= 0 && under < values.length ? under : values.length - 1;
  return html`<figure class="chart">
    <figcaption><span>${title}</span><b>${show(values[chosen])}</b><span class="quiet">${new Date(times[chosen] * 1000).toLocaleTimeString()}</span></figcaption>
    <div class="plot"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="${title}: ${show(values.at(-1))} now" onPointerMove=${moved} onPointerLeave=${() => setUnder(-1)}>
      ${[0.25, 0.5, 0.75].map((part) => html`<line class="scale" x1="0" x2=${WIDTH} y1=${HEIGHT * part} y2=${HEIGHT * part} />`)}
      ${limit ? html`<line class="limit" x1="0" x2=${WIDTH} y1=${y(limit)} y2=${y(limit)} />` : null}
      <path class="line" d=${line} />
      ${under >= 0 && values[chosen] != null ? html`<line class="under" x1=${x(times[chosen])} x2=${x(times[chosen])} y1="0" y2=${HEIGHT} />` : null}
    </svg><span class="most quiet">${show(most)}</span></div>
  </figure>`;
}

export function useHistory(kind, namespace = "", name = "") {
  const [state, set] = useState({ history: null, error: null });
  useEffect(() => {
    let current = true;
    const query = new URLSearchParams({ namespace, name });
    const ask = () => get(`/history/${kind}?${query}`).then(
      (history) => current && set({ history, error: null }), (error) => current && set({ history: null, error }));
    ask();
    const timer = setInterval(ask, 15000);
    return () => { current = false; clearInterval(timer); };
  }, [kind, namespace, name]);
  return state;
}

export function Usage({ kind, namespace, name, limits = {}, title = "Usage in the last hour" }) {
  const { history, error } = useHistory(kind, namespace, name);
  const measured = history?.times.length > 0;
  return html`<${Card} title=${title}>
    <${Notice} error=${error} />
    ${!error && !measured && html`<${Empty}>${history ? "No measurements." : "Reading …"}</${Empty}>`}
    ${measured && html`<div class="charts">
      <${Line} title="CPU" times=${history.times} values=${history.cpu} show=${cores} limit=${limits.cpu} />
      <${Line} title="Memory" times=${history.times} values=${history.memory} show=${bytes} limit=${limits.memory} />
    </div>`}
  </${Card}>`;
}
