// Which rows, in which order: nothing here touches the page.

import { setting } from "relume/format.js";

const WORDS = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

export function isMissing(value) {
  return value === null || value === undefined || value === "" || Number.isNaN(value);
}

// Numbers by size and before texts; texts as people count: run-9 before run-10.
export function compared(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number") return -1;
  if (typeof b === "number") return 1;
  return WORDS.compare(String(a), String(b));
}

// What a run does not have, or is NaN, comes last, both ways.
export function sorted(rows, column, descending) {
  const sign = descending ? -1 : 1;
  const keyed = rows.map((row) => [column.value(row), row]);
  keyed.sort(([a, one], [b, other]) => {
    const [noA, noB] = [isMissing(a), isMissing(b)];
    if (noA || noB) return noA && noB ? WORDS.compare(one.name, other.name) : noA ? 1 : -1;
    return sign * compared(a, b) || WORDS.compare(one.name, other.name);
  });
  return keyed.map(([, row]) => row);
}

// Each value of the column with its runs, the runs in the order in which they came.
export function grouped(rows, column) {
  const groups = new Map();
  for (const row of rows) {
    const value = column.value(row);
    const key = isMissing(value) ? "" : String(value);
    if (!groups.has(key)) groups.set(key, { key, value, text: key === "" ? "none" : column.text(row), rows: [] });
    groups.get(key).rows.push(row);
  }
  return [...groups.values()].sort((a, b) =>
    isMissing(a.value) || isMissing(b.value) ? isMissing(a.value) - isMissing(b.value) : compared(a.value, b.value),
  );
}

// Rows in which each word stands somewhere: in the name, a tag, the notes, the status or a setting that is a text.
export function searched(rows, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return rows;
  return rows.filter((row) => {
    const hay = [
      row.name,
      row.notes,
      row.status,
      row.reason,
      ...(row.tags ?? []),
      ...Object.values(row.config ?? {}).filter((value) => typeof value === "string"),
    ]
      .join("\n")
      .toLowerCase();
    return words.every((word) => hay.includes(word));
  });
}

// The best value of a column among rows; null where the metric's name does not tell what is better.
export function bestOf(rows, column) {
  if (!column.mode) return null;
  let best = null;
  for (const row of rows) {
    const value = column.value(row);
    if (isMissing(value)) continue;
    if (best === null || (column.mode === "max" ? value > best : value < best)) best = value;
  }
  return best;
}

// The rows as a file says them: numbers in full.
export function asTable(rows, columns) {
  const head = columns.map((one) => (one.sub ? `${one.name} (${one.sub})` : one.name));
  const value = (row, one) => {
    const found = one.key === "created" && row.created ? new Date(row.created * 1000).toISOString() : one.value(row);
    return found === null || found === undefined ? "" : typeof found === "object" ? setting(found) : found;
  };
  return [head, ...rows.map((row) => columns.map((one) => value(row, one)))];
}
