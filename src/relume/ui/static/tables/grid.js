// The table itself. A change touches the cells that changed: focus, selection and the place scrolled to stay.

import { button, fill, h, said, visible } from "relume/dom.js";
import { colour } from "relume/colors.js";
import { content, signature } from "relume/tables/cells.js";
import { title } from "relume/tables/columns.js";

const FIRST = 60; // rows drawn at once; a screen is full of them, the others follow while nobody waits
const LATER = 150;

export class Grid {
  #rows = new Map(); // name -> {line, cells: Map(key -> {cell, sign}), box, mark}
  #heads = new Map(); // group -> body
  #shape = "";
  #turn = 0;

  // does: {sort(column, reversed), pick(name, isPicked, isRange), pickAll(isPicked), toggle(group), archive(name), link(name)}
  constructor(does, around) {
    this.does = does;
    this.around = around;
    this.all = h("input", {
      type: "checkbox",
      "aria-label": "Pick all runs shown",
      onchange: () => does.pickAll(this.all.checked),
    });
    this.head = h("thead", {});
    this.table = h("table", { class: "grid runs-table" }, h("caption", { class: "announcement" }, "Runs"), this.head);
    this.element = h(
      "div",
      { class: "scroll runs-scroll", role: "region", "aria-label": "Table of runs", tabindex: "0" },
      this.table,
    );
  }

  // shown: {columns, groups: [{key, text, rows, summary}], isGrouped, sort, descending, picked, closed}
  show(shown) {
    const shape = JSON.stringify([shown.columns.map((one) => one.key), this.around.canEdit]);
    if (shape !== this.#shape) this.#clear(shape);
    this.#drawHead(shown);
    const wanted = this.#bodies(shown);
    this.#prune(new Set(wanted.map(([, row]) => row.name)));
    this.#turn += 1;
    this.#place(wanted, 0, FIRST, shown, this.#turn);
    this.#drawPicks(shown);
  }

  // A cell that was a field is drawn anew at the next change, whatever it says.
  forget(name, key) {
    const kept = this.#rows.get(name)?.cells.get(key);
    if (kept) kept.sign = null;
  }

  paint() {
    for (const element of this.table.querySelectorAll("[data-place]")) {
      element.style.setProperty("--run", colour(Number(element.dataset.place)));
    }
  }

  #clear(shape) {
    this.#shape = shape;
    for (const { line } of this.#rows.values()) line.remove();
    this.#rows.clear();
  }

  // Drawn again only where it says something else, so that a pressed heading keeps the focus.
  #drawHead(shown) {
    const key = JSON.stringify([shown.columns.map((one) => [one.key, one.mode]), shown.sort.key, shown.descending]);
    if (this.head.dataset.shown === key) return;
    const focused = this.head.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.head.dataset.shown = key;
    fill(
      this.head,
      h(
        "tr",
        {},
        this.#headCell({ key: "name", label: "run", sub: "" }, shown, this.all),
        shown.columns.map((one) => this.#headCell(one, shown)),
        this.around.canEdit ? h("th", { scope: "col" }, h("span", { class: "announcement" }, "Archive")) : null,
      ),
    );
    if (focused)
      [...this.head.querySelectorAll("button")].find((one) => one.dataset.key === focused)?.focus({ preventScroll: true });
  }

  #headCell(column, shown, before) {
    const isSorted = shown.sort.key === column.key;
    const order = isSorted ? (shown.descending ? "descending" : "ascending") : null;
    const sort = button(
      [
        h("span", { class: "head-name" }, said(column.label)),
        column.sub || column.hint ? h("span", { class: "sub" }, said(column.sub || column.hint)) : null,
        h("span", { class: "arrow", "aria-hidden": "true" }, isSorted ? (shown.descending ? "↓" : "↑") : ""),
      ],
      (event) => this.does.sort(column, event.shiftKey),
      {
        class: "quiet sort",
        title: `${title(column)}. Sort by it; with shift the other way round.`,
        dataset: { key: column.key },
      },
    );
    return h(
      "th",
      {
        scope: "col",
        "aria-sort": order,
        class: `${column.isNumeric ? "number " : ""}${column.key === "name" ? "name" : ""}`,
      },
      h("div", { class: "head" }, before, sort),
    );
  }

  // The bodies of the groups in their order, and with them each row that is to be there.
  #bodies(shown) {
    const wanted = [];
    const kept = new Map();
    let at = this.head.nextSibling;
    for (const group of shown.groups) {
      const body = this.#heads.get(group.key) ?? h("tbody", {});
      kept.set(group.key, body);
      if (body === at) at = at.nextSibling;
      else this.table.insertBefore(body, at);
      const isClosed = shown.isGrouped && shown.closed.has(group.key);
      this.#drawGroup(body, group, shown, isClosed);
      if (!isClosed) for (const row of group.rows) wanted.push([body, row]);
    }
    for (const [key, body] of this.#heads) if (!kept.has(key)) body.remove();
    this.#heads = kept;
    return wanted;
  }

