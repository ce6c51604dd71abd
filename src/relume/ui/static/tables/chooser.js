// Which columns, in which order: a dialog over the table, which changes while one chooses.

import { button, fill, h, said, uid, visible } from "relume/dom.js";
import { column, own, title } from "relume/tables/columns.js";

export class Chooser {
  #answer;
  #keys = [];
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    const id = uid("columns");
    this.search = h("input", {
      type: "search",
      placeholder: "Find a column",
      "aria-label": "Find a column",
      oninput: () => this.#sift(),
    });
    this.offered = h("div", { class: "offered" });
    this.order = h("ol", { class: "order", "aria-label": "Columns shown, in their order" });
    this.element = h(
      "dialog",
      { class: "chooser card", "aria-labelledby": id },
      h(
        "div",
        { class: "bar" },
        h("h2", { id }, "Columns"),
        this.search,
        h("span", { class: "space" }),
        button("As at first", () => this.#change(null)),
        button("Done", () => this.element.close(), { class: "primary" }),
      ),
      h("div", { class: "halves" }, this.offered, h("div", {}, h("h3", {}, "Shown, in this order"), this.order)),
    );
    this.element.addEventListener("click", (event) => {
      if (event.target === this.element) this.element.close();
    });
  }

  open(answer, keys) {
    this.#answer = answer;
    this.#keys = [...keys];
    this.search.value = "";
    this.#drawOffered();
    this.#drawOrder();
    this.element.showModal();
    this.search.focus();
  }

  // The link has changed, perhaps by this dialog.
  update(keys) {
    if (!this.element.open || JSON.stringify(keys) === JSON.stringify(this.#keys)) return;
    this.#keys = [...keys];
    this.#drawOrder();
    for (const box of this.offered.querySelectorAll("input")) box.checked = keys.includes(box.dataset.key);
  }

  #change(keys) {
    if (keys) this.#keys = keys;
    this.#onChange(keys);
    if (keys) this.#drawOrder();
    for (const box of this.offered.querySelectorAll("input")) box.checked = this.#keys.includes(box.dataset.key);
  }

  #drawOffered() {
    const groups = prefixes(this.#answer.metrics).map(([prefix, names]) => this.#metrics(prefix, names));
    const settings = this.#answer.settings.map((name) => this.#box(`config:${name}`, name));
    fill(
      this.offered,
      this.#group(
        "Runs",
        own.map((key) => this.#box(key, column(key).label)),
      ),
      groups,
      this.#group("Settings", settings),
    );
  }

  #metrics(prefix, names) {
    const rows = names.map((name) =>
      h(
        "div",
        { class: "metric-choice", dataset: { find: name.toLowerCase() } },
        h("span", { class: "cut", title: visible(name) }, said(name)),
        ["best", "last", "curve"].map((kind) => this.#box(`${kind}:${name}`, kind, `${kind} of ${visible(name)}`)),
      ),
    );
    return this.#group(prefix ? `Metrics: ${visible(prefix)}/` : "Metrics", rows);
  }

  #group(legend, content) {
    return content.length ? h("fieldset", {}, h("legend", {}, legend), content) : null;
  }

  #box(key, label, spoken = null) {
    const box = h("input", { type: "checkbox", checked: this.#keys.includes(key), "aria-label": spoken, dataset: { key } });
    box.addEventListener("change", () => {
      this.#change(box.checked ? [...this.#keys, key] : this.#keys.filter((one) => one !== key));
    });
    return h(
      "label",
      { class: "choice", dataset: { find: label.toLowerCase() } },
      box,
      h("span", { class: "cut" }, said(label)),
    );
  }

  #drawOrder() {
    fill(
      this.order,
      this.#keys.map((key, place) => {
        const name = title(column(key, this.#answer) ?? { label: key });
        return h(
          "li",
          {},
          h("span", { class: "cut", title: name }, said(name)),
          this.#mover("↑", `Move ${name} to the front`, place, -1),
          this.#mover("↓", `Move ${name} to the back`, place, 1),
          button("×", () => this.#remove(key, place), { class: "quiet small", "aria-label": `Hide ${name}` }),
        );
      }),
    );
  }

  #mover(sign, label, place, by) {
    const move = () => {
      const keys = [...this.#keys];
      keys.splice(place + by, 0, ...keys.splice(place, 1));
      this.#change(keys);
      this.order.children[place + by].querySelectorAll("button")[by < 0 ? 0 : 1].focus();
    };
    return button(sign, move, {
      class: "quiet small",
      "aria-label": label,
      disabled: place + by < 0 || place + by >= this.#keys.length,
    });
  }

  #remove(key, place) {
    this.#change(this.#keys.filter((one) => one !== key));
    (
      this.order.children[Math.min(place, this.order.children.length - 1)]?.querySelector("button:last-child") ?? this.search
    ).focus();
  }

  #sift() {
    const text = this.search.value.trim().toLowerCase();
    for (const element of this.offered.querySelectorAll("fieldset > [data-find]"))
      element.hidden = !element.dataset.find.includes(text);
    for (const group of this.offered.querySelectorAll("fieldset")) {
      group.hidden = ![...group.querySelectorAll(":scope > [data-find]")].some((one) => !one.hidden);
    }
  }
}

function prefixes(names) {
  const found = new Map();
  for (const name of names) {
    const at = name.indexOf("/");
    const prefix = at > 0 ? name.slice(0, at) : "";
    found.set(prefix, [...(found.get(prefix) ?? []), name]);
  }
  return [...found];
}
