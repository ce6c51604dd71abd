// The controls above the charts. They only change the link; what the link says is shown.

import { button, h, uid } from "relume/dom.js";
import { KINDS } from "relume/charts/marks.js";
import { closing } from "relume/charts/menu.js";

const AXES = [["step", "Step"], ["epoch", "Epoch"], ["time", "Time"]];

export class Toolbar {
  constructor(state) {
    this.state = state;
    this.search = this.#search();
    this.axes = AXES.map(([axis, label]) =>
      button(label, () => state.set({ axis: axis === "step" ? null : axis, zoom: null }), { "data-axis": axis }));
    this.log = toggle("Log scale", (on) => state.set({ log: on ? 1 : null }));
    this.together = toggle("Zoom together", (on) => state.set({ apart: on ? null : 1 }));
    this.band = toggle("Band of smallest to largest", (on) => state.set({ band: on ? null : 0 }));
    this.kinds = KINDS.map(([kind, label]) => toggle(label, (on) => this.#mark(kind, on)));
    this.whole = button("Show the whole", () => state.set({ zoom: null }), { class: "primary" });
    this.element = h("div", { class: "bar chart-bar", role: "toolbar", "aria-label": "How the charts are drawn" },
      this.search, h("div", { class: "segments", role: "group", "aria-label": "x axis" }, this.axes),
      this.#smoothing(), this.log.element, this.#more(), this.whole);
  }

  show(wishes) {
    if (document.activeElement !== this.search) this.search.value = wishes.search;
    for (const one of this.axes) one.setAttribute("aria-pressed", String(one.dataset.axis === wishes.axis));
    this.log.input.checked = wishes.log;
    this.together.input.checked = wishes.together;
    this.band.input.checked = wishes.band;
    KINDS.forEach(([kind], place) => { this.kinds[place].input.checked = !wishes.off.includes(kind); });
    if (document.activeElement !== this.slider) this.slider.value = wishes.smooth;
    this.amount.textContent = wishes.smooth ? wishes.smooth.toFixed(2) : "off";
    this.whole.hidden = !wishes.zoom;
  }

  #search() {
    const write = () => this.state.set({ search: this.search.value.trim() });
    const label = "Search metrics";
    return h("input", { type: "search", class: "chart-search", placeholder: label, "aria-label": label, oninput: write });
  }

  #smoothing() {
    const id = uid("smooth");
    this.amount = h("output", { class: "dim number", for: id });
    this.slider = h("input", { id, type: "range", min: "0", max: "0.99", step: "0.01", value: "0", oninput: () => {
      this.state.set({ smooth: Number(this.slider.value) || null });
    } });
    return h("span", { class: "smoothing" }, h("label", { for: id }, "Smoothing"), this.slider, this.amount);
  }

  #mark(kind, on) {
    const off = this.state.all("off").filter((one) => one !== kind);
    this.state.set({ off: on ? off : [...off, kind] });
  }

  #more() {
    const summary = h("summary", { class: "button" }, "Marks and more");
    const place = h("details", { class: "menu" }, summary, h("div", { class: "menu-list" },
      h("fieldset", {}, h("legend", {}, "On the curves"), this.kinds.map((one) => one.element), this.band.element),
      h("fieldset", {}, h("legend", {}, "All charts"), this.together.element)));
    closing(place, summary);
    return place;
  }
}

function toggle(label, onchange) {
  const input = h("input", { type: "checkbox", onchange: () => onchange(input.checked) });
  return { input, element: h("label", { class: "toggle" }, input, " ", label) };
}
