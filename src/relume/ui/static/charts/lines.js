// What a chart draws: a line for each run (and each of its dead branches) out of the columns that the source gave.

// {run, place, branch, x, y, low, high, count, nan, step, epoch, time, bucketed, total}; y is the mean of a bucket, low and
// high its smallest and largest value, both null where each point stands for itself. Time counts from the run's beginning.
export function lineOf(series, row, axis, { reduced = axis } = {}) {
  const { columns, length, bucketed, total } = series;
  const created = row.created ?? columns.time[0] ?? 0;
  const places = { step: columns.step, epoch: columns.epoch, time: columns.time.map((one) => one - created) };
  const named = { run: series.run, place: row.place ?? 0, branch: series.branch ?? 0 };
  const about = { ...named, bucketed, total, ...places, x: places[axis] };
  if (!bucketed) {
    const line = { ...about, y: columns.value, low: null, high: null, count: null, nan: null };
    return axis === "epoch" ? stacked(line) : line;
  }
  const { min, max, mean, count, nan } = columns;
  const line = { ...about, y: mean, low: min, high: max, count, nan };
  if (axis === "epoch") return stacked(line);
  if (axis !== reduced) return line;
  const shift = axis === "time" ? created : 0;
  return { ...line, x: Float64Array.from({ length }, (_, at) => (places[axis][at] + columns.last_x[at] - shift) / 2) };
}

// Points at one place of the axis (all steps of an epoch) as one bucket: their mean, and how far they spread.
function stacked(line) {
  const { x } = line;
  const starts = [];
  for (let place = 0; place < x.length; place += 1) if (place === 0 || x[place] !== x[place - 1]) starts.push(place);
  if (starts.length === x.length) return line;
  const found = { ...line, low: [], high: [], y: [], count: [], nan: [], bucketed: true };
  starts.forEach((start, number) => {
    const bucket = reduce(line, start, starts[number + 1] ?? x.length);
    for (const [name, value] of Object.entries(bucket)) found[name].push(value);
  });
  for (const name of ["x", "step", "epoch", "time"]) found[name] = Float64Array.from(starts, (start) => line[name][start]);
  for (const name of ["low", "high", "y", "count", "nan"]) found[name] = Float64Array.from(found[name]);
  return found;
}

function reduce({ y, low, high, count, nan }, start, end) {
  const bucket = { low: NaN, high: NaN, y: 0, count: 0, nan: 0 };
  for (let place = start; place < end; place += 1) {
    const own = count ? count[place] : 1;
    const lost = nan ? nan[place] : Number.isNaN(y[place]) ? 1 : 0;
    bucket.count += own;
    bucket.nan += lost;
    if (own === lost) continue;
    bucket.y += y[place] * (own - lost);
    bucket.low = Math.min(low ? low[place] : y[place], Number.isNaN(bucket.low) ? Infinity : bucket.low);
    bucket.high = Math.max(high ? high[place] : y[place], Number.isNaN(bucket.high) ? -Infinity : bucket.high);
  }
  bucket.y /= bucket.count - bucket.nan;
  return bucket;
}

// An exponential moving average that knows how far apart the points are (a gap of two points counts as two), without the
// pull towards zero at the beginning. NaN and infinities are passed over.
export function smoothed(x, y, weight) {
  if (!(weight > 0) || x.length < 2) return null;
  const usual = (x[x.length - 1] - x[0]) / (x.length - 1) || 1;
  const found = new Float64Array(y.length).fill(NaN);
  let sum = 0;
  let total = 0;
  let before = NaN;
  for (let place = 0; place < y.length; place += 1) {
    if (!Number.isFinite(y[place])) continue;
    const kept = Number.isNaN(before) ? 0 : weight ** Math.max(0, (x[place] - before) / usual);
    sum = sum * kept + y[place];
    total = total * kept + 1;
    found[place] = sum / total;
    before = x[place];
  }
  return found;
}

// The first place whose x is not below `wanted`.
export function placeOf(x, wanted) {
  let low = 0;
  let high = x.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function nearest(x, wanted) {
  const behind = placeOf(x, wanted);
  if (behind === 0) return x.length ? 0 : -1;
  if (behind === x.length) return x.length - 1;
  return wanted - x[behind - 1] <= x[behind] - wanted ? behind - 1 : behind;
}

// From the first to the last point of all lines on the x axis.
export function xExtent(lines) {
  let low = Infinity;
  let high = -Infinity;
  for (const { x } of lines) {
    if (!x.length) continue;
    low = Math.min(low, x[0]);
    high = Math.max(high, x[x.length - 1]);
  }
  if (low > high) return [0, 1];
  // A little room, so that the first and the last point are whole.
  const room = low === high ? 1 : (high - low) * 0.01;
  return [low - room, high + room];
}

// The range of y that shows all that lies between two places of the x axis, spikes included, and what cannot be shown:
// `hidden` values that have no place on a log scale.
export function yExtent(lines, [from, to], log) {
  let low = Infinity;
  let high = -Infinity;
  let hidden = 0;
  const take = (value) => {
    if (!Number.isFinite(value)) return;
    if (log && value <= 0) return;
    if (value < low) low = value;
    if (value > high) high = value;
  };
  for (const line of lines) {
    // One neighbour on each side, as the line goes on to it.
    const first = Math.max(0, placeOf(line.x, from) - 1);
    const last = Math.min(line.x.length - 1, placeOf(line.x, to));
    for (let place = first; place <= last; place += 1) {
      const outside = line.x[place] < from || line.x[place] > to;
      if (outside && last - first > 2) continue;
      take(line.y[place]);
      if (line.low) { take(line.low[place]); take(line.high[place]); }
      if (log && (line.low ? line.low[place] : line.y[place]) <= 0) hidden += 1;
    }
  }
  return { range: padded(low, high, log), hidden };
}

function padded(low, high, log) {
  if (low > high) return log ? [0.1, 10] : [0, 1];
  if (log) {
    const room = low === high ? 1.5 : (high / low) ** 0.05;
    return [low / room, high * room];
  }
  const room = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * 0.05;
  return [low - room, high + room];
}

// Whether each point of a line can be seen as a dot.
export function isSparse(line, [from, to], width) {
  const count = placeOf(line.x, to) - placeOf(line.x, from);
  return count <= Math.max(1, width / 24);
}
