// The limits of each axis as fields: what the pointer does on the drawing, for the keyboard, and exactly.

import { button, fill, h, said } from "relume/dom.js";
import { number } from "relume/format.js";
import { title } from "relume/tables/columns.js";

export class Limits {
  #shape = "";

  // does: {limit(key, [low, high] or null)}
  constructor(does) {
    this.does = does;
    this.table = h("div", { class: "limit-rows" });
    this.element = h("details", { class: "limits" }, h("summary", {}, "Limits in fields"), this.table);
  }

  show(axes, brushes) {
    const shape = JSON.stringify(
      axes.map(({ column, scale }) => [column.key, scale.kind, scale.low, scale.high, scale.names]),
    );
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.fields = new Map();
      fill(
        this.table,
        axes.filter(({ scale }) => scale.low !== undefined).map((axis) => this.#row(axis)),
      );
    }
    for (const [key, { low, high, clear, scale }] of this.fields) {
      const limit = brushes.get(key);
      this.#set(low, limit ? limit[0] : scale.kind === "names" ? scale.low : "");
      this.#set(high, limit ? limit[1] : scale.kind === "names" ? scale.high : "");
      clear.disabled = !limit;
    }
  }

  #set(field, value) {
    if (document.activeElement !== field) field.value = String(value);
  }

  #row({ column, scale }) {
    const name = title(column);
    const [low, high] = [this.#field(scale, `${name}, from`, scale.low), this.#field(scale, `${name}, to`, scale.high)];
    const clear = button("×", () => this.does.limit(column.key, null), {
      class: "quiet small",
      "aria-label": `No limits for ${name}`,
    });
    const change = () => this.does.limit(column.key, this.#read(scale, low, high));
    low.addEventListener("change", change);
    high.addEventListener("change", change);
    this.fields.set(column.key, { low, high, clear, scale });
    return h(
      "div",
      { class: "limit-row" },
      h("span", { class: "cut", title: name }, said(name)),
      low,
      h("span", { class: "dim" }, "to"),
      high,
      clear,
    );
  }

  #field(scale, label, end) {
    if (scale.kind === "names")
      return h(
        "select",
        { "aria-label": label },
        scale.names.map((name) => h("option", { value: name }, name)),
      );
    return h("input", { type: "text", inputmode: "decimal", size: 9, "aria-label": label, placeholder: number(end) });
  }

  #read(scale, low, high) {
    if (scale.kind === "names") return low.value === scale.low && high.value === scale.high ? null : [low.value, high.value];
    const ends = [
      [low, scale.low],
      [high, scale.high],
    ].map(([field, end]) => {
      const value = Number(field.value.trim().replace("−", "-"));
      return field.value.trim() === "" || Number.isNaN(value) ? end : value;
    });
    return ends[0] === scale.low && ends[1] === scale.high ? null : ends;
  }
}
