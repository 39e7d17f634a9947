// What has happened, the newest first.

import { EVENT_COLUMNS } from "../lib/kinds.js";
import { useLive } from "../lib/live.js";
import { Table } from "../lib/table.js";
import { html } from "../lib/ui.js";

function Events({ namespace }) {
  const { items, loaded, error } = useLive(namespace ? `/api/v1/namespaces/${encodeURIComponent(namespace)}/events` : "/api/v1/events");
  return html`<div class="fill"><h1>Events</h1><${Table} label="events" columns=${EVENT_COLUMNS} items=${items} loaded=${loaded} error=${error} none="Nothing has happened of late." /></div>`;
}

export default { id: "events", title: "Events", group: "Cluster", key: "e", view: Events };
