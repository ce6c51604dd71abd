// The columns that a table of runs can have. A column's key stands in the link: "status", "best:val/loss", "last:val/loss",
// "curve:val/loss", "config:lr". The names are those that conditions know too.

import { visible } from "relume/dom.js";
import { duration, moment, number, setting, toNumber } from "relume/format.js";

const OWN = {
  status: { label: "status", value: (row) => row.status },
  created: { label: "started", value: (row) => row.created, text: (row) => moment(row.created) },
  seconds: { label: "took", isNumeric: true, value: (row) => row.seconds, text: (row) => duration(row.seconds) },
  epoch: { label: "epoch", isNumeric: true, value: (row) => row.epoch },
  step: { label: "step", isNumeric: true, value: (row) => row.step },
  seed: { label: "seed", isNumeric: true, value: (row) => row.seed },
  tags: { label: "tags", value: (row) => (row.tags ?? []).join(", ") },
  notes: { label: "notes", value: (row) => row.notes },
  id: { label: "id", value: (row) => row.id },
};

const KINDS = ["best", "last", "curve"];

export const own = Object.keys(OWN);

// {key, kind, name, label, sub, isNumeric, value(row), text(row)}; null where the key means nothing.
export function column(key, answer) {
  if (Object.hasOwn(OWN, key)) return { key, kind: key, name: key, sub: "", text: plain, ...OWN[key] };
  const at = key.indexOf(":");
  const [kind, name] = [key.slice(0, at), key.slice(at + 1)];
  if (at < 0 || name === "") return null;
  if (kind === "config") return settingColumn(key, name, answer);
  return KINDS.includes(kind) ? metricColumn(key, kind, name, answer) : null;
}

// The name of a run is always there; it is a column only where one is sorted by it, or written into a file.
export const nameColumn = { key: "name", kind: "name", name: "name", label: "name", sub: "", value: (row) => row.name, text: (row) => row.name };

function metricColumn(key, kind, name, answer) {
  const which = kind === "best" ? "best" : "last";
  const value = (row) => (row.metrics?.[name] ? toNumber(row.metrics[name][which]) : null);
  return {
    key, kind, name, value, label: name, isNumeric: kind !== "curve", sub: kind, mode: modeOf(name, answer),
    text: (row) => number(value(row)),
  };
}

function settingColumn(key, name, answer) {
  const value = (row) => plainSetting(row.config?.[name]);
  const [label, ...outer] = name.split(".").reverse();
  return {
    key, kind: "config", name, value, sub: "", label: label || name, hint: label ? outer.reverse().join(".") : "",
    isNumeric: (answer?.runs ?? []).every((row) => row.config?.[name] === undefined || typeof row.config[name] === "number"),
    text: (row) => (row.config?.[name] === undefined ? "" : setting(row.config[name])),
  };
}

function plain(row) {
  const value = this.value(row);
  return value === null || value === undefined ? "" : typeof value === "number" ? String(value) : value;
}

function plainSetting(value) {
  if (value === undefined) return null;
  return typeof value === "number" || typeof value === "string" ? value : setting(value);
}

// Which way a metric gets better; null where its name does not tell.
export function modeOf(name, answer) {
  for (const row of answer?.runs ?? []) {
    const mode = row.metrics?.[name]?.mode;
    if (mode) return mode;
  }
  return null;
}

// What is shown when the link does not say: how runs stand, the metrics that matter, and the settings that differ.
export function usual(answer) {
  const metrics = answer.metrics.filter((name) => !name.startsWith("system/"));
  const main = mainMetric(answer);
  const first = [main, ...metrics.filter((name) => name !== main && modeOf(name, answer))].filter(Boolean).slice(0, 4);
  return [
    "status", ...(main ? [`curve:${main}`] : []), ...first.map((name) => `best:${name}`),
    ...differing(answer).slice(0, 5).map((name) => `config:${name}`), "created", "seconds", "tags", "notes",
  ];
}

// The metric that a group, a small curve and a comparison speak of first.
export function mainMetric(answer) {
  const metrics = answer.metrics.filter((name) => !name.startsWith("system/"));
  return metrics.find((name) => modeOf(name, answer)) ?? metrics[0] ?? null;
}

// Settings that the runs do not agree on.
export function differing(answer, rows = answer.runs) {
  const known = rows.filter((row) => row.config);
  return answer.settings.filter((name) => new Set(known.map((row) => setting(row.config[name]))).size > 1);
}

// The whole name; the heading of a setting shows what its name ends with, and the rest below it.
export function title(one) {
  const name = one.kind === "config" ? one.name : one.label;
  return visible(one.sub ? `${name} (${one.sub})` : name);
}
