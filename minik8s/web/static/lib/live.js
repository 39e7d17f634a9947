// What is followed: one WebSocket for the page, one Collection for each path, shared by all that show it.
// A connection that breaks is made again, and each collection goes on after the version that it has seen.

import { check } from "./api.js";
import { useEffect, useState } from "../vendor/htm-preact.mjs";

const KEEP = 20000; // ms that a collection is kept after the last who showed it has gone: going back is instant
let socket = null;
let retry = 500;
let wanted = false;
let counter = 0;
const followed = new Map(); // id -> Collection or Log
const listeners = new Set(); // of the connection's state
export let connected = false;

function setConnected(value) {
  if (connected === value) return;
  connected = value;
  for (const listener of listeners) listener(value);
}

export function connect() {
  wanted = true;
  if (socket) return;
  const here = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket = here;
  here.onopen = () => {
    retry = 500;
    setConnected(true);
    for (const one of followed.values()) send(one.request());
  };
  here.onmessage = (event) => {
    const [id, kind, ...rest] = JSON.parse(event.data);
    followed.get(id)?.take(kind, rest);
  };
  here.onclose = () => {
    if (socket !== here) return;
    socket = null;
    setConnected(false);
    if (!wanted) return;
    setTimeout(async () => { await check(); if (wanted) connect(); }, retry * (0.7 + Math.random() * 0.6));
    retry = Math.min(retry * 2, 10000);
  };
}

export function disconnect() {
  wanted = false;
  for (const one of followed.values()) one.forget?.();
  followed.clear();
  collections.clear();
  const old = socket;
  socket = null;
  old?.close();
  setConnected(false);
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

class Collection {
  constructor(path, query) {
    this.id = `c${++counter}`;
    this.path = path;
    this.query = query;
    this.objects = new Map();
    this.next = null; // the collection as it is read anew
    this.version = "";
    this.loaded = false;
    this.error = null;
    this.showing = new Set();
    this.items = [];
    this.scheduled = false;
    this.leaving = 0;
  }

  request() {
    return { id: this.id, path: this.path, query: this.query, version: this.next ? "" : this.version };
  }

  take(kind, rest) {
    if (kind === "PAGE") this.page(...rest);
    else if (kind === "EVENTS") for (const frame of rest[0]) this.event(frame);
    else if (kind === "ERROR") {
      if (this.error?.message === rest[0].message) return;
      this.error = rest[0];
    }
    this.changed();
  }

  page(first, list) {
    if (first) {
      this.next = new Map();
      this.version = list.metadata.resourceVersion;
    }
    for (const object of list.items) this.next?.set(object.metadata.uid, object);
    const complete = !list.metadata.continue;
    if (complete || !this.loaded) this.objects = this.next; // a first reading shows what has come so far
    if (!complete) return;
    this.next = null;
    this.loaded = true;
    this.error = null;
  }

  event({ type, object }) {
    this.version = object.metadata.resourceVersion || this.version;
    if (type === "BOOKMARK" || type === "ERROR") return;
    if (type === "DELETED") this.objects.delete(object.metadata.uid);
    else this.objects.set(object.metadata.uid, object);
    this.error = null;
  }

  // Many changes are shown together; a large collection less often.
  changed() {
    if (this.scheduled) return;
    this.scheduled = true;
    const show = () => {
      this.scheduled = false;
      this.items = [...this.objects.values()];
      for (const callback of this.showing) callback({});
    };
    if (!this.items.length) show();
    else setTimeout(show, this.objects.size > 1000 ? 300 : 40);
  }

  add(callback) {
    clearTimeout(this.leaving);
    this.showing.add(callback);
  }

  drop(callback) {
    this.showing.delete(callback);
    if (!this.showing.size) this.leaving = setTimeout(() => this.end(), KEEP);
  }

  end() {
    followed.delete(this.id);
    collections.delete(keyOf(this.path, this.query));
    send({ id: this.id, stop: true });
  }

  forget() { clearTimeout(this.leaving); }
}

const collections = new Map();
const keyOf = (path, query) => `${path}?${JSON.stringify(query)}`;

function collection(path, query) {
  const key = keyOf(path, query);
  if (!collections.has(key)) {
    const made = new Collection(path, query);
    collections.set(key, made);
    followed.set(made.id, made);
    send(made.request());
  }
  return collections.get(key);
}

const NOTHING = { items: [], loaded: true, error: null };

// {items, loaded, error} of a path, live. `null` follows nothing.
export function useLive(path, query = {}) {
  const [, redraw] = useState(null);
  const key = path && keyOf(path, query);
  useEffect(() => {
    if (!path) return undefined;
    const found = collection(path, query);
    found.add(redraw);
    redraw({});
    return () => found.drop(redraw);
  }, [key]);
  return path ? collection(path, query) : NOTHING;
}

export function useConnected() {
  const [value, set] = useState(connected);
  useEffect(() => { listeners.add(set); set(connected); return () => listeners.delete(set); }, []);
  return value;
}

// Follow a container's log; `callbacks` are text(string), end(), error(status), begin(). Returns a function that ends it.
export function followLog(path, query, callbacks) {
  const id = `l${++counter}`;
  followed.set(id, {
    request() { callbacks.begin(); return { id, path, query, log: true }; },
    take(kind, rest) {
      if (kind === "TEXT") callbacks.text(rest[0]);
      else if (kind === "END") callbacks.end();
      else callbacks.error(rest[0]);
    },
  });
  if (socket?.readyState === WebSocket.OPEN) send(followed.get(id).request());
  return () => {
    followed.delete(id);
    send({ id, stop: true });
  };
}
