// What the link says about the charts, and back.

import { KINDS } from "relume/charts/marks.js";

const AXES = ["step", "epoch", "time"];

export function read(state) {
  const axis = AXES.includes(state.get("axis")) ? state.get("axis") : "step";
  const smooth = Number(state.get("smooth"));
  return {
    axis, log: state.get("log") === "1", smooth: smooth > 0 && smooth < 1 ? Math.min(0.99, smooth) : 0,
    zoom: range(state.get("zoom")), search: state.get("search"), metric: state.get("metric") || null,
    off: state.all("off").filter((kind) => KINDS.some(([known]) => known === kind)),
    band: state.get("band") !== "0", together: state.get("apart") !== "1", fold: state.all("fold"), unfold: state.all("unfold"),
  };
}

function range(text) {
  const [low, high, ...rest] = text.split(",").map(Number);
  return rest.length === 0 && Number.isFinite(low) && high > low && Number.isFinite(high) ? [low, high] : null;
}

// The options of a chart among them.
export function forChart({ axis, log, smooth, off, band }) {
  return { axis, log, smooth, off, band };
}

// What stands before a slash is a group only where it looks like a name.
const PREFIX = /^([\p{L}\p{N}_.-]{1,60})\/./u;

// The metrics of some runs by what stands before the first "/"; most interesting first, as the source orders them.
export function grouped(metrics, search) {
  const groups = new Map();
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  for (const metric of metrics) {
    if (!words.every((word) => metric.toLowerCase().includes(word))) continue;
    const prefix = PREFIX.exec(metric)?.[1] ?? "";
    groups.set(prefix, [...(groups.get(prefix) ?? []), metric]);
  }
  return groups;
}

// Long groups (a norm for each layer) and the machine's own are closed until somebody wants them.
const MANY = 16;

export function isOpen(prefix, count, { fold, unfold, search }) {
  if (fold.includes(prefix)) return false;
  return unfold.includes(prefix) || Boolean(search) || (count <= MANY && prefix !== "system");
}
