// What was logged besides numbers: a part for each kind that the run has, a choice of names, and a slider over steps.

import { fill, h, visible } from "relume/dom.js";
import { Confusion } from "relume/run/confusion.js";
import { Curves } from "relume/run/curves.js";
import { Figure, Text } from "relume/run/texts.js";
import { Graph } from "relume/run/graph.js";
import { Histograms } from "relume/run/histograms.js";
import { Images } from "relume/run/images.js";
import { Mesh } from "relume/run/mesh.js";
import { choice, empty, Stepper } from "relume/run/parts.js";
import { problem } from "relume/run/problem.js";
import { Table } from "relume/run/table.js";

// [link's name, label, kind in the answers, how it is shown]
const KINDS = [
  ["images", "Images", "image", Images],
  ["confusion", "Confusion", "confusion_matrix", Confusion],
  ["pr", "PR curves", "pr_curve", Curves],
  ["histograms", "Histograms", "histogram", Histograms],
  ["text", "Text", "text", Text],
  ["meshes", "3D", "mesh", Mesh],
  ["graph", "Graph", "graph", Graph],
  ["tables", "Tables", "table", Table],
  ["figures", "Figures", "figure", Figure],
];

export const PARTS = KINDS.map(([id, label, kind, Shown]) => ({
  id,
  label,
  isThere: ({ media }) => media.some((one) => one.kind === kind && one.items.length),
  mount: async (place, page) => {
    const panel = new Panel(place, page, kind, Shown);
    await panel.update();
    return panel;
  },
}));

// `Shown` is made with (panel) and has: element, show(item's answer, item), destroy?(); `ofAllSteps` is true where it shows all
// steps at once and gets what source.items gives.
class Panel {
  #turn = 0;
  #shown = null;

  constructor(place, page, kind, Shown) {
    this.page = page;
    this.kind = kind;
    this.Shown = Shown;
    this.bar = h("div", { class: "bar media-bar" });
    this.stepper = new Stepper((item) => {
      page.app.state.set({ at: item.id === this.one?.items.at(-1)?.id ? null : item.id });
    });
    this.content = h("div", { class: "media-content" });
    fill(place, h("section", { class: "card part", "aria-label": "What was logged" }, this.bar, this.content));
  }

  get names() { return this.page.media.filter((one) => one.kind === this.kind && one.items.length); }

  async update() {
    const { state } = this.page.app;
    const names = this.names;
    const one = names.find((other) => other.name === state.get("of")) ?? names[0];
    if (!one) return fill(this.content, empty("There is nothing of this kind any more."));
    this.#drawBar(names, one);
    const isOther = this.one?.name !== one.name;
    this.one = one;
    if (isOther || !this.view) {
      this.view?.destroy?.();
      this.view = new this.Shown(this);
      this.#shown = null;
      fill(this.content, this.view.element);
    }
    return this.#show(one, this.stepper.fill(one.items, state.get("at")));
  }

  refresh() { return this.update(); }

  unmount() {
    this.#turn += 1;
    this.view?.destroy?.();
  }

  // The last answer that was asked for counts: a slider is faster than the server.
  async #show(one, item) {
    const key = this.Shown.ofAllSteps ? `${one.name}/${one.items.length}/${one.items.at(-1)?.id}` : `${one.name}/${item?.id}`;
    if (key === this.#shown) return;
    this.#shown = key;
    const turn = (this.#turn += 1);
    const { source, name } = this.page;
    try {
      const answer = this.Shown.ofAllSteps ? await source.items(name, one.name) : await source.item(name, item.id);
      if (turn !== this.#turn) return;
      if (answer.problem && !hasContent(answer)) fill(this.content, h("p", { class: "problem" }, visible(answer.problem)));
      else {
        if (this.content.firstChild !== this.view.element) fill(this.content, this.view.element);
        await this.view.show(answer, item);
      }
      this.content.dataset.shown = this.Shown.ofAllSteps ? one.name : item.id;
    } catch (error) {
      if (turn === this.#turn) fill(this.content, problem(error));
    }
  }

  #drawBar(names, one) {
    const key = JSON.stringify([names.map((other) => other.name), one.name]);
    if (key === this.barKey) return;
    this.barKey = key;
    const { state } = this.page.app;
    const pick = names.length > 1 ? choice("What", names.map((other) => [other.name, visible(other.name)]), one.name,
      (name) => state.set({ of: name, at: null }))
      : h("h2", { class: "media-name" }, h("bdi", {}, visible(one.name)));
    const hadFocus = this.bar.contains(document.activeElement) && document.activeElement.tagName === "SELECT";
    fill(this.bar, pick, this.Shown.ofAllSteps ? null : this.stepper.element);
    if (hadFocus) this.bar.querySelector("select")?.focus();
  }
}

function hasContent(answer) {
  return ["images", "text", "nodes", "vertices", "rows", "counts", "items", "file", "precision",
    "curves"].some((name) => answer[name] !== undefined);
}
