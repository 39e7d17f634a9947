// The frame: logging in, navigation, the namespace, light and dark, keys, and the page that the address names.

import { login, logout, onLoggedOut, resume, session } from "./lib/api.js";
import { connect, disconnect, useConnected, useLive } from "./lib/live.js";
import { href, html, Notice, useEffect, useErrorBoundary, useRef, useState } from "./lib/ui.js";
import { PAGES } from "./pages/index.js";
import { render } from "./vendor/htm-preact.mjs";

const THEMES = ["auto", "light", "dark"];

function useRoute() {
  const read = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decode);
  const [route, set] = useState(read);
  useEffect(() => {
    const changed = () => set(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

function decode(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

function useTheme() {
  const [theme, set] = useState(() => localStorage.getItem("theme") ?? "auto");
  useEffect(() => {
    localStorage.setItem("theme", theme);
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  return [theme, () => set(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length])];
}

function Login({ done }) {
  const [text, setText] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await login(text);
      setText("");
      done();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  const file = async (event) => { if (event.target.files[0]) setText(await event.target.files[0].text()); };
  return html`<main class="login"><form onSubmit=${submit}>
    <h1><img src="/static/icon.svg" alt="" width="28" height="28" /> minik8s</h1>
    <label for="credentials">Token or kubeconfig</label>
    <textarea id="credentials" rows="6" required autofocus spellcheck="false" autocomplete="off" value=${text} onInput=${(e) => setText(e.target.value)}
      onKeyDown=${(e) => { if (e.key === "Enter" && !text.includes("\n") && text) submit(e); }}></textarea>
    <div class="row-of"><label class="file">Choose a file<input type="file" onChange=${file} /></label><button class="primary" disabled=${busy}>Log in</button></div>
    <${Notice} error=${error} />
    <p class="quiet"><code>minik8s dashboard</code> on the master prints a token. What you see and do here is what your credentials allow.</p>
  </form></main>`;
}

function Namespace({ value, set }) {
  const { items } = useLive("/api/v1/namespaces");
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  const names = items.map((item) => item.metadata.name).sort();
  // Who may not list namespaces writes the name.
  if (!items.length) return html`<input class="namespace" aria-label="Namespace" placeholder="Namespace" value=${text} onInput=${(e) => setText(e.target.value)} onChange=${() => set(text.trim())} />`;
  return html`<select class="namespace" aria-label="Namespace" value=${value} onChange=${(e) => set(e.target.value)}>
    <option value="">All namespaces</option>${names.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    ${value && !names.includes(value) && html`<option value=${value}>${value}</option>`}</select>`;
}

function Navigation({ current, close }) {
  const groups = [...new Set(PAGES.map((page) => page.group))];
  return html`<nav id="navigation" aria-label="Pages" onClick=${close}>${groups.map((group) => html`<div key=${group} role="group" aria-label=${group || "Start"}>
    ${group && html`<h2>${group}</h2>`}${PAGES.filter((page) => page.group === group).map((page) => html`
      <a key=${page.id} href=${href(page.id)} aria-current=${page === current ? "page" : undefined}>${page.title}${page.key && html`<kbd>${page.key === "/" ? "/" : page.key}</kbd>`}</a>`)}
  </div>`)}</nav>`;
}

// "/" goes to the filter, "g" and a letter to a page, "?" tells.
function useKeys(help) {
  useEffect(() => {
    let after = 0;
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape" && event.target.matches?.(".filter")) event.target.blur();
      if (event.target.closest?.("input, textarea, select, dialog, .terminal")) return;
      const page = Date.now() - after < 1500 && PAGES.find((one) => one.key === event.key);
      after = event.key === "g" ? Date.now() : 0;
      if (page) location.hash = href(page.id);
      else if (event.key === "/") {
        const filter = document.querySelector(".filter");
        if (filter) filter.focus();
        else location.hash = href("search");
      }
      else if (event.key === "?") help();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

function Page({ page, rest, namespace }) {
  const [error] = useErrorBoundary((failure) => console.error(failure));
  if (error) return html`<div class="page"><${Notice} error=${{ message: `This page failed: ${error.message}. Load it again.` }} /></div>`;
  const View = page.view;
  return html`<${View} rest=${rest} namespace=${namespace} />`;
}

function Frame({ leave }) {
  const [id, ...rest] = useRoute();
  const page = PAGES.find((one) => one.id === (id ?? "overview"));
  const [namespace, setNamespace] = useState(() => sessionStorage.getItem("namespace") ?? "");
  const [open, setOpen] = useState(false);
  const [theme, nextTheme] = useTheme();
  const connected = useConnected();
  const [late, setLate] = useState(false);
  const help = useRef(null);
  useKeys(() => help.current.showModal());
  useEffect(() => { const timer = setTimeout(() => setLate(!connected), connected ? 0 : 1000); return () => clearTimeout(timer); }, [connected]);
  useEffect(() => { document.title = `${page?.title ?? "Not found"} · minik8s`; }, [page]);
  const choose = (value) => { sessionStorage.setItem("namespace", value); setNamespace(value); };
  return html`<div class="frame ${open ? "open" : ""}">
    <header class="bar"><button type="button" class="menu" aria-label="Pages" aria-expanded=${open} aria-controls="navigation" onClick=${() => setOpen(!open)}>☰</button>
      <a class="brand" href="#/overview"><img src="/static/icon.svg" alt="" width="22" height="22" /><b>minik8s</b></a>
      <${Namespace} value=${namespace} set=${choose} />
      <span class="space"></span>
      ${!session.write && html`<span class="badge" title="The master's setting --dashboard-write lets the dashboard change things">read-only</span>`}
      <button type="button" class="plain" onClick=${nextTheme} aria-label="Colours: ${theme}" title="Colours: ${theme}">${{ auto: "◐", light: "☀", dark: "☾" }[theme]}</button>
      <button type="button" class="plain" onClick=${() => help.current.showModal()} aria-label="Keys">?</button>
      <span class="user" title=${session.groups.join(", ")}>${session.user}</span>
      <button type="button" onClick=${leave}>Log out</button></header>
    <${Navigation} current=${page} close=${() => setOpen(false)} />
    <main>${late && !connected && html`<p class="notice busy" role="status">The connection is lost; what is shown may be old. Trying again …</p>`}
      ${page ? html`<${Page} key=${page.id} page=${page} rest=${rest} namespace=${namespace} />` : html`<div class="page"><h1>Not found</h1><p>There is no such page. <a href="#/overview">Overview</a></p></div>`}</main>
    <dialog ref=${help} aria-label="Keys"><h2>Keys</h2><dl class="fields">
      ${[["/", "filter, or search"], ["g, then a letter", "go to the page that shows it"], ["↑ ↓ j k, Page, Home, End", "move in a table"], ["Enter", "open the row"], ["?", "this"]].map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}
    </dl><footer><button class="primary" type="button" onClick=${() => help.current.close()}>Close</button></footer></dialog>
  </div>`;
}

function App({ known }) {
  const [inside, setInside] = useState(known);
  useEffect(() => onLoggedOut(() => { disconnect(); setInside(false); }), []);
  useEffect(() => { if (inside) connect(); }, [inside]);
  return inside ? html`<${Frame} leave=${logout} />` : html`<${Login} done=${() => setInside(true)} />`;
}

document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "auto";
const known = await resume().catch(() => false);
render(html`<${App} known=${known} />`, document.getElementById("app"));
