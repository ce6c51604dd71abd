// How good a result is, as a colour: it gets darker on white and brighter on black, so that it reads without hue too.

import { isDark } from "relume/colors.js";

const LIGHT = [[132, 146, 166], [84, 138, 210], [32, 84, 186], [58, 12, 104]];
const DARK = [[104, 118, 140], [70, 140, 205], [90, 208, 190], [255, 240, 150]];

export function tint(share) {
  if (share === null || Number.isNaN(share)) return isDark() ? "#7d8594" : "#8a8f98";
  const stops = isDark() ? DARK : LIGHT;
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const place = Math.min(stops.length - 2, Math.floor(at));
  const mixed = stops[place].map((one, part) => Math.round(one + (stops[place + 1][part] - one) * (at - place)));
  return `rgb(${mixed.join(" ")})`;
}

// Each run's share of the way from the worst to the best result.
export function shares(rows, column) {
  const values = rows.map((row) => column?.value(row)).map((value) => (typeof value === "number" && Number.isFinite(value) ? value : null));
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const share = (value) => (high === low ? 1 : (value - low) / (high - low));
  return new Map(rows.map((row, place) => {
    const value = values[place];
    return [row.name, value === null ? null : column.mode === "min" ? 1 - share(value) : share(value)];
  }));
}
