// All metrics of the chosen runs, by prefix; or one of them, as large as the page.

import { append, button, fill, h, said } from "relume/dom.js";
import { plural } from "relume/format.js";
import { Chart } from "relume/chart.js";
import { Legend } from "relume/charts/legend.js";
import { Toolbar } from "relume/charts/toolbar.js";
import { table } from "relume/charts/table.js";
import { forChart, grouped, isOpen, read } from "relume/charts/wishes.js";

// The least milliseconds between two looks at the list of runs while they train.
const LIST = 2000;

export async function mount(place, app) {
  const view = new Charts(place, app);
  await view.load();
  return view;
}

class Charts {
  #charts = new Map();
  #isLarge = false;
  #shape = "";
  #timer = null;
  #looked = performance.now();
  #undo = [];

  constructor(place, app) {
    this.place = place;
    this.app = app;
    this.toolbar = new Toolbar(app.state);
    this.legend = new Legend(app, (run) => this.#point(run));
    this.content = h("div", { class: "chart-groups" });
    const recolour = () => this.#showLegend();
    window.addEventListener("themechange", recolour);
    this.#undo = [
      () => window.removeEventListener("themechange", recolour),
      app.source.onChange((change) => { if (change.list || change.runs?.length) this.#lookAgain(); }),
    ];
  }

  async load() {
    this.all = await this.app.source.runs();
    this.#looked = performance.now();
    fill(this.place, h("h1", { class: "announcement" }, "Charts"), this.legend.element, this.toolbar.element, this.content);
    this.update();
  }

  // The link has changed, or the runs have.
  update() {
    const wishes = read(this.app.state);
    const chosen = this.app.state.all("runs");
    this.runs = this.#chosen(chosen);
    this.toolbar.show(wishes);
    this.#showLegend();
    const metrics = this.#metrics();
    const shape = JSON.stringify([metrics, wishes.search, wishes.metric, wishes.fold, wishes.unfold, this.runs.length > 0]);
    if (shape !== this.#shape) this.#build(metrics, wishes);
    this.#shape = shape;
    for (const chart of this.#charts.values()) {
      const zoom = wishes.together ? wishes.zoom : chart.options.axis === wishes.axis ? chart.options.zoom : null;
      chart.set({ runs: this.runs, zoom, sync: "charts", ...forChart(wishes) });
    }
    this.wishes = wishes;
  }

  unmount() {
    clearTimeout(this.#timer);
    for (const undo of this.#undo) undo();
    this.#clear();
  }

  // ------------------------------------------------------------------------------------------------------- the runs

  #chosen(names) {
    const { runs } = this.all;
    if (!names.length) return runs.filter((row) => !row.archived && row.status !== "damaged");
    const rows = new Map(runs.map((row) => [row.name, row]));
    return names.map((name) => rows.get(name)).filter(Boolean);
  }

  #metrics() {
    const own = new Set(this.runs.flatMap((row) => Object.keys(row.metrics ?? {})));
    return [...this.all.metrics.filter((name) => own.has(name)), ...[...own].filter((name) => !this.all.metrics.includes(name))];
  }

  #showLegend() {
    this.legend.show(this.runs ?? [], { chosen: this.app.state.all("runs").length > 0 });
  }

  // Last values, states, and metrics and runs that are new. The charts themselves follow on their own, and faster.
  #lookAgain() {
    if (this.#timer !== null) return;
    const wait = Math.max(0, this.#looked + LIST - performance.now());
    this.#timer = setTimeout(async () => {
      try {
        this.all = await this.app.source.runs();
        this.update();
      } catch { /* the frame says that the server is away */ }
      this.#looked = performance.now();
      this.#timer = null;
    }, wait);
  }

  // ------------------------------------------------------------------------------------------------------ the charts

  #clear() {
    for (const chart of this.#charts.values()) chart.destroy();
    this.#charts.clear();
  }

  // Charts that stay are moved and not made again: a new metric must not take a zoom, a menu or the focus from the others.
  #build(metrics, wishes) {
    const focus = document.activeElement;
    const isLarge = wishes.metric !== null;
    if (isLarge || this.#isLarge) this.#clear();
    this.#isLarge = isLarge;
    const before = this.#charts;
    this.#charts = new Map();
    fill(this.content);
    this.#fill(metrics, wishes, before);
    for (const [metric, chart] of before) if (this.#charts.get(metric) !== chart) chart.destroy();
    if (focus !== document.activeElement && this.content.contains(focus)) focus.focus({ preventScroll: true });
  }

  #fill(metrics, wishes, before) {
    if (!this.runs.length) return append(this.content, h("p", { class: "empty" }, "No run is here to draw."));
    if (wishes.metric !== null) return this.#buildOne(metrics, wishes);
    const groups = grouped(metrics, wishes.search);
    const empty = wishes.search ? "No metric has this in its name." : "These runs have logged no numbers yet.";
    if (!groups.size) append(this.content, h("p", { class: "empty" }, empty));
    for (const [prefix, own] of groups) this.#group(prefix, own, wishes, before);
  }

  #group(prefix, metrics, wishes, before) {
    const open = isOpen(prefix, metrics.length, wishes);
    const title = prefix || "without a prefix";
    const charts = h("div", { class: "chart-grid" });
    append(this.content, h("section", { class: "chart-group", "data-prefix": prefix },
      h("h2", {}, button([h("span", { class: "fold", "aria-hidden": "true" }, open ? "▾" : "▸"), " ", said(title), " ",
        h("span", { class: "dim count" }, plural(metrics.length, "chart"))],
      () => this.#fold(prefix, open), { class: "quiet", "aria-expanded": String(open) })),
      open ? charts : null));
    if (!open) return;
    for (const metric of metrics) {
      const chart = before.get(metric);
      if (!chart) this.#chart(charts, metric, wishes);
      else {
        charts.append(chart.element);
        this.#charts.set(metric, chart);
      }
    }
  }

  #fold(prefix, open) {
    const { state } = this.app;
    const without = (name) => state.all(name).filter((one) => one !== prefix);
    const [closed, opened] = [without("fold"), without("unfold")];
    state.set(open ? { fold: [...closed, prefix], unfold: opened } : { fold: closed, unfold: [...opened, prefix] });
    [...this.content.querySelectorAll("section")].find((one) => one.dataset.prefix === prefix)?.querySelector("button").focus();
  }

  #chart(place, metric, wishes, more = {}) {
    const { state } = this.app;
    this.#charts.set(metric, new Chart(place, {
      app: this.app, runs: this.runs, metric, zoom: wishes.zoom, sync: "charts", ...forChart(wishes),
      onZoom: (zoom, chart) => (read(state).together ? state.set({ zoom: zoom ? zoom.join(",") : null }) : chart.set({ zoom })),
      onEnlarge: (name) => state.set({ metric: name }, { replace: false }),
      onPoint: (run) => this.#point(run),
      link: (name) => this.#link(name),
      ...more,
    }));
  }

  #link(metric) {
    const [path, query] = location.hash.split("?");
    const wanted = new URLSearchParams(query ?? "");
    wanted.set("metric", metric);
    return `${location.href.split("#")[0]}${path}?${wanted}`;
  }

  #buildOne(metrics, wishes) {
    const { state } = this.app;
    const at = metrics.indexOf(wishes.metric);
    const go = (by, label, sign) => button(sign, () => state.set({ metric: metrics[at + by] }),
      { "aria-label": label, title: label, disabled: at < 0 || !metrics[at + by] });
    const chart = h("div", { class: "chart-large" });
    const back = button("← All charts", () => state.set({ metric: null }), { class: "chart-back" });
    append(this.content, [h("div", { class: "bar" }, back, go(-1, "The metric before", "‹"), go(1, "The next metric", "›"),
      h("span", { class: "dim" }, at < 0 ? "" : `${at + 1} of ${metrics.length}`)), chart]);
    this.#chart(chart, wishes.metric, wishes, { onEnlarge: null });
    append(this.content, h("div", { class: "card chart-below" }, table(this.runs, wishes.metric)));
  }

  #point(run) {
    this.legend.emphasise(run);
    for (const chart of this.#charts.values()) chart.emphasise(run);
  }
}
