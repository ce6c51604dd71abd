// How far a chart looks: in, out, aside, and back to the whole.

// The range of the whole, as far as the rows tell it before any number has come.
export function wholeOf(rows, axis) {
  const ends = rows.map((row) => ({ step: row.step, epoch: row.epoch, time: row.seconds })[axis]).filter(Number.isFinite);
  return [0, Math.max(1, ...ends)];
}

// Around `centre` by a factor (below 1: nearer); null is the whole.
export function scaled([low, high], whole, factor, centre = (low + high) / 2) {
  return bounded([centre - (centre - low) * factor, centre + (high - centre) * factor], whole);
}

// Aside by a share of what is seen.
export function moved([low, high], whole, share) {
  const by = Math.max(whole[0] - low, Math.min(whole[1] - high, (high - low) * share));
  return bounded([low + by, high + by], whole);
}

export function bounded([low, high], [first, last]) {
  const least = (last - first) * 1e-9;
  const found = [Math.max(low, first), Math.min(high, last)];
  if (found[1] - found[0] < least || !(found[1] > found[0])) return null;
  return found[1] - found[0] >= (last - first) * 0.999 ? null : rounded(found);
}

// Short enough for a link, exact enough for a million of points, also where the first step is a large number.
export function rounded([low, high]) {
  const large = Math.log10(Math.max(Math.abs(low), Math.abs(high)) / (high - low));
  const digits = large > 4 ? Math.min(17, 6 + Math.ceil(large)) : 10;
  return [low, high].map((one) => Number(one.toPrecision(digits)));
}
