// The columns that a table of runs can have. A column's key stands in the link: "status", "best:val/loss", "last:val/loss",
// "curve:val/loss", "config:lr". The names are those that conditions know too.

import { visible } from "relume/dom.js";
import { duration, moment, number, setting, toNumber } from "relume/format.js";

const OWN = {
  status: { label: "status", value: (row) => row.status },
  created: { label: "started", value: (row) => row.created, text: (row) => brief(row.created) },
  seconds: { label: "took", isNumeric: true, value: (row) => row.seconds, text: (row) => duration(row.seconds) },
  epoch: { label: "epoch", isNumeric: true, value: (row) => row.epoch },
  step: { label: "step", isNumeric: true, value: (row) => row.step },
  seed: { label: "seed", isNumeric: true, value: (row) => row.seed },
  tags: { label: "tags", value: (row) => (row.tags ?? []).join(", ") },
  notes: { label: "notes", value: (row) => row.notes },
  id: { label: "id", value: (row) => row.id },
};

// What an object itself has: a setting may be called "constructor".
export function valueOf(object, name) {
  return object && Object.hasOwn(object, name) ? object[name] : undefined;
}

// The year is in the title; where it is not this one, here too.
function brief(seconds) {
  const date = new Date(seconds * 1000);
  const hasYear = date.getFullYear() !== new Date().getFullYear();
  return moment(seconds).replace(/ \d{4}(?=,)/, (year) => (hasYear ? year : ""));
}

const KINDS = ["best", "last", "curve"];

const NAMELESS = "(no name)";
const METRICS = 3;
const SETTINGS = [4, 6]; // on most screens, and on wide ones

export const own = Object.keys(OWN);

// {key, kind, name, label, sub, isNumeric, value(row), text(row)}; null where the key means nothing.
export function column(key, answer) {
  if (Object.hasOwn(OWN, key)) return { key, kind: key, name: key, sub: "", text: plain, ...OWN[key] };
  const at = key.indexOf(":");
  const [kind, name] = [key.slice(0, at), key.slice(at + 1)];
  if (at < 0) return null;
  if (kind === "config") return settingColumn(key, name, answer);
  return KINDS.includes(kind) ? metricColumn(key, kind, name, answer) : null;
}

// The name of a run is always there; it is a column only where one is sorted by it, or written into a file.
export const nameColumn = {
  key: "name",
  kind: "name",
  name: "name",
  label: "name",
  sub: "",
  value: (row) => row.name,
  text: (row) => row.name,
};

function metricColumn(key, kind, name, answer) {
  const which = kind === "best" ? "best" : "last";
  const value = (row) => (valueOf(row.metrics, name) ? toNumber(row.metrics[name][which]) : null);
  return {
    key,
    kind,
    name,
    value,
    label: name || NAMELESS,
    isNumeric: kind !== "curve",
    sub: kind,
    mode: modeOf(name, answer),
    text: (row) => trimmed(value(row)),
  };
}

function settingColumn(key, name, answer) {
  const value = (row) => plainSetting(valueOf(row.config, name));
  const [label, ...outer] = name.split(".").reverse();
  return {
    key,
    kind: "config",
    name,
    value,
    sub: "",
    label: label || name || NAMELESS,
    hint: label ? outer.reverse().join(".") : "",
    isNumeric: isMostlyNumbers(name, answer),
    text: (row) => (valueOf(row.config, name) === undefined ? "" : setting(row.config[name])),
  };
}

// One text among numbers, as another experiment may have it, does not turn the column.
function isMostlyNumbers(name, answer) {
  const values = (answer?.runs ?? [])
    .map((row) => valueOf(row.config, name))
    .filter((value) => value !== undefined && value !== null);
  return values.length > 0 && values.filter((value) => typeof value === "number").length > values.length / 2;
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
    const mode = valueOf(row.metrics, name)?.mode;
    if (mode) return mode;
  }
  return null;
}

// 0.04 and not 0.04000: in a column of numbers zeros that say nothing are in the way.
export function trimmed(value) {
  return number(value)
    .replace(/(\.\d*?)0+(?=e|$)/, "$1")
    .replace(/\.(?=e|$)/, "");
}

// What is shown when the link does not say: how runs stand, the metrics that matter, and the settings that differ most.
export function usual(answer) {
  const main = mainMetric(answer);
  const metrics = answer.metrics.filter((name) => !name.startsWith("system/") && name !== main && modeOf(name, answer));
  const isVariant = (name) => [main, ...metrics].some((other) => other !== name && name.startsWith(`${other}_`));
  const first = [main, ...metrics.filter((name) => !isVariant(name))].filter(Boolean).slice(0, METRICS);
  return [
    "status",
    ...(main ? [`curve:${main}`] : []),
    ...first.map((name) => `best:${name}`),
    ...telling(answer, SETTINGS[Number(window.innerWidth > 1650)]).map((name) => `config:${name}`),
    "created",
    "seconds",
    "tags",
    "notes",
  ];
}

// Settings that many runs have and that differ among them, in the order of the settings; long texts are read elsewhere.
function telling(answer, most) {
  const about = answer.settings.map((name, place) => {
    const values = answer.runs
      .map((row) => valueOf(row.config, name))
      .filter((value) => value !== undefined && value !== null)
      .map(setting);
    const isLong = values.filter((value) => value.length > 24).length * 4 > values.length;
    return { name, place, count: values.length, kinds: new Set(values).size, isLong };
  });
  const some = about.filter((one) => one.kinds > 1 && !one.isLong);
  const best = some
    .sort((a, b) => Math.log2(b.kinds) * b.count - Math.log2(a.kinds) * a.count || a.place - b.place)
    .slice(0, most);
  return best.sort((a, b) => a.place - b.place).map((one) => one.name);
}

// The metric that a group, a small curve and a comparison speak of first.
export function mainMetric(answer) {
  const metrics = answer.metrics.filter((name) => !name.startsWith("system/"));
  return metrics.find((name) => modeOf(name, answer)) ?? metrics[0] ?? null;
}

// Settings that the runs that have them do not agree on.
export function differing(answer, rows = answer.runs) {
  return answer.settings.filter((name) => {
    const values = rows.map((row) => valueOf(row.config, name)).filter((value) => value !== undefined && value !== null);
    return new Set(values.map(setting)).size > 1;
  });
}

// The whole name; the heading of a setting shows what its name ends with, and the rest below it.
export function title(one) {
  const name = one.kind === "config" ? one.name || NAMELESS : one.label;
  return visible(one.sub ? `${name} (${one.sub})` : name);
}
