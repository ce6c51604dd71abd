// What the parts of a run's page are made of: sections, lists of facts, tables that sort, and the slider over steps.

import { button, fill, h, said, uid } from "relume/dom.js";
import { moment, number, toNumber } from "relume/format.js";

export function section(title, ...children) {
  const id = uid("section");
  return h("section", { class: "card part", "aria-labelledby": id }, h("h2", { id }, title), children);
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, shown.map(([name, value]) => h("div", {},
    h("dt", {}, said(name)), h("dd", {}, value instanceof Node ? value : said(value)))));
}

export function empty(text) {
  return h("p", { class: "empty" }, text);
}

// Where something was: "step 120 · epoch 2".
export function whereOf(item) {
  const parts = [];
  if (item.step !== null && item.step !== undefined && item.step >= 0) parts.push(`step ${number(item.step)}`);
  if (item.epoch !== null && item.epoch !== undefined && item.epoch > 0) parts.push(`epoch ${number(item.epoch)}`);
  return parts.join(" · ");
}

// A table whose heads sort it. columns: [{label, value(row), cell(row)?, isNumber?}].
export function sortable(caption, columns, rows, { by = -1, descending = false } = {}) {
  const body = h("tbody");
  const heads = columns.map((column, place) => h("th", { scope: "col", class: column.isNumber ? "number" : null },
    button(said(column.label), () => sort(place), { class: "quiet head" })));
  let sorted = by;
  let falls = descending;
  const draw = () => {
    const order = sorted < 0 ? rows : [...rows].sort((a, b) => compared(columns[sorted], a, b) * (falls ? -1 : 1));
    fill(body, order.map((row) => h("tr", {}, columns.map((column) => h("td", { class: column.isNumber ? "number" : null },
      column.cell ? column.cell(row) : said(column.value(row) ?? ""))))));
    heads.forEach((head, place) => {
      if (place === sorted) head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  const sort = (place) => {
    falls = sorted === place ? !falls : Boolean(columns[place].isNumber);
    sorted = place;
    draw();
  };
  draw();
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { class: "grid" }, h("caption", { class: "announcement" }, caption), h("thead", {}, h("tr", {}, heads)), body));
}

function compared(column, a, b) {
  const [left, right] = [column.value(a), column.value(b)];
  if (!column.isNumber) return String(left ?? "").localeCompare(String(right ?? ""), "en", { numeric: true });
  const [x, y] = [toNumber(left), toNumber(right)];
  if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
  return x - y;
}

// A slider over the steps at which something was logged, with buttons beside it. Calls onpick(item).
export class Stepper {
  #items = [];
  #onpick;

  constructor(onpick) {
    this.#onpick = onpick;
    const id = uid("step");
    this.range = h("input", { type: "range", id, min: 0, max: 0, step: 1, oninput: () => this.#pick() });
    this.said = h("output", { for: id, class: "stepper-where" });
    this.before = button("‹", () => this.move(-1), { "aria-label": "Earlier step" });
    this.next = button("›", () => this.move(1), { "aria-label": "Later step" });
    this.label = h("label", { for: id }, "Step");
    this.element = h("div", { class: "stepper" }, this.label, this.before, this.range, this.next, this.said);
  }

  get item() { return this.#items[Number(this.range.value)] ?? null; }

  // `id`: of the item to stand on; without one that is there, the newest.
  fill(items, id) {
    this.#items = items;
    this.range.max = Math.max(0, items.length - 1);
    const place = items.findIndex((one) => one.id === id);
    this.range.value = place < 0 ? Math.max(0, items.length - 1) : place;
    this.#say();
    return this.item;
  }

  move(by) {
    const place = Math.min(this.#items.length - 1, Math.max(0, Number(this.range.value) + by));
    if (place === Number(this.range.value)) return;
    this.range.value = place;
    this.#pick();
  }

  #pick() {
    this.#say();
    if (this.item) this.#onpick(this.item);
  }

  #say() {
    const place = Number(this.range.value);
    const item = this.item;
    this.element.hidden = this.#items.length === 0;
    this.label.hidden = this.range.hidden = this.before.hidden = this.next.hidden = this.#items.length < 2;
    this.before.disabled = place <= 0;
    this.next.disabled = place >= this.#items.length - 1;
    const where = item ? whereOf(item) : "";
    this.range.setAttribute("aria-valuetext", where);
    fill(this.said, where, this.#items.length > 1 ? h("span", { class: "dim" }, ` · ${place + 1} of ${this.#items.length}`)
      : null,
      item?.time ? h("span", { class: "dim stepper-time" }, ` · ${moment(item.time)}`) : null);
  }
}

// A select with a label: options [[value, text]].
export function choice(label, options, value, onchange) {
  const id = uid("choice");
  const select = h("select", { id, onchange: () => onchange(select.value) },
    options.map(([one, text]) => h("option", { value: one }, text)));
  select.value = value;
  return h("span", { class: "choice" }, h("label", { for: id }, label), select);
}

// Buttons of which one is pressed: options [[value, text]].
export function switches(label, options, value, onchange) {
  const made = options.map(([one, text]) => button(text, () => { press(one); onchange(one); }, { dataset: { value: one } }));
  const press = (wanted) => made.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.value === wanted)));
  press(value);
  return h("span", { class: "switches", role: "group", "aria-label": label }, made);
}
