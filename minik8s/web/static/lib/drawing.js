// A drawing of the API (SVG) as elements of the page: only shapes and texts of it, never a script, link or style.
// States of workflows are groups with data-state and data-status: they can be chosen, and are coloured by app.css.

import { h } from "../vendor/htm-preact.mjs";
import { html } from "./ui.js";

const SHAPES = new Set(["svg", "g", "defs", "marker", "path", "rect", "text", "title", "circle", "line"]);
const FORBIDDEN = /^(on|style$|href$|xlink|xmlns|class$|id$)/i;

function element(node, options) {
  if (node.nodeType === Node.TEXT_NODE) return node.textContent;
  if (node.nodeType !== Node.ELEMENT_NODE || !SHAPES.has(node.localName)) return null;
  const given = [...node.attributes].filter(({ name }) => !FORBIDDEN.test(name) || (name === "id" && node.localName === "marker"));
  const attributes = Object.fromEntries(given.map(({ name, value }) => [name, value]));
  const state = node.getAttribute("data-state");
  if (state !== null && options.choose) {
    Object.assign(attributes, {
      key: state, tabindex: "0", role: "button", "aria-pressed": String(state === options.chosen), onClick: () => options.choose(state),
      onKeyDown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); options.choose(state); } },
    });
  }
  return h(node.localName, attributes, [...node.childNodes].map((child) => element(child, options)));
}

export function Drawing({ source, label, chosen, choose }) {
  const parsed = new DOMParser().parseFromString(source, "image/svg+xml").documentElement;
  return html`<div class="drawing" role="group" aria-label=${label}>${parsed.localName === "svg" ? element(parsed, { chosen, choose }) : "The drawing cannot be read."}</div>`;
}
