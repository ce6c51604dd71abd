// Which metrics of a run stand first, and a small curve of one.

import { svg } from "relume/dom.js";
import { number, toNumber } from "relume/format.js";

const FIRST = [/^val(idation)?[/_]/, /^test[/_]/, /^(?!train[/_])[^/]*(loss|accuracy|score|f1|auc)/, /^train[/_]/];
const BESIDE = new RegExp("^(system|freeze|lr|speed|time|hardware|weight_norms?|grad(ient)?(_norms?)?|weights?|param(eter)?s?"
  + "|activations?|dead_units|update_ratios?)/");

// The metrics that a person asks for first: those of validation, and those that have a better and a worse.
export function mainMetrics(metrics, count) {
  const all = Object.keys(metrics ?? {});
  const main = all.filter((name) => !BESIDE.test(name) && name !== "lr");
  const names = main.length ? main : all;
  const rank = (name) => {
    const place = FIRST.findIndex((pattern) => pattern.test(name));
    return (place < 0 ? FIRST.length : place) * 2 + (metrics[name].mode ? 0 : 1);
  };
  return names.map((name, place) => [rank(name), place, name]).sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .slice(0, count).map(([, , name]) => name);
}

export function bestText(metric) {
  if (!metric?.mode || metric.best === null || metric.best === undefined) return "";
  const { best_epoch: epoch, best_step: step } = metric;
  const where = epoch > 0 ? ` @ epoch ${number(epoch, 3)}` : Number.isFinite(step) ? ` @ step ${number(step)}` : "";
  return `best ${number(metric.best, 3)}${where}`;
}

// A line of 120 x 28 through the values; what is no number is left out.
export function sparkline(series) {
  const live = series.find((one) => one.branch === 0);
  if (!live) return null;
  const values = live.columns.value ?? live.columns.mean;
  const x = live.columns.step;
  const kept = [];
  for (let place = 0; place < values.length; place += 1) if (Number.isFinite(values[place])) kept.push([x[place],
    toNumber(values[place])]);
  if (kept.length < 2) return null;
  const step = Math.max(1, Math.floor(kept.length / 240));
  const points = kept.filter((_, place) => place % step === 0 || place === kept.length - 1);
  let [low, high] = [Infinity, -Infinity];
  for (const [, y] of points) { low = Math.min(low, y); high = Math.max(high, y); }
  const [first, last] = [points[0][0], points.at(-1)[0]];
  const place = ([px, py]) => [
    2 + 116 * (last > first ? (px - first) / (last - first) : 0.5), 26 - 24 * (high > low ? (py - low) / (high - low) : 0.5)];
  const path = points.map((one, at) => `${at ? "L" : "M"}${place(one).map((v) => v.toFixed(1)).join(" ")}`).join("");
  return svg("svg", { viewBox: "0 0 120 28", class: "tile-spark", "aria-hidden": "true", focusable: "false",
    preserveAspectRatio: "none" },
    svg("path", { d: path, "vector-effect": "non-scaling-stroke" }));
}
