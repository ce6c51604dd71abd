// A chart of one metric of some runs. It is an empty frame until it comes into sight, and again when it is far away.
//
//   const chart = new Chart(place, { app, runs: [row, …], metric: "val/loss" });
//   chart.set({ log: true });       // draws, and asks the source, no more than is needed
//   chart.destroy();
//
// Options: axis "step" | "epoch" | "time", log, smooth 0…0.99, zoom [low, high] | null, off [kinds of marks that are not
// drawn], band (smallest to largest value of buckets), sync (a key: charts with the same share a cursor), title, compact (no
// buttons), and callbacks: onZoom(range | null) (without it the chart zooms itself), onEnlarge(metric), onPoint(run | null),
// link().

import { button, copy, fill, h, said } from "relume/dom.js";
import { number, plural } from "relume/format.js";
import { dashes } from "relume/charts/dashes.js";
import { Feed } from "relume/charts/feed.js";
import { saveCsv, savePng, saveSvg } from "relume/charts/files.js";
import { HELP, Keys } from "relume/charts/keys.js";
import { isSparse, lineOf, placeOf, smoothed, xExtent, yExtent } from "relume/charts/lines.js";
import { drawn, MOST_ASKED, placed } from "relume/charts/marks.js";
import { menu } from "relume/charts/menu.js";
import { Plot } from "relume/charts/plot.js";
import { summary, table } from "relume/charts/table.js";
import { marksOf } from "relume/charts/told.js";
import { where } from "relume/charts/tooltip.js";
import { rounded, scaled, wholeOf } from "relume/charts/zoom.js";

const DEFAULTS = {
  axis: "step", log: false, smooth: 0, zoom: null, off: [], band: true, sync: null, title: null, compact: false,
};
// With more lines than that, half as many buckets are as good: they lie over each other.
const MANY = 20;

export class Chart {
  #feed = null;
  #plot = null;
  #answer = null;
  #lines = [];
  #whole = null;
  #resumes = -1;
  #undo = [];
  #observer;

