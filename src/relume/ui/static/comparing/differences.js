// What differs between runs, as tables; all that is the same on request.

import { h, said, visible } from "relume/dom.js";
import { number, plural, setting } from "relume/format.js";
import { trimmed } from "relume/tables/columns.js";

const PARTS = [
  ["config", "Settings"],
  ["code", "Code"],
  ["environment", "Environment"],
];
const LONGEST = 4000;

export function differences(found, everything, rows, state) {
  const sections = [
    metrics(found, everything),
    ...PARTS.map(([key, label]) => section(label, found[key] ?? [], everything)),
  ].filter(Boolean);
  return h(
    "div",
    { class: "scroll compared-scroll", role: "region", "aria-label": "Table of differences", tabindex: "0" },
    h(
      "table",
      { class: "grid compared" },
      h(
        "caption",
        { class: "announcement" },
        everything ? "All that is known of the runs" : "What differs between the runs",
      ),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col", class: "name" }, "name"),
          found.names.map((name) => head(name, rows, state)),
        ),
      ),
      sections.map(({ label, note, lines }) =>
        h(
          "tbody",
          {},
          h(
            "tr",
            { class: "group" },
            h(
              "th",
              { scope: "rowgroup", colspan: found.names.length + 1 },
              h("span", {}, label),
              note ? h("span", { class: "dim" }, ` ${note}`) : null,
            ),
          ),
          lines,
        ),
      ),
    ),
  );
}

function head(name, rows, state) {
  const row = rows.find((one) => one.name === name);
  return h(
    "th",
    { scope: "col" },
    h(
      "div",
      { class: "head" },
      h("span", { class: "swatch", "aria-hidden": "true", dataset: { place: row?.place ?? 0 } }),
      h("a", { href: state.link("run", name), class: "cut", title: visible(name) }, said(name)),
    ),
  );
}

function section(label, entries, everything) {
  const shown = entries.filter((entry) => everything || entry.differs);
  const same = entries.length - shown.length;
  const note =
    entries.length === 0
      ? "nothing is known"
      : shown.length === 0
        ? `no difference (${plural(entries.length, "thing")} the same)`
        : same
          ? `(${same} more the same)`
          : "";
  return { label, note, lines: shown.map((entry) => line(entry, everything)) };
}

function line(entry, everything) {
  return h(
    "tr",
    { class: everything && entry.differs ? "differs" : "" },
    h(
      "th",
      { scope: "row", class: "name" },
      h("span", { class: "cut", title: visible(entry.name) }, said(entry.name)),
      everything && entry.differs ? h("span", { class: "sub" }, "differs") : null,
    ),
    entry.values.map((value) => h("td", {}, shown(value))),
  );
}

function shown(value) {
  if (value === null || value === undefined) return h("span", { class: "dim" }, "—");
  const text = visible(setting(value));
  return text.length < 24
    ? said(text)
    : h("span", { class: "cut", title: text.slice(0, LONGEST) }, said(text.slice(0, LONGEST)));
}

// Those of which it is known what is better; the others, and those of the machine, among all.
function metrics(found, everything) {
  if (!found.metrics?.length) return null;
  const some = found.metrics.filter((one) => everything || (one.mode && !one.name.startsWith("system/")));
  const left = found.metrics.length - some.length;
  const lines = some.map((one) =>
    h(
      "tr",
      {},
      h(
        "th",
        { scope: "row", class: "name" },
        h("span", { class: "cut", title: visible(one.name) }, said(one.name)),
        h("span", { class: "sub" }, one.mode === "max" ? "largest" : "smallest"),
      ),
      one.best.map((value, place) => result(one, value, place)),
    ),
  );
  return { label: "Metrics", note: `★ the best of these runs${left ? ` (${left} more with “Show all”)` : ""}`, lines };
}

function result(one, value, place) {
  if (value === null || value === undefined) return h("td", {}, h("span", { class: "dim" }, "—"));
  const isWinner = one.winner === place;
  const step = one.best_step?.[place];
  const about = step === null || step === undefined ? null : `at step ${number(step)}`;
  return h(
    "td",
    {
      title: [isWinner ? "The best of these runs." : "", `best ${number(value)}`, about, `· last ${number(one.last[place])}`]
        .filter(Boolean)
        .join(" "),
    },
    isWinner
      ? h(
          "strong",
          { class: "best" },
          h("span", { "aria-hidden": "true" }, "★ "),
          trimmed(value),
          h("span", { class: "announcement" }, " the best"),
        )
      : trimmed(value),
    h("span", { class: "sub" }, `last ${trimmed(one.last[place])}`),
  );
}

// The same as rows of a file, everything in it.
export function asTable(found) {
  const rows = [["part", "name", ...found.names]];
  const put = (part, name, values) =>
    rows.push([
      part,
      name,
      ...values.map((value) =>
        value === null || value === undefined ? "" : typeof value === "object" ? setting(value) : value,
      ),
    ]);
  for (const one of found.metrics ?? []) {
    put("metric, best", one.name, one.best);
    put("metric, last", one.name, one.last);
  }
  for (const [key] of PARTS) for (const entry of found[key] ?? []) put(key, entry.name, entry.values);
  return rows;
}
