// A chart by keyboard and wheel. Without the focus the wheel scrolls the page, as everywhere else.

import { describe, where } from "relume/charts/tooltip.js";
import { moved, scaled } from "relume/charts/zoom.js";

export const HELP = "Left and right move the cursor, plus and minus zoom, shift with left and right moves the view, 0 shows all.";

// chart: {options(), plot(), lines(), range(), whole(), zoom(range | null)}
export class Keys {
  #place = null;

  constructor(body, chart) {
    this.chart = chart;
    body.addEventListener("keydown", (event) => this.#key(event));
    body.addEventListener("wheel", (event) => this.#wheel(event, body), { passive: false });
    body.addEventListener("blur", () => { this.#place = null; chart.plot()?.cursorAt(null); });
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.chart.plot()) return;
    const { chart } = this;
    const [range, whole] = [chart.range(), chart.whole()];
    const done = {
      "+": () => chart.zoom(scaled(range, whole, 0.5, this.#centre())),
      "=": () => chart.zoom(scaled(range, whole, 0.5, this.#centre())),
      "-": () => chart.zoom(scaled(range, whole, 2, this.#centre())),
      "_": () => chart.zoom(scaled(range, whole, 2, this.#centre())),
      "0": () => chart.zoom(null),
      Escape: () => { this.#place = null; chart.plot().cursorAt(null); },
      ArrowLeft: () => (event.shiftKey ? chart.zoom(moved(range, whole, -0.25)) : this.#step(-1)),
      ArrowRight: () => (event.shiftKey ? chart.zoom(moved(range, whole, 0.25)) : this.#step(1)),
      Home: () => this.#step(-Infinity),
      End: () => this.#step(Infinity),
      Enter: chart.options().onEnlarge && chart.options().metric ? () => chart.options().onEnlarge(chart.options().metric) : null,
    }[event.key];
    if (!done) return;
    event.preventDefault();
    done();
  }

  #centre() {
    const [low, high] = this.chart.range();
    return this.#place !== null && this.#place > low && this.#place < high ? this.#place : undefined;
  }

  // To the next point of the longest line; its values, and those of the others there, are said.
  #step(by) {
    const [low, high] = this.chart.range();
    const x = this.#longest().filter((one) => one >= low && one <= high);
    if (!x.length) return;
    const jump = by * Math.max(1, Math.round(x.length / 200));
    const before = this.#place === null ? (by > 0 ? -1 : x.length) : x.findLastIndex((one) => one <= this.#place);
    const at = Math.max(0, Math.min(x.length - 1, this.#place === null ? before + Math.sign(by) : before + jump));
    this.#place = Math.abs(by) === Infinity ? x[by > 0 ? x.length - 1 : 0] : x[at];
    const plot = this.chart.plot();
    plot.cursorAt(this.#place);
    const values = plot.values(this.#place).slice(0, 4);
    const named = ({ run, branch }) => (branch ? `${run} branch ${branch}` : run);
    const text = values.map((one) => `${named(one.line)} ${describe(one).join(", ")}`);
    const { app, axis } = this.chart.options();
    app.announce(`${where(axis, this.#place)}: ${text.join("; ")}`);
  }

  #longest() {
    const lines = this.chart.lines();
    return lines.reduce((best, line) => (line.x.length > best.length ? line.x : best), new Float64Array());
  }

  #wheel(event, body) {
    if (!event.ctrlKey && document.activeElement !== body) return;
    const over = body.querySelector(".u-over")?.getBoundingClientRect();
    if (!over || !this.chart.plot()) return;
    event.preventDefault();
    const [low, high] = this.chart.range();
    const share = Math.max(0, Math.min(1, (event.clientX - over.left) / over.width));
    const factor = 1.0015 ** Math.max(-400, Math.min(400, event.deltaY));
    this.chart.zoom(scaled([low, high], this.chart.whole(), factor, low + (high - low) * share));
  }
}
