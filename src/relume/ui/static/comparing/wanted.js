// What the link says of a comparison, and what it means when it says nothing.

import { column, differing, mainMetric, modeOf, valueOf } from "relume/tables/columns.js";

export const MOST = 50;
const AXES = 7;

export function wanted(state, answer, rows) {
  const main = mainMetric(within(answer, rows));
  const result = column(state.get("result"), answer) ?? (main ? column(`best:${main}`, answer) : null);
  const settings = numbersFirst(differing(answer, rows), rows).map((name) => `config:${name}`);
  const axes = state.has("axis") ? state.all("axis") : [...settings.slice(0, AXES - 1), ...(result ? [result.key] : [])];
  const others = offered(answer, rows).filter((key) => key !== result?.key);
  return {
    result,
    axes: [...new Set(axes)].map((key) => column(key, answer)).filter(Boolean),
    brushes: brushes(state.all("limit")),
    x: column(state.get("x"), answer) ?? column(settings[0] ?? others[0] ?? "step", answer),
    y: column(state.get("y"), answer) ?? result ?? column(others[1] ?? "seconds", answer),
    xScale: state.get("xscale"),
    yScale: state.get("yscale"),
    everything: state.get("all") === "1",
  };
}

// All that an axis can be made of, for these runs.
export function offered(answer, rows) {
  const metrics = answer.metrics.filter((name) => rows.some((row) => valueOf(row.metrics, name)));
  const settings = answer.settings.filter((name) => rows.some((row) => valueOf(row.config, name) !== undefined));
  const first = differing(answer, rows);
  const ordered = [...first, ...settings.filter((name) => !first.includes(name))];
  return [
    ...ordered.map((name) => `config:${name}`),
    ...metrics.map((name) => `best:${name}`),
    ...metrics.map((name) => `last:${name}`),
    "seconds",
    "epoch",
    "step",
    "seed",
    "created",
  ];
}

function within(answer, rows) {
  const metrics = answer.metrics.filter((name) => rows.some((row) => valueOf(row.metrics, name)));
  const told = metrics.filter((name) => modeOf(name, answer));
  return { ...answer, runs: rows, metrics: [...told, ...metrics.filter((name) => !told.includes(name))] };
}

// Numbers read better side by side than lists of files and texts.
function numbersFirst(names, rows) {
  const isNumber = (name) =>
    rows.every((row) => valueOf(row.config, name) === undefined || typeof row.config[name] === "number");
  const isShort = (name) => rows.every((row) => String(valueOf(row.config, name) ?? "").length < 40);
  return [...names.filter(isNumber), ...names.filter((name) => !isNumber(name) && isShort(name))];
}

// Limits stand in the link as ["config:lr", 0.001, 0.1].
function brushes(texts) {
  const found = new Map();
  for (const text of texts) {
    try {
      const [key, low, high] = JSON.parse(text);
      if (typeof key === "string" && high !== undefined) found.set(key, [low, high]);
    } catch {
      /* a link that somebody cut short: without this limit */
    }
  }
  return found;
}

export function limits(found) {
  return [...found].map(([key, [low, high]]) => JSON.stringify([key, low, high]));
}
