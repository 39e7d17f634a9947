// A shell in a container. The terminal's code is loaded when the first one is opened.

import { html, Notice, useEffect, useRef, useState } from "./ui.js";

const ENCODER = new TextEncoder();
const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const ERROR = 3;
const RESIZE = 4;

let loading = null;

// The terminal makes style elements of its own; the page's policy admits them by its nonce.
function admitStyles() {
  const { nonce } = document.getElementById("main");
  const create = document.createElement.bind(document);
  document.createElement = (name, options) => {
    const made = create(name, options);
    if (name === "style") made.nonce = nonce;
    return made;
  };
}

function load() {
  loading ??= Promise.all([import("../vendor/xterm.mjs"), import("../vendor/xterm-fit.mjs")]).then(([main, fit]) => {
    admitStyles();
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = "/static/vendor/xterm.css";
    document.head.append(sheet);
    return { Terminal: main.Terminal, FitAddon: fit.FitAddon };
  });
  return loading;
}

function message(channel, data) {
  const content = typeof data === "string" ? ENCODER.encode(data) : data;
  const whole = new Uint8Array(content.length + 1);
  whole[0] = channel;
  whole.set(content, 1);
  return whole;
}

async function open(place, pod, container, told) {
  const { Terminal, FitAddon } = await load();
  const terminal = new Terminal({ fontFamily: "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace", fontSize: 13, cursorBlink: true, theme: { background: "#14171d" } });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(place);
  fit.fit();
  const query = new URLSearchParams({ container });
  const path = [pod.metadata.namespace, pod.metadata.name].map(encodeURIComponent).join("/");
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/exec/${path}?${query}`, ["v4.channel.k8s.io"]);
  socket.binaryType = "arraybuffer";
  const send = (channel, data) => socket.readyState === WebSocket.OPEN && socket.send(message(channel, data));
  const resize = () => send(RESIZE, JSON.stringify({ Width: terminal.cols, Height: terminal.rows }));
  socket.onopen = () => { resize(); terminal.focus(); told({ state: "open" }); };
  socket.onmessage = ({ data }) => {
    const bytes = new Uint8Array(data);
    if (bytes[0] === STDOUT || bytes[0] === STDERR) terminal.write(bytes.subarray(1));
    else if (bytes[0] === ERROR) {
      const status = JSON.parse(new TextDecoder().decode(bytes.subarray(1)));
      if (status.status !== "Success") told({ state: "ended", error: status });
    }
  };
  socket.onclose = () => told({ state: "ended" });
  terminal.onData((data) => send(STDIN, data));
  terminal.onResize(resize);
  const watcher = new ResizeObserver(() => fit.fit());
  watcher.observe(place);
  return () => { watcher.disconnect(); socket.close(); terminal.dispose(); };
}

export function Terminal({ pod }) {
  const running = (pod.status?.containerStatuses ?? []).filter((c) => c.state?.running).map((c) => c.name);
  const [container, setContainer] = useState(running[0] ?? "");
  const [attempt, setAttempt] = useState(0);
  const [{ state, error }, setState] = useState({ state: "opening" });
  const place = useRef(null);
  useEffect(() => {
    if (!container) return undefined;
    let close = null;
    let left = false;
    setState({ state: "opening" });
    const told = (news) => { if (!left) setState((old) => ({ error: old.error, ...news })); };
    open(place.current, pod, container, told).then(
      (ending) => { close = ending; if (left) ending(); }, (failure) => told({ state: "ended", error: failure }));
    return () => { left = true; close?.(); };
  }, [pod.metadata.uid, container, attempt]);
  if (!running.length) return html`<${Notice} tone="busy">No container of this pod is running.</${Notice}>`;
  return html`<section class="terminal">
    <div class="tools"><label>Container <select value=${container} onChange=${(e) => setContainer(e.target.value)}>
      ${running.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>
      <span class="quiet" role="status">${{ opening: "Opening …", open: "Connected", ended: "The shell has ended." }[state]}</span>
      ${state === "ended" && html`<button type="button" onClick=${() => setAttempt(attempt + 1)}>Open another</button>`}
    </div>
    <${Notice} error=${error} />
    <div class="screen" ref=${place}></div>
  </section>`;
}
