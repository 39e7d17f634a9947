// The pages, in the order of the navigation. A page is {id, title, group, key?, view}: `view` is a component that is
// given {rest, namespace}: the parts of the address after the page's id, and the namespace that is chosen ("": all).
// Another page is a module of its own and a line here; pages of a plain kind need only a row in lib/kinds.js.

import { KINDS } from "../lib/kinds.js";
import engine from "./engine.js";
import events from "./events.js";
import { kindPage } from "./kind.js";
import overview from "./overview.js";
import search from "./search.js";
import volumes from "./volumes.js";

const GROUPS = {
  nodes: "Cluster", namespaces: "Cluster", deployments: "Workloads", replicasets: "Workloads", daemonsets: "Workloads", jobs: "Workloads",
  functions: "Functions", functionrevisions: "Functions", triggers: "Functions", environments: "Functions", workflows: "Functions", workflowruns: "Functions",
  gpujobs: "Supercomputers", hpcclusters: "Supercomputers",
  pods: "Workloads", horizontalpodautoscalers: "Workloads", services: "Network", ingresses: "Network", configmaps: "Config", secrets: "Config",
};
// "g" and then this goes to the page.
const KEYS = { nodes: "n", deployments: "d", jobs: "j", pods: "p", services: "s", ingresses: "i", horizontalpodautoscalers: "a", configmaps: "c", functions: "f", workflows: "w", workflowruns: "r" };

const kinds = KINDS.map((kind) => kindPage(kind, GROUPS[kind.id], KEYS[kind.id]));
const inGroup = (group) => kinds.filter((page) => page.group === group);

export const PAGES = [
  overview, search, ...inGroup("Cluster"), engine, events, ...inGroup("Workloads"), ...inGroup("Functions"), ...inGroup("Supercomputers"), ...inGroup("Network"), ...inGroup("Config"), volumes,
];