  constructor(place, options) {
    this.options = { ...DEFAULTS, ...options };
    this.marks = marksOf(this.options.app.source);
    this.#frame();
    place.append(this.element);
    const seen = (entries) => (entries.at(-1).isIntersecting ? this.#wake() : this.#sleep());
    this.#observer = new IntersectionObserver(seen, { rootMargin: "300px 0px" });
    this.#observer.observe(this.element);
  }

  // Change options. Data are asked for only where the change needs other data.
  set(changes) {
    const before = this.options;
    this.options = { ...before, ...changes };
    const { runs, axis, zoom, off } = this.options;
    const isNew = names(before.runs) !== names(runs) || before.metric !== this.options.metric;
    if (isNew || before.axis !== axis) this.#whole = null;
    if (isNew || before.runs !== runs) this.#describe();
    if (!this.#plot) return;
    if (isNew) this.marks.want(this.#asked());
    const branches = before.off.includes("branch") !== off.includes("branch");
    if (isNew || before.axis !== axis || !same(before.zoom, zoom) || branches) this.#ask();
    this.#draw();
  }

  emphasise(run) { this.#plot?.emphasise(run); }

  destroy() {
    this.#observer.disconnect();
    this.#sleep();
    this.element.remove();
  }

  // ------------------------------------------------------------------------------------------ the frame of the chart

  #frame() {
    const { metric, title, compact, onEnlarge } = this.options;
    this.body = h("div", {
      class: "chart-body", tabindex: "0", role: "application", "aria-roledescription": "chart",
      "aria-keyshortcuts": "+ - 0 ArrowLeft ArrowRight",
    });
    this.note = h("p", { class: "chart-note dim", hidden: true });
    this.values = h("div", { class: "chart-values", hidden: true });
    const reset = { class: "quiet chart-reset", hidden: true, title: "Show the whole again (0)" };
    this.reset = button("whole", () => this.#zoom(null), reset);
    const enlarge = { class: "quiet", title: "Enlarge", "aria-label": `Enlarge ${metric}` };
    this.element = h("figure", { class: "chart card", "data-metric": metric },
      h("figcaption", { class: "chart-head" },
        h("span", { class: "chart-title", title: title ?? metric }, said(title ?? (metric || "without a name"))),
        this.reset,
        onEnlarge && metric ? button("⤢", () => this.options.onEnlarge(this.options.metric), enlarge) : null,
        compact ? null : this.#menu()),
      this.body, this.note, this.values);
    this.#describe();
    new Keys(this.body, {
      options: () => this.options, plot: () => this.#plot, lines: () => this.#lines,
      range: () => this.#range(), whole: () => this.#all(), zoom: (range) => this.#zoom(range, true),
    });
  }

  #menu() {
    const options = () => ({ title: this.options.title ?? this.options.metric });
    const save = (how) => () => { if (this.#plot) how(this.#shown(), options()); };
    const link = () => this.options.link?.(this.options.metric) ?? location.href;
    return menu(`More for ${this.options.metric}`, "⋯", [
      ["Zoom in (+)", () => this.#zoom(scaled(this.#range(), this.#all(), 0.5), true), { stays: true }],
      ["Zoom out (−)", () => this.#zoom(scaled(this.#range(), this.#all(), 2), true), { stays: true }],
      ["Values as a table", () => this.#toggleTable(), { properties: { "aria-pressed": "false" } }],
      ["Save as PNG", save(savePng)],
      ["Save as SVG", save(saveSvg)],
      ["Save as CSV", save((shown) => saveCsv(shown, this.options.metric))],
      ["Copy link", (one) => copy(link(), one), { stays: true }],
    ]);
  }

  #describe() {
    const { runs, metric, axis } = this.options;
    this.body.setAttribute("aria-label", summary(runs, metric, axis));
    this.body.setAttribute("aria-description", HELP);
    if (!this.values.hidden) fill(this.values, table(runs, metric));
  }

  #toggleTable() {
    this.values.hidden = !this.values.hidden;
    const toggle = [...this.element.querySelectorAll(".menu-list button")].find((one) => one.hasAttribute("aria-pressed"));
    toggle?.setAttribute("aria-pressed", String(!this.values.hidden));
    this.#describe();
  }

  // ------------------------------------------------------------------------------------------------ in sight and out

  #wake() {
    if (this.#plot) return;
    const { app, sync, onPoint } = this.options;
    this.#plot = new Plot(this.body, this.#shown(), {
      select: (low, high) => this.#zoom([low, high]),
      reset: () => this.#zoom(null),
      point: (run) => (onPoint ? onPoint(run) : this.emphasise(run)),
      drawn: (shown) => this.#drawn(shown),
    }, sync);
    this.#feed = new Feed(app.source, (answer) => this.#answered(answer));
    const recolour = () => this.#plot.recolour();
    window.addEventListener("themechange", recolour);
    this.#undo = [
      app.source.onChange((change) => {
        if (change.anew) this.#ask();
        if (change.runs?.length) this.#feed.grow(change.runs);
      }),
      this.marks.on(() => this.#marked()),
      () => window.removeEventListener("themechange", recolour),
    ];
    this.marks.want(this.#asked());
    this.#ask();
  }

  #sleep() {
    for (const undo of this.#undo) undo();
    this.#undo = [];
    this.#feed?.stop();
    this.#plot?.destroy();
    this.#feed = this.#plot = this.#answer = null;
    this.#lines = [];
    delete this.element.dataset.drawn;
  }

  // ------------------------------------------------------------------------------------------------------- the numbers

  #asked() {
    const { runs } = this.options;
    return runs.length <= MOST_ASKED ? runs.map((row) => row.name) : [];
  }

  #ask() {
    const { runs, metric, axis, zoom, off } = this.options;
    const rows = runs.filter((row) => !row.metrics || Object.hasOwn(row.metrics, metric) || row.status === "running");
    const width = Math.round(this.#plot.width);
    this.#feed.ask({
      rows, metric, axis, low: zoom?.[0] ?? null, high: zoom?.[1] ?? null,
      buckets: Math.max(50, Math.min(2000, rows.length > MANY ? width >> 1 : width)),
      branches: rows.length <= MOST_ASKED && !off.includes("branch"),
    });
  }

  #answered({ series, question, error }) {
    this.error = error;
    if (!error) this.#answer = { series: [...series], question };
    this.#draw();
  }

  // A run that was resumed has numbers that no longer count: all is asked for again.
  #marked() {
    const count = this.options.runs.reduce((sum, { name }) =>
      sum + (this.marks.told[name]?.marks ?? []).filter((mark) => mark.kind === "resume").length, 0);
    if (this.#resumes >= 0 && count !== this.#resumes) this.#ask();
    this.#resumes = count;
    this.#draw();
  }

  #prepare() {
    if (!this.#answer) return;
    const { runs, axis, smooth } = this.options;
    const { series, question } = this.#answer;
    const rows = new Map(runs.map((row) => [row.name, row]));
    this.#lines = series.filter((one) => rows.has(one.run) && one.length)
      .map((one) => lineOf(one, rows.get(one.run), axis, { reduced: question.axis }));
    if (question.low === null && question.axis === axis) this.#whole = xExtent(this.#lines);
    const range = this.#range();
    const patterns = dashes(runs);
    for (const line of this.#lines) {
      line.dash = patterns.get(line.run);
      line.smooth = line.branch ? null : smoothed(line.x, line.y, smooth);
      line.sparse = isSparse(line, range, this.#plot.width);
    }
  }

  // ---------------------------------------------------------------------------------------------------- what is seen

  #all() { return this.#whole ?? wholeOf(this.options.runs, this.options.axis); }
  #range() { return this.options.zoom ?? this.#all(); }

  #shown() {
    const { axis, log, off, runs, band } = this.options;
    const { range, hidden } = yExtent(this.#lines, this.#range(), log);
    const marks = placed(runs, this.marks.told, axis, off);
    return { lines: this.#lines, marks, x: this.#range(), y: range, hidden, log, axis, band };
  }

  #draw() {
    if (!this.#plot) return;
    this.#prepare();
    const shown = this.#shown();
    this.reset.hidden = !this.options.zoom;
    this.#explain(shown);
    this.#plot.show(shown);
  }

  // What the picture does not say by itself.
  #explain({ lines, hidden }) {
    const texts = [];
    const reduced = lines.filter((line) => line.bucketed && !line.branch && line.count);
    const points = reduced.reduce((sum, line) => sum + line.total, 0);
    const buckets = reduced.reduce((sum, line) => sum + line.x.length, 0);
    if (points > buckets) texts.push(`${plural(points, "point")} in ${plural(buckets, "bucket")}: mean, smallest to largest`);
    if (hidden) texts.push(`${plural(hidden, reduced.length ? "place" : "value")} ≤ 0 not shown on a log scale`);
    const nan = lines.reduce((sum, line) => sum + nanOf(line), 0);
    if (nan) texts.push(`${number(nan)} × NaN (×)`);
    const [low, high] = this.#range();
    const isEmpty = lines.every((line) => placeOf(line.x, low) === placeOf(line.x, high));
    if (this.#answer && isEmpty && !this.error) texts.push("nothing was logged here");
    if (this.error) texts.push(this.error.message);
    this.note.classList.toggle("error", Boolean(this.error));
    this.note.textContent = texts.join(" · ");
    this.note.hidden = !texts.length;
  }

  // For those who wait for it: how many lines are drawn, and of which zoom.
  #drawn(shown) {
    const { lines } = shown;
    this.element.dataset.marks = drawn(shown.marks, shown).length;
    if (!this.#answer) return;
    this.element.dataset.drawn = lines.length;
    this.element.dataset.points = lines.reduce((sum, line) => sum + line.x.length, 0);
    const { low, high } = this.#answer.question;
    if (low === null) delete this.element.dataset.zoomed;
    else this.element.dataset.zoomed = `${low},${high}`;
  }

  #zoom(range, said = false) {
    const zoom = range && rounded([Math.min(...range), Math.max(...range)]);
    if (zoom && !(zoom[1] > zoom[0])) return;
    const { app, axis } = this.options;
    if (said) app.announce(zoom ? zoom.map((one) => where(axis, one)).join(" to ") : "the whole");
    if (this.options.onZoom) this.options.onZoom(zoom, this);
    else this.set({ zoom });
  }
}

function names(rows) {
  return JSON.stringify(rows.map((row) => row.name));
}

function nanOf({ y, nan }) {
  return nan ? nan.reduce((sum, one) => sum + one, 0) : y.reduce((sum, one) => sum + (Number.isNaN(one) ? 1 : 0), 0);
}

function same(a, b) {
  return a === b || (a && b && a[0] === b[0] && a[1] === b[1]);
}
