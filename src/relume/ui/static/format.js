// Numbers, times and sizes as a person reads them. The same rules as on relume's terminal.

// JSON has no NaN and no infinities: they come as "NaN", "Infinity", "-Infinity".
export function toNumber(value) {
  if (value === null || value === undefined || value === "") return NaN;
  return typeof value === "number" ? value : Number(value);
}

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "";
  const x = toNumber(value);
  if (Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (Number.isInteger(x) && size < 1e15) return x.toLocaleString("en-US").replace("-", "−");
  if (size < 1e-3 || size >= 1e6) return x.toExponential(digits - 2).replace("-", "−").replace("e+", "e");
  return x.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1)))).replace("-", "−");
}

export function duration(seconds) {
  const s = toNumber(seconds);
  if (!Number.isFinite(s) || s < 0) return "";
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(s % 60)).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function size(bytes) {
  const x = toNumber(bytes);
  if (!Number.isFinite(x)) return "";
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let place = 0;
  let left = x;
  while (left >= 1000 && place < units.length - 1) { left /= 1000; place += 1; }
  return place === 0 ? `${left} bytes` : `${left < 10 ? left.toFixed(2) : left < 100 ? left.toFixed(1) : Math.round(left)} ${units[place]}`;
}

// Whether this page is a report, which holds what it shows.
export function isReport() {
  return document.getElementById("answers") !== null;
}

// Unix seconds as a date of this browser's time zone; a report says UTC, so that it is the same everywhere.
export function moment(seconds) {
  const date = new Date(toNumber(seconds) * 1000);
  if (Number.isNaN(date.getTime())) return "";
  const form = { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" };
  if (!isReport()) return date.toLocaleString("en-GB", form);
  return `${date.toLocaleString("en-GB", { ...form, timeZone: "UTC" })} UTC`;
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en-US")} ${count === 1 ? one : many}`;
}

// A setting: text as it is, all else as JSON.
export function setting(value) {
  if (value === null || value === undefined) return "—";
  return typeof value === "string" ? value : typeof value === "number" ? String(value) : JSON.stringify(value);
}
