// Where the lines of the grid stand and what is written beside them: for the canvas and for the SVG alike.

const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

// About `count` round numbers between low and high. `whole`: no fractions; `time`: seconds at round clock times.
export function ticks(low, high, count, { log = false, whole = false, time = false } = {}) {
  if (!(high > low) || count < 1) return [];
  if (log) return logTicks(low, high, count);
  let every = roundUp((high - low) / count * 0.75);
  if (whole) every = Math.max(1, every);
  if (time && every > 0.5) every = SECONDS.find((one) => one >= every) ?? 86400 * roundUp(every / 86400);
  const found = [];
  const last = Math.floor(high / every + 1e-9);
  for (let place = Math.ceil(low / every - 1e-9); place <= last; place += 1) found.push(exact(place * every));
  return found;
}

function roundUp(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return exact(([1, 2, 5, 10].find((one) => one * power >= size * (1 - 1e-9)) ?? 10) * power);
}

// 3 * 0.1 is 0.30000000000000004, and nobody wants to read that.
function exact(x) {
  return Number(x.toPrecision(12));
}

function logTicks(low, high, count) {
  const decades = Math.log10(high) - Math.log10(low);
  if (decades < 0.7) return ticks(low, high, count).filter((one) => one > 0);
  const every = Math.max(1, Math.ceil(decades / count));
  const steps = decades * 3 <= count ? [1, 2, 5] : [1];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1e-9; power += 1) {
    if (power % every) continue;
    for (const step of steps) found.push(exact(step * 10 ** power));
  }
  return found.filter((one) => one >= low * (1 - 1e-9) && one <= high * (1 + 1e-9));
}

// Texts for ticks: as many digits as tell them apart.
export function texts(places, { time = false } = {}) {
  if (time) return places.map(clock);
  const gaps = places.slice(1).map((one, at) => Math.abs(one - places[at]));
  const every = gaps.length ? Math.min(...gaps) : Math.abs(places[0] ?? 1);
  return places.map((one) => short(one, every));
}

function short(x, every) {
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e15 || size < 1e-4) return clean(x.toExponential(Math.min(6, digits(x, every))));
  for (const [unit, sign] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit && (unit > 1e3 || size >= 1e4)) return clean(decimals(x / unit, every / unit)) + sign;
  }
  return clean(decimals(x, every));
}

function digits(x, every) {
  return Math.max(0, Math.floor(Math.log10(Math.abs(x))) - Math.floor(Math.log10(every || Math.abs(x))));
}

function decimals(x, every) {
  const places = every > 0 ? Math.max(0, -Math.floor(Math.log10(every) + 1e-9)) : 0;
  return x.toFixed(Math.min(12, Number(x.toFixed(places)) === 0 ? places + 2 : places));
}

function clean(text) {
  return text.replace("-", "−").replace("e+", "e");
}

// Seconds since a run began: 0, 30s, 5m, 1h30, 2d.
export function clock(seconds) {
  const sign = seconds < 0 ? "−" : "";
  const s = Math.abs(seconds);
  if (s === 0) return "0";
  if (s < 60) return `${sign}${Number(s.toPrecision(3))}s`;
  if (s < 3600) return `${sign}${Math.floor(s / 60)}m${s % 60 ? String(Math.floor(s % 60)).padStart(2, "0") : ""}`;
  const minutes = Math.floor((s % 3600) / 60);
  if (s < 86400 * 2) return `${sign}${Math.floor(s / 3600)}h${minutes ? String(minutes).padStart(2, "0") : ""}`;
  const hours = Math.floor((s % 86400) / 3600);
  return `${sign}${Math.floor(s / 86400)}d${hours ? ` ${hours}h` : ""}`;
}
