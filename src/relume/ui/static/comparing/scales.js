// Where a value lies on an axis: numbers evenly or by powers of ten, all else by name.

import { setting } from "relume/format.js";
import { compared, isMissing } from "relume/tables/order.js";

const TIMES = ["created", "seconds"];
const WIDE = 30; // times the smallest value: from there on powers of ten tell more
const NEAR = 0.055; // of an axis: labels that are nearer lie on each other

// {kind: "linear" | "log" | "names", at(value) -> 0…1 or null, ticks: [{at, label}], low, high, between(a, b) -> values' test}
export function scaleOf(rows, column, wanted = "") {
  const values = rows.map((row) => column.value(row));
  const all = values.filter((value) => !isMissing(value));
  const known = all.filter((value) => typeof value === "number" && Number.isFinite(value));
  // One text among numbers, as another experiment may have it, has no place on their scale.
  if (known.length <= all.length / 2) return names(all);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const isLog = low > 0 && (wanted === "log" || (wanted === "" && high / low >= WIDE));
  const say = TIMES.includes(column.key) ? (value) => column.text({ [column.key]: value }) : brief;
  return isLog ? logarithmic(low, high, say) : linear(low, high, known, say);
}

function linear(low, high, known, say) {
  const spread = high - low || Math.abs(high) || 1;
  const [from, to] = high > low ? [low, high] : [low - spread / 2, high + spread / 2];
  const few = [...new Set(known)];
  const ticks = few.length <= 5 ? few : even(from, to);
  const at = (value) => (value - from) / (to - from);
  return made("linear", low, high, at, ticks, say, (share) => rounded(from + share * (to - from), to - from));
}

function logarithmic(low, high, say) {
  const [from, to] = high > low ? [Math.log10(low), Math.log10(high)] : [Math.log10(low) - 0.5, Math.log10(low) + 0.5];
  const ticks = [];
  for (let power = Math.ceil(from - 1e-9); power <= to + 1e-9; power += 1) ticks.push(10 ** power);
  const thin = ticks.filter((_, place) => place % Math.ceil(ticks.length / 6) === 0);
  const at = (value) => (value > 0 ? (Math.log10(value) - from) / (to - from) : null);
  return made("log", low, high, at, thin.length >= 2 ? thin : [low, high], say, (share) =>
    Number((10 ** (from + share * (to - from))).toPrecision(4)),
  );
}

function made(kind, low, high, at, ticks, say, value) {
  const inside = (one) => (typeof one === "number" && Number.isFinite(one) ? at(one) : null);
  return {
    kind,
    low,
    high,
    at: inside,
    valueAt: value,
    ticks: apart(ticks.map((one) => ({ at: at(one), label: say(one) }))),
    isWithin: (one, first, last) => typeof one === "number" && one >= first && one <= last,
  };
}

function apart(ticks) {
  const found = [];
  for (const tick of ticks.sort((a, b) => a.at - b.at))
    if (!found.length || tick.at - found.at(-1).at >= NEAR) found.push(tick);
  return found;
}

function names(known) {
  const found = [...new Set(known.map(String))].sort(compared);
  const places = new Map(found.map((name, place) => [name, place]));
  const at = (value) => (isMissing(value) ? null : found.length < 2 ? 0.5 : places.get(String(value)) / (found.length - 1));
  const step = Math.ceil(found.length / 12);
  return {
    kind: "names",
    names: found,
    low: found[0],
    high: found.at(-1),
    at,
    valueAt: (share, side) => found[Math.min(found.length - 1, Math.max(0, Math[side](share * (found.length - 1))))],
    ticks: found
      .filter((_, place) => place % step === 0)
      .map((name) => ({ at: at(name), label: name === "" ? "—" : setting(name) })),
    isWithin: (value, first, last) => {
      const place = isMissing(value) ? undefined : places.get(String(value));
      return (
        place !== undefined &&
        place >= (places.get(String(first)) ?? 0) &&
        place <= (places.get(String(last)) ?? found.length)
      );
    },
  };
}

// To a thousandth of the axis: what the pointer can tell.
function rounded(value, spread) {
  const step = 10 ** Math.floor(Math.log10(spread / 1000));
  return Number((Math.round(value / step) * step).toPrecision(12));
}

// 0.1 and not 0.1000: what a scale has room for.
function brief(value) {
  const size = Math.abs(value);
  const text =
    size !== 0 && (size < 1e-3 || size >= 1e6)
      ? value.toExponential(2).replace(/\.?0+e/, "e")
      : String(Number(value.toPrecision(4)));
  return text.replaceAll("-", "−").replace("e+", "e");
}

// Round numbers between two, about five of them.
export function even(from, to) {
  const rough = (to - from) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((one) => one * power >= rough) * power;
  const ticks = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to + step * 1e-9; tick += step)
    ticks.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
  return ticks;
}
