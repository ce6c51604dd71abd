// Which line is whose: a chip for each run; the one pointed at comes to the fore in all charts.

import { dashes } from "relume/charts/dashes.js";
import { colour } from "relume/colors.js";
import { button, fill, h, said, svg } from "relume/dom.js";
import { plural } from "relume/format.js";

const MOST = 12;

// A short piece of the run's line, dashes and all.
export function sample(row, pattern = []) {
  const stroke = { stroke: colour(row.place ?? 0), "stroke-width": 2.5, "stroke-dasharray": pattern.join(" ") || null };
  return svg("svg", { class: "sample", width: 22, height: 8, viewBox: "0 0 22 8", "aria-hidden": "true" },
    svg("line", { x1: 0, x2: 22, y1: 4, y2: 4, ...stroke }));
}

export class Legend {
  #all = false;
  #rows = [];

  // onPoint(run | null)
  constructor(app, onPoint) {
    this.app = app;
    this.onPoint = onPoint;
    this.element = h("div", { class: "chart-legend" });
  }

  show(rows, { chosen }) {
    this.#rows = rows;
    this.dashes = dashes(rows);
    this.chosen = chosen;
    const seen = this.#all ? rows : rows.slice(0, MOST);
    const more = rows.length - seen.length;
    fill(this.element,
      h("ul", { "aria-label": "Runs in the charts" }, seen.map((row) => h("li", { "data-run": row.name }, this.#chip(row)))),
      more > 0 ? button(`and ${plural(more, "more run")}`, () => this.#toggle(true), { class: "quiet" }) : null,
      this.#all && rows.length > MOST ? button("fewer", () => this.#toggle(false), { class: "quiet" }) : null,
      chosen ? button("all runs", () => this.app.state.set({ runs: [] }), { class: "quiet" }) : null);
  }

  emphasise(run) {
    for (const item of this.element.querySelectorAll("li")) item.classList.toggle("pointed", item.dataset.run === run);
  }

  #toggle(all) {
    this.#all = all;
    this.show(this.#rows, { chosen: this.chosen });
  }

  #chip(row) {
    const point = { onmouseenter: () => this.onPoint(row.name), onmouseleave: () => this.onPoint(null),
      onfocusin: () => this.onPoint(row.name), onfocusout: () => this.onPoint(null) };
    const rest = this.#rows.map((one) => one.name).filter((name) => name !== row.name);
    const takeOut = { class: "quiet", "aria-label": `Take ${row.name} out of the charts`, title: "Take out" };
    return h("span", { class: "chip run-chip", ...point }, sample(row, this.dashes.get(row.name)),
      h("a", { href: this.app.state.link("run", row.name), title: row.name }, said(row.name)),
      row.status === "running" ? running() : null,
      rest.length ? button("×", () => this.app.state.set({ runs: rest }), takeOut) : null);
  }
}

function running() {
  return h("span", { class: "status status-running", title: "running" }, h("span", { class: "announcement" }, "running"));
}
