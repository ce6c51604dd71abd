// A chart in words and numbers: what is read aloud, and the table for those who prefer one.

import { swatch } from "relume/charts/tooltip.js";
import { h, said } from "relume/dom.js";
import { number } from "relume/format.js";

const MOST_READ = 4;

export function summary(rows, metric, axis) {
  const own = rows.filter((row) => Object.hasOwn(row.metrics ?? {}, metric));
  const texts = own.slice(0, MOST_READ).map(({ name, metrics }) => {
    const { last, best, mode } = metrics[metric];
    return `${name} last ${number(last)}${mode && best !== null && best !== undefined ? `, best ${number(best)}` : ""}`;
  });
  const more = own.length > MOST_READ ? `; and ${own.length - MOST_READ} more runs` : "";
  return `${metric} by ${axis}${texts.length ? `: ${texts.join("; ")}${more}` : ""}`;
}

const COLUMNS = [
  ["last", "Last"], ["best", "Best"], ["best_epoch", "Best in epoch"], ["min", "Smallest"], ["max", "Largest"],
  ["count", "Points"],
];

export function table(rows, metric) {
  const own = rows.filter((row) => Object.hasOwn(row.metrics ?? {}, metric));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Values" },
    h("table", { class: "grid chart-table" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Run"),
        COLUMNS.map(([, label]) => h("th", { scope: "col", class: "number" }, label)))),
      h("tbody", {}, own.map((row) => h("tr", {},
        h("th", { scope: "row" }, swatch(row.place ?? 0), said(row.name, { title: row.name })),
        COLUMNS.map(([key]) => h("td", { class: "number" }, number(row.metrics[metric][key]))))))));
}
