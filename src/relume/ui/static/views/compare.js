// Runs side by side: how settings go with results, two things against each other, and what differs.

import { button, fill, h, said, svg, visible } from "relume/dom.js";
import { colour } from "relume/colors.js";
import { plural } from "relume/format.js";
import { parallelCard, scatterCard, tableCard } from "relume/comparing/cards.js";
import { differences } from "relume/comparing/differences.js";
import { ask, head } from "relume/comparing/heading.js";
import { Limits } from "relume/comparing/limits.js";
import { legend, parallel } from "relume/comparing/parallel.js";
import { Picker } from "relume/comparing/picker.js";
import { scatter } from "relume/comparing/scatter.js";
import { onlyOf } from "relume/comparing/subset.js";
import { shares } from "relume/comparing/tint.js";
import { limits, MOST, offered, wanted } from "relume/comparing/wanted.js";
import { column, nameColumn, title } from "relume/tables/columns.js";
import { asTable } from "relume/tables/order.js";

const PACE = 2000; // ms between two looks at the server

export async function mount(place, app) {
  const view = new Compare(place, app, await app.source.runs());
  await view.start();
  return { update: () => view.update(), unmount: () => view.close() };
}

class Compare {
  names = [];
  found = null;
  #timer = null;
  #drawn = "";

  constructor(place, app, answer) {
    this.app = app;
    this.place = place;
    this.answer = answer;
    this.does = {
      hover: (name) => this.#hover(name),
      link: (name) => app.state.link("run", name),
      limit: (key, values) => this.#limit(key, values),
    };
    this.limits = new Limits(this.does);
    this.axes = new Picker("Axes", (keys) => app.state.set({ axis: keys }));
  }

  async start() {
    this.resized = new ResizeObserver(() => this.#drawPlots());
    this.resized.observe(this.place);
    this.themed = () => {
      this.#drawn = "";
      this.#drawPlots();
      this.#paint();
    };
    window.addEventListener("themechange", this.themed);
    this.stop = this.app.source.onChange((change) => this.#onChange(change));
    await this.update();
  }

  async update() {
    const names = this.#chosen();
    if (String(names) !== String(this.names) || !this.found) {
      this.names = names;
      this.#build();
      if (names.length > 1) await this.#compare();
    }
    if (this.names.length > 1) {
      this.#drawPlots();
      this.#drawTable();
    }
  }

  close() {
    this.isClosed = true;
    this.stop?.();
    clearTimeout(this.#timer);
    this.resized.disconnect();
    window.removeEventListener("themechange", this.themed);
  }

  // Those of the link that there are. A report holds few runs: all of them, when the link names none.
  #chosen() {
    const asked = this.app.state.all("runs");
    const known = new Set(this.answer.runs.map((row) => row.name));
    const all = this.app.source.isLive || asked.length ? [] : [...known];
    return [...new Set(asked.length ? asked : all)].filter((name) => known.has(name)).slice(0, MOST);
  }

  get rows() {
    const rows = new Map(this.answer.runs.map((row) => [row.name, row]));
    return this.names.map((name) => rows.get(name)).filter(Boolean);
  }

  #onChange(change) {
    if (change.lost || !(change.list || change.runs.some((name) => this.names.includes(name)))) return;
    this.#timer ??= setTimeout(() => this.#refresh(), PACE);
  }

  async #refresh() {
    try {
      this.answer = await this.app.source.runs();
      if (this.names.length > 1) this.found = await this.app.source.compare(this.names);
    } catch {
      /* the frame says that the server is gone; the next change asks again */
    }
    this.#timer = null;
    if (!this.isClosed && this.names.length > 1) {
      this.#drawPlots();
      this.#drawTable();
    }
  }

