// A run has its colour in all views; of those shown here that share one, the first is solid and the others are dashed.

import { colour, dash } from "relume/colors.js";

// The dashes of each run, by its name.
export function dashes(rows) {
  const used = new Map();
  return new Map(rows.map(({ name, place = 0 }) => {
    const key = colour(place);
    const before = used.get(key) ?? 0;
    used.set(key, before + 1);
    return [name, dash(before * 10)];
  }));
}
