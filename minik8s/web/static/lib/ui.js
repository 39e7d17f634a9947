// The small parts that all pages are made of.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.mjs";
import { age } from "./format.js";

export { html, useEffect, useRef, useState };
export { useLayoutEffect, useMemo, useErrorBoundary } from "../vendor/htm-preact.mjs";

export const href = (...parts) => `#/${parts.map((part) => encodeURIComponent(part || "_")).join("/")}`;

// Rendered again now and then, for what tells how long something has been.
export function useTick(seconds = 10) {
  const [, set] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => set((n) => n + 1), seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);
}

export function useMedia(query) {
  const [matches, set] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const changed = () => set(media.matches);
    media.addEventListener("change", changed);
    changed();
    return () => media.removeEventListener("change", changed);
  }, [query]);
  return matches;
}

// The value of a promise: [value, error]. `key` says when it is asked for again.
export function useAsked(ask, key) {
  const [state, set] = useState([undefined, null]);
  useEffect(() => {
    let current = true;
    ask().then((value) => current && set([value, null]), (error) => current && set([undefined, error]));
    return () => { current = false; };
  }, [key]);
  return state;
}

export const State = ({ of: [text, tone] }) => html`<span class="state ${tone}"><i aria-hidden="true"></i>${text}</span>`;
export const Age = ({ time }) => html`<time datetime=${time} title=${time}>${age(time)}</time>`;
export const Notice = ({ error, tone = "bad", children }) =>
  error || children ? html`<p class="notice ${tone}" role=${tone === "bad" ? "alert" : "status"}>${error ? error.message : children}</p>` : null;
export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;
export const Card = ({ title, aside, children, className = "" }) =>
  html`<section class="card ${className}">${title && html`<header><h2>${title}</h2>${aside}</header>`}${children}</section>`;

export const Fields = ({ of }) => html`<dl class="fields">
  ${of.filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false).map(([name, value]) => html`
    <div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
</dl>`;

export const Labels = ({ of }) => {
  const pairs = Object.entries(of ?? {});
  return pairs.length ? html`<ul class="labels">${pairs.map(([key, value]) => html`
    <li key=${key}><span>${key}</span>${value && html`<b>${value}</b>`}</li>`)}</ul>` : null;
};

export function Meter({ label, value, limit, show }) {
  const share = limit > 0 ? Math.min(1, value / limit) : 0;
  const tone = share > 0.9 ? "bad" : share > 0.75 ? "busy" : "ok";
  return html`<div class="meter">
    <div><span>${label}</span><span>${show(value)} <small>of ${show(limit)}</small></span></div>
    <div class="track" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(share * 100)}>
      <i class=${tone} style=${{ width: `${share * 100}%` }}></i></div>
  </div>`;
}

export const Conditions = ({ of }) => !of?.length ? null : html`<${Card} title="Conditions">
  <ul class="conditions">${of.map((c) => html`<li key=${c.type}>
    <b>${c.type}</b><span class="state ${c.status === "True" ? "ok" : c.status === "False" ? "none" : "busy"}"><i></i>${c.status}</span>
    <span>${c.reason}</span><span class="quiet">${c.message}</span>
    <${Age} time=${c.lastTransitionTime} /></li>`)}</ul>
</${Card}>`;

// Asks before something is done; `act` may fail, and then the dialog says why.
export function Action({ label, title, text, danger, act, field }) {
  const dialog = useRef(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [value, setValue] = useState("");
  const open = () => {
    setError(null);
    setValue(field ? String(field.value) : "");
    dialog.current.showModal();
  };
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await act(value);
      dialog.current.close();
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  return html`<button type="button" class=${danger ? "danger" : ""} onClick=${open}>${label}</button>
    <dialog ref=${dialog} aria-label=${title}>
      <form onSubmit=${submit}>
        <h2>${title}</h2><p>${text}</p>
        ${field?.text && html`<label>${field.label}<textarea rows="8" spellcheck="false" value=${value} onInput=${(e) => setValue(e.target.value)}></textarea></label>`}
        ${field && !field.text && html`<label>${field.label}<input type="number" min="0" max="5000" required value=${value} onInput=${(e) => setValue(e.target.value)} /></label>`}
        <${Notice} error=${error} />
        <footer><button type="button" onClick=${() => dialog.current.close()}>Cancel</button>
          <button class=${danger ? "danger primary" : "primary"} disabled=${busy}>${label}</button></footer>
      </form>
    </dialog>`;
}
