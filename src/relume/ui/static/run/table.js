// A logged table: its first rows, sorted as one likes.

import { fill, h, said } from "relume/dom.js";
import { number } from "relume/format.js";
import { sortable } from "relume/run/parts.js";
import { saving } from "relume/run/saving.js";

const SHOWN = 200;

export class Table {
  constructor(panel) {
    this.panel = panel;
    this.element = h("div");
  }

  show({ columns = [], rows = [], total }, item) {
    const shown = rows.slice(0, SHOWN);
    const all = total ?? rows.length;
    const heads = columns.map((label, place) => {
      const isNumber = shown.some((row) => typeof row[place] === "number") && shown.every((row) => isNumeric(row[place]));
      return { label, isNumber, value: (row) => row[place], cell: (row) => cellOf(row[place]) };
    });
    fill(this.element, sortable(`Table ${this.panel.one.name}`, heads, shown),
      h("p", { class: "dim" }, all > shown.length ? `The first ${number(shown.length)} of ${number(all)} rows.`
        : `${number(all)} rows.`),
      h("div", { class: "bar" }, saving(`${this.panel.one.name}-${item.step}`, { rows: () => [columns, ...rows] })));
  }
}

function isNumeric(cell) {
  return cell === null || typeof cell === "number" || ["NaN", "Infinity", "-Infinity"].includes(cell);
}

function cellOf(cell) {
  if (cell === null || cell === undefined) return h("span", { class: "dim" }, "—");
  if (typeof cell === "boolean") return cell ? "✓ yes" : "✗ no";
  return typeof cell === "number" ? number(cell, 5) : h("span", { class: "cell" }, said(cell));
}