  #drawGroup(body, group, shown, isClosed) {
    const key = shown.isGrouped
      ? JSON.stringify([group.text, group.rows.length, group.summary, isClosed, shown.columns.length])
      : "";
    if (body.dataset.group === key) return;
    const hadFocus = body.firstChild?.className === "group" && body.firstChild.contains(document.activeElement);
    if (body.firstChild?.className === "group") body.firstChild.remove();
    body.dataset.group = key;
    if (!shown.isGrouped) return;
    const toggle = button(
      [
        h("span", { class: "fold", "aria-hidden": "true" }, isClosed ? "▸" : "▾"),
        h("span", { class: "group-name" }, said(group.label), " = ", said(group.text)),
        h("span", { class: "dim" }, ` ${group.rows.length === 1 ? "1 run" : `${group.rows.length} runs`}`),
        group.summary ? h("span", { class: "dim" }, " · ", said(group.summary)) : null,
      ],
      () => this.does.toggle(group.key),
      { class: "quiet", "aria-expanded": String(!isClosed), title: visible(`${group.label} = ${group.text}`) },
    );
    const span = shown.columns.length + 1 + (this.around.canEdit ? 1 : 0);
    body.prepend(h("tr", { class: "group" }, h("th", { scope: "rowgroup", colspan: span }, toggle)));
    if (hadFocus) toggle.focus({ preventScroll: true });
  }

  #prune(names) {
    for (const [name, { line }] of this.#rows) {
      if (names.has(name)) continue;
      line.remove();
      this.#rows.delete(name);
    }
  }

  #place(wanted, from, count, shown, turn) {
    if (turn !== this.#turn) return;
    const active = document.activeElement;
    let at = null;
    for (let place = from; place < Math.min(wanted.length, from + count); place += 1) {
      const [body, row] = wanted[place];
      const line = this.#line(row, shown);
      const before = place > 0 && wanted[place - 1][0] === body ? this.#rows.get(wanted[place - 1][1].name).line : null;
      at = before
        ? before.nextSibling
        : body.firstChild?.className === "group"
          ? body.firstChild.nextSibling
          : body.firstChild;
      if (line !== at) body.insertBefore(line, at);
    }
    if (active !== document.activeElement && active?.isConnected) active.focus({ preventScroll: true });
    if (from + count < wanted.length) setTimeout(() => this.#place(wanted, from + count, LATER, shown, turn));
    this.element.dataset.drawn = from + count >= wanted.length ? "all" : "some";
  }

  #line(row, shown) {
    const known = this.#rows.get(row.name) ?? this.#made(row);
    known.row = row;
    known.box.checked = shown.picked.has(row.name);
    known.line.classList.toggle("picked", known.box.checked);
    for (const column of shown.columns) this.#drawCell(known, column, row);
    if (this.around.canEdit) this.#drawArchive(known, row);
    return known.line;
  }

  #made(row) {
    const name = visible(row.name);
    const box = h("input", {
      type: "checkbox",
      "aria-label": `Pick ${name}`,
      onclick: (event) => this.does.pick(row.name, box.checked, event.shiftKey),
    });
    const mark = h("span", {
      class: "swatch",
      "aria-hidden": "true",
      dataset: { place: row.place ?? 0 },
      style: { "--run": colour(row.place ?? 0) },
    });
    const link = h("a", { href: this.does.link(row.name), title: name }, said(row.name));
    const line = h("tr", {}, h("th", { scope: "row", class: "name" }, h("div", { class: "head" }, box, mark, link)));
    const made = { line, cells: new Map(), box };
    this.#rows.set(row.name, made);
    return made;
  }

  #drawCell(known, column, row) {
    let kept = known.cells.get(column.key);
    if (!kept) {
      kept = { cell: h("td", { class: `${column.isNumeric ? "number " : ""}of-${column.kind}` }), sign: null };
      known.cells.set(column.key, kept);
      known.line.append(kept.cell);
    }
    const sign = signature(column, row, this.around);
    if (kept.sign === sign || kept.cell.dataset.editing) return;
    const hadFocus = kept.cell.contains(document.activeElement);
    kept.sign = sign;
    fill(kept.cell, content(column, row, this.around));
    for (const one of kept.cell.querySelectorAll("[data-place]")) one.style.setProperty("--run", colour(row.place ?? 0));
    if (hadFocus) kept.cell.querySelector("button, a")?.focus({ preventScroll: true });
  }

  #drawArchive(known, row) {
    known.line.classList.toggle("archived", Boolean(row.archived));
    if (known.archive) {
      if (known.archive.dataset.archived !== String(Boolean(row.archived))) this.#sayArchive(known.archive, row);
      return;
    }
    known.archive = button("", () => this.does.archive(row.name), { class: "quiet small" });
    this.#sayArchive(known.archive, row);
    known.line.append(h("td", { class: "of-archive" }, row.status === "damaged" ? null : known.archive));
  }

  #sayArchive(element, row) {
    element.dataset.archived = String(Boolean(row.archived));
    element.textContent = row.archived ? "bring back" : "archive";
    element.setAttribute("aria-label", `${row.archived ? "Bring back" : "Archive"} ${visible(row.name)}`);
  }

  #drawPicks(shown) {
    const names = shown.groups.flatMap((group) => group.rows.map((row) => row.name));
    const count = names.filter((name) => shown.picked.has(name)).length;
    this.all.checked = names.length > 0 && count === names.length;
    this.all.indeterminate = count > 0 && count < names.length;
  }
}
