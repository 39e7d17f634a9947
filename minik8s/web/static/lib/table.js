// A table of any length: only the rows that are seen are made. Sorted by a click on a heading, filtered by words.
// Keys: "/" goes to the filter; in the table arrows, Page Up/Down, Home and End move, Enter opens.

import { html, Notice, useEffect, useLayoutEffect, useMedia, useMemo, useRef, useState, useTick } from "./ui.js";

const ROW = 34; // px, as app.css has it
const AROUND = 8; // rows made above and below what is seen

const asText = (column, item) => String(column.value(item) ?? "");

const inWords = new Intl.Collator(undefined, { numeric: true }); // one for all: localeCompare makes its own each time

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return inWords.compare(a ?? "", b ?? "");
}

export function Table({ label, columns, items, loaded = true, error, open, short = false, tools, order = [0, 1], none = "There are none." }) {
  useTick(10);
  const narrow = useMedia("(max-width: 760px)");
  const shown = useMemo(() => columns.filter((column) => !narrow || !column.wide), [columns, narrow]);
  const [filter, setFilter] = useState("");
  const [[sorted, direction], setSort] = useState(order);
  const [window_, setWindow] = useState([0, 40]);
  const [at, setAt] = useState(-1);
  const body = useRef(null);

  const rows = useMemo(() => {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = words.length ? items.filter((item) => {
      const text = columns.map((column) => asText(column, item)).join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    }) : items.slice();
    const key = columns[Math.min(sorted, columns.length - 1)];
    const keyed = kept.map((item) => [key.sort ? key.sort(item) : key.value(item), item]);
    keyed.sort(([a, x], [b, y]) => direction * compare(a, b) || compare(x.metadata?.name, y.metadata?.name));
    return keyed.map(([, item]) => item);
  }, [items, filter, sorted, direction, columns]);

  const measure = () => {
    const element = body.current;
    if (!element) return;
    const first = Math.max(0, Math.floor(element.scrollTop / ROW) - AROUND);
    const last = Math.ceil((element.scrollTop + element.clientHeight) / ROW) + AROUND;
    setWindow((old) => (old[0] === first && old[1] === last ? old : [first, last]));
  };
  useLayoutEffect(measure, [rows.length, short]);
  useEffect(() => {
    addEventListener("resize", measure);
    return () => removeEventListener("resize", measure);
  }, []);

  const move = (to) => {
    const next = Math.max(0, Math.min(rows.length - 1, to));
    setAt(next);
    const element = body.current;
    if (next * ROW < element.scrollTop) element.scrollTop = next * ROW;
    if ((next + 1) * ROW > element.scrollTop + element.clientHeight) element.scrollTop = (next + 1) * ROW - element.clientHeight;
  };
  const pressed = (event) => {
    if (event.target !== body.current) return;
    const page = Math.max(1, Math.floor(body.current.clientHeight / ROW) - 1);
    const steps = { ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 };
    if (event.key in steps) move(steps[event.key]);
    else if (event.key === "Enter" && open && rows[at]) location.hash = open(rows[at]);
    else return;
    event.preventDefault();
  };

  const grid = { gridTemplateColumns: shown.map((column) => (narrow ? column.narrow ?? column.width?.replace(/minmax\([^,]+,/, "minmax(0,") : column.width) ?? "minmax(0, 1fr)").join(" ") };
  const sortBy = (column) => {
    const index = columns.indexOf(column);
    setSort(([old, way]) => [index, old === index ? -way : 1]);
  };
  const [first, last] = short ? [0, rows.length] : window_;
  return html`<div class="table ${short ? "short" : ""}">
    ${!short && html`<div class="tools">
      <input type="search" class="filter" placeholder="Filter" aria-label="Filter ${label}" value=${filter} onInput=${(e) => { setFilter(e.target.value); setAt(-1); }} />
      <span class="quiet count" role="status">${filter ? `${rows.length} of ${items.length}` : rows.length}${loaded || error ? "" : " …"}</span>
      ${tools}
    </div>`}
    <${Notice} error=${error} />
    <div class="grid" role="table" aria-label=${label} aria-rowcount=${rows.length + 1}>
      <div class="head" role="row" style=${grid}>${shown.map((column) => {
        const here = columns.indexOf(column) === sorted;
        return html`<div role="columnheader" key=${column.title} class=${column.number ? "number" : ""} aria-sort=${here ? (direction > 0 ? "ascending" : "descending") : "none"}>
          <button type="button" onClick=${() => sortBy(column)}>${column.title}${here ? (direction > 0 ? " ↑" : " ↓") : ""}</button></div>`;
      })}</div>
      <div class="rows" ref=${body} tabindex="0" role="rowgroup" aria-label=${`Rows of ${label}`} onScroll=${measure} onKeyDown=${pressed}>
        <div class="all" style=${{ height: `${rows.length * ROW}px` }}>
          ${rows.slice(first, last).map((item, index) => html`
            <div role="row" key=${item.metadata?.uid ?? first + index} class="row ${first + index === at ? "at" : ""}" aria-rowindex=${first + index + 2}
              style=${{ ...grid, top: `${(first + index) * ROW}px` }}>
              ${shown.map((column, nth) => html`<div role="cell" key=${column.title} class=${column.number ? "number" : ""} title=${asText(column, item)}>
                ${nth === 0 && open ? html`<a href=${open(item)}>${column.cell ? column.cell(item) : column.value(item)}</a>`
                  : column.cell ? column.cell(item) : column.value(item)}</div>`)}
            </div>`)}
        </div>
        ${!rows.length && !error && html`<p class="empty">${!loaded ? "Reading …" : filter ? "Nothing fits the filter." : none}</p>`}
      </div>
    </div>
  </div>`;
}
