// How good a result is, as a colour: it gets darker on white and brighter on black, so that it reads without hue too.

import { isDark } from "relume/colors.js";

const LIGHT = [
  [132, 146, 166],
  [84, 138, 210],
  [32, 84, 186],
  [58, 12, 104],
];
const DARK = [
  [104, 118, 140],
  [70, 140, 205],
  [90, 208, 190],
  [255, 240, 150],
];

export function tint(share) {
  if (share === null || Number.isNaN(share)) return isDark() ? "#7d8594" : "#8a8f98";
  const stops = isDark() ? DARK : LIGHT;
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const place = Math.min(stops.length - 2, Math.floor(at));
  const mixed = stops[place].map((one, part) => Math.round(one + (stops[place + 1][part] - one) * (at - place)));
  return `rgb(${mixed.join(" ")})`;
}

// From where to where the colours go: all results, but for those far off, which would leave one colour to all others.
export function range(rows, column) {
  const known = rows
    .map((row) => column?.value(row))
    .filter((value) => typeof value === "number" && Number.isFinite(value))
    .sort((a, b) => a - b);
  if (!known.length) return null;
  const at = (share) => known[Math.round(share * (known.length - 1))];
  const reach = 1.5 * (at(0.75) - at(0.25)); // Tukey's fences
  const inside =
    known.length < 5 || reach === 0
      ? known
      : known.filter((value) => value >= at(0.25) - reach && value <= at(0.75) + reach);
  return { low: inside[0], high: inside.at(-1), isBelow: known[0] < inside[0], isAbove: known.at(-1) > inside.at(-1) };
}

// Each run's share of the way from the worst to the best result.
export function shares(rows, column) {
  const found = range(rows, column);
  return new Map(
    rows.map((row) => {
      const value = column?.value(row);
      if (!found || typeof value !== "number" || !Number.isFinite(value)) return [row.name, null];
      const share =
        found.high === found.low
          ? Number(column.mode !== "min")
          : Math.min(1, Math.max(0, (value - found.low) / (found.high - found.low)));
      return [row.name, column.mode === "min" ? 1 - share : share];
    }),
  );
}
