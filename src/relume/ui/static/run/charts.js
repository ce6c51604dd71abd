// Charts of one run side by side: made for new metrics, kept for those that stay.

import { h } from "relume/dom.js";
import { Chart } from "relume/chart.js";

export class Charts {
  #made = new Map();

  constructor(page) {
    this.page = page;
    this.element = h("div", { class: "run-charts" });
  }

  fill(metrics) {
    for (const [metric, { chart, place }] of this.#made) {
      if (metrics.includes(metric)) continue;
      chart.destroy();
      place.remove();
      this.#made.delete(metric);
    }
    for (const metric of metrics) {
      if (this.#made.has(metric)) continue;
      const place = h("div", { class: "run-chart" });
      this.element.append(place);
      const chart = new Chart(place, { app: this.page.app, runs: [this.page.facts], metric, sync: `run-${this.page.name}`,
        onEnlarge: (name) => this.page.app.state.go("charts", null, { runs: [this.page.name], metric: name }) });
      this.#made.set(metric, { chart, place });
    }
    this.element.hidden = !metrics.length;
  }

  unmount() { this.fill([]); }
}
