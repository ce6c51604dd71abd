// A list of things to tick that opens below its button.

import { fill, h, said } from "relume/dom.js";

export class Picker {
  #keys = [];
  #shape = "";

  constructor(label, onChange) {
    this.onChange = onChange;
    this.search = h("input", {
      type: "search",
      placeholder: "Find",
      "aria-label": `Find in ${label}`,
      oninput: () => this.#sift(),
    });
    this.list = h("div", { class: "picker-list" });
    this.count = h("span", { class: "dim" });
    this.summary = h("summary", { class: "button" }, `${label} `, this.count);
    this.element = h(
      "details",
      { class: "picker" },
      this.summary,
      h("div", { class: "picker-box card" }, this.search, this.list),
    );
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.element.open) return;
      this.element.open = false;
      this.summary.focus();
    });
    this.element.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !this.element.contains(event.relatedTarget)) this.element.open = false;
    });
  }

  // offered: [[key, label]]; chosen: keys in their order
  show(offered, chosen) {
    this.#keys = chosen;
    this.count.textContent = String(chosen.length);
    const shape = JSON.stringify(offered);
    if (shape !== this.#shape)
      fill(
        this.list,
        offered.map(([key, label]) => this.#choice(key, label)),
      );
    this.#shape = shape;
    for (const box of this.list.querySelectorAll("input")) box.checked = chosen.includes(box.dataset.key);
  }

  #choice(key, label) {
    const box = h("input", { type: "checkbox", dataset: { key } });
    box.addEventListener("change", () => {
      this.onChange(box.checked ? [...this.#keys, key] : this.#keys.filter((one) => one !== key));
    });
    return h(
      "label",
      { class: "choice", dataset: { find: label.toLowerCase() } },
      box,
      h("span", { class: "cut", title: label }, said(label)),
    );
  }

  #sift() {
    const text = this.search.value.trim().toLowerCase();
    for (const one of this.list.children) one.hidden = !one.dataset.find.includes(text);
  }
}