  async #compare() {
    const names = this.names;
    try {
      const found = await this.app.source.compare(names);
      if (names === this.names) this.found = onlyOf(found, names);
    } catch (error) {
      this.found = { names, error: error.message };
    }
  }

  #build() {
    this.#drawn = "";
    if (this.names.length < 2) {
      fill(this.place, ask(this));
      return;
    }
    this.parallelPlace = h("div", {
      class: "scroll plot-place",
      role: "region",
      "aria-label": "Parallel coordinates",
      tabindex: "0",
    });
    this.scatterPlace = h("div", { class: "plot-place" });
    this.tablePlace = h("div", {});
    this.legend = h("div", {});
    this.inside = h("span", { class: "dim", role: "status" });
    this.keep = button("Keep only these", () =>
      this.app.state.set({ runs: this.insideNames, limit: [] }, { replace: false }),
    );
    this.clear = button("No limits", () => this.app.state.set({ limit: [] }), { class: "quiet" });
    this.nothing = h("p", { class: "card dim", hidden: true }, "These runs share no settings and results to draw.");
    this.cards = [parallelCard(this), scatterCard(this)];
    fill(this.place, head(this), this.nothing, this.cards, tableCard(this));
    this.#paint();
  }

  remove(name) {
    this.app.state.set({ runs: this.names.filter((one) => one !== name) });
    this.app.announce(`${visible(name)} is left out`);
    (this.place.querySelector(".run-chip button") ?? this.app.main).focus();
  }

  values(columns) {
    return asTable(this.rows, [nameColumn, ...columns]);
  }

  // Drawn again when something that is shown differs: moving over the page must not take away what one points at.
  #drawPlots() {
    if (this.names.length < 2 || !this.parallelPlace?.isConnected) return;
    const { rows } = this;
    const want = (this.want = wanted(this.app.state, this.answer, rows));
    const isNothing = !want.axes.length && !this.app.state.has("axis");
    this.nothing.hidden = !isNothing;
    this.cards.forEach((card) => {
      card.hidden = isNothing;
    });
    const width = this.parallelPlace.clientWidth;
    const key = JSON.stringify([
      width,
      this.values([...want.axes, want.x, want.y, ...(want.result ? [want.result] : [])]),
      [...want.brushes],
      want.xScale,
      want.yScale,
    ]);
    if (key === this.#drawn || width < 50) return;
    this.#drawn = key;
    this.#drawChoices(want, rows);
    const share = shares(rows, want.result);
    const { drawing, axes, inside } = parallel(rows, want.axes, share, want.brushes, width, this.does);
    fill(this.parallelPlace, want.axes.length ? drawing : h("p", { class: "empty" }, "No axis is chosen."));
    fill(this.legend, want.result ? legend(want.result, rows) : null);
    this.limits.show(axes, want.brushes);
    this.#sayInside(inside, want.brushes.size);
    const spots = scatter(rows, want, share, inside, this.scatterPlace.clientWidth, this.does);
    fill(this.scatterPlace, spots.drawing);
    this.missing.textContent = spots.missing
      ? `${plural(spots.missing, "run")} without a place here: no such value, or none that this scale has.`
      : "";
  }

  #sayInside(inside, count) {
    this.insideNames = this.names.filter((name) => inside.has(name));
    this.inside.textContent = count ? `${inside.size} of ${plural(this.names.length, "run")} within the limits` : "";
    this.keep.hidden = !count || inside.size < 2 || inside.size === this.names.length;
    this.clear.hidden = !count;
  }

  #drawChoices(want, rows) {
    const keys = offered(this.answer, rows);
    const options = (select, current, some = keys) => {
      const all = current && !some.includes(current.key) ? [current.key, ...some] : some;
      const shape = JSON.stringify(all);
      if (select.dataset.shown !== shape)
        fill(
          select,
          all.map((key) => h("option", { value: key }, title(column(key, this.answer)))),
        );
      select.dataset.shown = shape;
      select.value = current?.key ?? "";
    };
    options(
      this.result,
      want.result,
      keys.filter((key) => /^(best|last):/.test(key)),
    );
    options(this.x, want.x);
    options(this.y, want.y);
    this.xScale.value = want.xScale;
    this.yScale.value = want.yScale;
    this.axes.show(
      keys.map((key) => [key, title(column(key, this.answer))]),
      want.axes.map((one) => one.key),
    );
  }

  #drawTable() {
    const all = this.app.state.get("all") === "1";
    this.everything.checked = all;
    const key = JSON.stringify([this.found, all]);
    if (!this.found || this.tablePlace.shown === key) return;
    this.tablePlace.shown = key;
    if (this.found.error) {
      fill(this.tablePlace, h("p", { class: "error", role: "alert" }, said(this.found.error)));
      return;
    }
    const box = this.tablePlace.querySelector(".scroll");
    const at = box ? [box.scrollLeft, box.scrollTop] : [0, 0];
    const table = differences(this.found, all, this.rows, this.app.state);
    fill(this.tablePlace, table);
    table.scrollTo(...at);
    this.#paint();
  }

  #paint() {
    for (const one of this.place.querySelectorAll(".swatch[data-place]"))
      one.style.setProperty("--run", colour(Number(one.dataset.place)));
  }

  #limit(key, values) {
    const found = new Map(this.want.brushes);
    if (values) found.set(key, values);
    else found.delete(key);
    this.app.state.set({ limit: limits(found) });
  }

  #hover(name) {
    this.place.classList.toggle("has-hovered", name !== null);
    for (const one of this.place.querySelectorAll("[data-run]")) one.classList.toggle("hovered", one.dataset.run === name);
    const line = name === null ? null : this.place.querySelector(".run-line.hovered");
    if (line && line !== line.parentNode.querySelector(".run-line:last-of-type")) this.#raise(line);
  }

  // Over the other lines, under the axes.
  #raise(line) {
    const copy =
      this.place.querySelector(".raised") ?? svg("g", { class: "raised", "aria-hidden": "true", "data-only-page": "" });
    fill(
      copy,
      [...line.querySelectorAll(".line")].map((one) => one.cloneNode()),
    );
    line.parentNode.insertBefore(copy, line.parentNode.querySelector(".axis"));
  }
}
