// The confusion matrix: which class was taken for which, the largest confusions first in words.

import { fill, h, said, svg, visible } from "relume/dom.js";
import { ink } from "relume/colors.js";
import { number, toNumber } from "relume/format.js";
import { section, sortable, switches } from "relume/run/parts.js";
import { saving } from "relume/run/saving.js";

const DRAWN = 60; // classes that are drawn one by one; more are painted on a canvas
const WRITTEN = 24; // classes whose numbers are legible in their cells
const LISTED = 12;

export class Confusion {
  #by = "share";
  #answer = null;
  #place = [0, 0];

  constructor(panel) {
    this.panel = panel;
    this.readout = h("p", { class: "readout", role: "status" });
    this.matrix = h("div", { class: "matrix" });
    this.words = h("div", { class: "matrix-words" });
    this.element = h("div", {}, h("div", { class: "bar" },
      switches("Cells show", [["share", "Share of the row"], ["count", "Counts"]], "share",
        (by) => { this.#by = by; this.#draw(); }),
      saving("confusion-matrix", { rows: () => this.#rows(), drawing: () => this.matrix.querySelector("svg") ?? svg("svg") })),
    this.readout, this.note = h("p", { class: "dim" }), h("div", { class: "matrix-both" }, this.matrix, this.words));
    this.onTheme = () => this.#draw();
    window.addEventListener("themechange", this.onTheme);
  }

  destroy() { window.removeEventListener("themechange", this.onTheme); }

  show(answer) {
    this.#answer = answer;
    this.#draw();
    fill(this.words, confusions(answer), scores(answer));
    this.note.textContent = answer.total > answer.shown
      ? `The ${number(answer.shown)} classes with the most mistakes, of ${number(answer.total)}.` : "";
    this.note.hidden = !this.note.textContent;
  }

  #draw() {
    if (!this.#answer) return;
    const { classes, counts } = this.#answer;
    const sums = counts.map((row) => row.reduce((sum, count) => sum + count, 0));
    const share = (row, column) => (sums[row] ? counts[row][column] / sums[row] : 0);
    const most = Math.max(1, ...counts.map((row) => Math.max(...row)));
    const shade = (row, column) => (this.#by === "share" ? share(row, column) : counts[row][column] / most);
    this.say = (row, column) => {
      this.#place = [row, column];
      this.readout.textContent = `${visible(classes[row])} taken for ${visible(classes[column])}`
        + `${row === column ? " (right)" : ""}: `
        + `${number(counts[row][column])} of ${number(sums[row])}, ${number(100 * share(row, column), 3)} %`;
    };
    const all = this.#answer.samples ?? sums.reduce((sum, one) => sum + one, 0);
    const right = counts.reduce((sum, row, place) => sum + row[place], 0);
    const accuracy = toNumber(this.#answer.accuracy ?? right / all);
    this.readout.textContent = `${number(100 * accuracy, 4)} % of ${number(all)} samples right. `
      + "Point at a cell, or move with the arrow keys.";
    const text = (row, column) => (this.#by === "count" ? number(counts[row][column]) : shareText(share(row, column)));
    const drawn = classes.length <= DRAWN ? drawing(classes, counts, shade, text, this.say) : painting(classes, shade, this.say);
    drawn.setAttribute("tabindex", "0");
    drawn.addEventListener("keydown", (event) => this.#key(event, classes.length));
    fill(this.matrix, h("div", { class: "scroll matrix-scroll" }, drawn));
  }

  #key(event, count) {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    const keep = (at) => Math.min(count - 1, Math.max(0, at));
    const [row, column] = [keep(this.#place[0] + down), keep(this.#place[1] + right)];
    this.say(row, column);
    this.matrix.querySelectorAll(".cell-chosen").forEach((cell) => cell.classList.remove("cell-chosen"));
    this.matrix.querySelector(`[data-cell="${row}-${column}"]`)?.classList.add("cell-chosen");
  }

  #rows() {
    const { classes, counts } = this.#answer;
    return [["true \\ predicted", ...classes], ...counts.map((row, place) => [classes[place], ...row])];
  }
}

function shareText(share) {
  if (share === 0) return "";
  return share < 0.005 ? "<1" : String(Math.round(100 * share));
}

function cut(text, most) {
  const shown = visible(text);
  return shown.length > most ? `${shown.slice(0, most - 1)}…` : shown;
}

function drawing(classes, counts, shade, text, say) {
  const cell = classes.length <= 12 ? 44 : classes.length <= WRITTEN ? 32 : 14;
  const letters = cell < 20 ? 10 : 12;
  const left = Math.min(150, 24 + Math.max(...classes.map((name) => cut(name, 18).length)) * letters * 0.62);
  const top = left * 0.8 + 20;
  const side = classes.length * cell;
  const x = (column) => left + column * cell;
  const y = (row) => top + row * cell;
  return svg("svg", { class: "confusion", viewBox: `0 0 ${left + side + top * 0.7} ${top + side + 12}`,
    width: left + side + top * 0.7, height: top + side + 12,
    role: "img", "aria-label": `Confusion matrix of ${classes.length} classes. `
      + "Rows are the true classes, columns what they were taken for.", "font-size": letters },
  svg("text", { class: "axis", x: left, y: 13 }, "taken for →"), svg("text", { class: "axis", x: 2, y: top - 6 }, "true ↓"),
  classes.map((name, place) => [
    svg("text", { x: left - 7, y: y(place) + cell / 2 + 4, "text-anchor": "end", direction: "ltr" }, cut(name, 18),
      svg("title", {}, visible(name))),
    svg("text", { transform: `translate(${x(place) + cell / 2 + 4} ${top - 7}) rotate(-50)`, direction: "ltr" }, cut(name, 18),
      svg("title", {}, visible(name)))]),
  classes.map((_, row) => classes.map((__, column) => {
    const strength = shade(row, column);
    const tell = () => say(row, column);
    return svg("g", { class: row === column ? "right" : "wrong", "data-cell": `${row}-${column}`, onpointerenter: tell,
      onclick: tell },
      svg("rect", { class: "ground", x: x(column), y: y(row), width: cell - 1, height: cell - 1 }),
      svg("rect", { class: "shade", x: x(column), y: y(row), width: cell - 1, height: cell - 1,
        "fill-opacity": counts[row][column] ? 0.06 + 0.94 * strength : 0 }),
      cell > 20 && counts[row][column] ? svg("text", { class: strength > 0.55 ? "on" : "off", x: x(column) + cell / 2,
        y: y(row) + cell / 2 + 4, "text-anchor": "middle" },
        text(row, column)) : null);
  })));
}

// Many classes: a pixel or more a cell.
function painting(classes, shade, say) {
  const cell = Math.max(1, Math.floor(720 / classes.length));
  const side = classes.length * cell;
  const canvas = h("canvas", { width: side, height: side, class: "confusion", role: "img",
    "aria-label": `Confusion matrix of ${classes.length} classes` });
  const pen = canvas.getContext("2d");
  const [right, wrong, ground] = [ink("accent"), ink("bad"), ink("hover")];
  pen.fillStyle = ground;
  pen.fillRect(0, 0, side, side);
  for (let row = 0; row < classes.length; row += 1) {
    for (let column = 0; column < classes.length; column += 1) {
      const strength = shade(row, column);
      if (!strength) continue;
      pen.globalAlpha = 0.15 + 0.85 * strength;
      pen.fillStyle = row === column ? right : wrong;
      pen.fillRect(column * cell, row * cell, cell, cell);
    }
  }
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (part, whole) => Math.min(classes.length - 1, Math.max(0, Math.floor((part / whole) * classes.length)));
    say(at(event.clientY - box.top, box.height), at(event.clientX - box.left, box.width));
  });
  return canvas;
}

function confusions({ classes, counts, pairs }) {
  const found = pairs?.map(({ class: from, taken_for: to, times }) => [from, to, times]) ?? counts.flatMap((row, from) => row
    .map((count, to) => [classes[from], classes[to], from === to ? 0 : count])).filter(([, , count]) => count).sort((a,
      b) => b[2] - a[2]);
  const sums = new Map(classes.map((name, place) => [name, counts[place].reduce((all, one) => all + one, 0)]));
  const share = (from, times) => (sums.get(from) >= times
    ? ` of ${number(sums.get(from))} (${number((100 * times) / sums.get(from), 3)} %)` : "");
  return section("Most often confused", found.length
    ? h("ol", { class: "confusions" }, found.slice(0, LISTED).map(([from, to, times]) => h("li", {},
    said(from), " taken for ", said(to), h("span", { class: "dim" }, ` — ${number(times)}${share(from, times)}`))))
    : h("p", { class: "dim" }, "Nothing was confused."));
}

function scores({ classes, counts, per_class: known, macro, weighted }) {
  const rows = known ?? classes.map((name, label) => scoreOf(name, label, counts));
  const measure = (label) => ({ label, isNumber: true, value: (row) => row[label],
    cell: (row) => toNumber(row[label]).toFixed(3) });
  return section("Class by class", sortable("Precision, recall and F1 of each class", [
    { label: "class", value: (row) => row.name }, measure("precision"), measure("recall"), measure("f1"),
    { label: "samples", isNumber: true, value: (row) => row.support, cell: (row) => number(row.support) }], rows),
  macro ? h("p", { class: "dim" },
    `Mean over the classes: precision ${number(macro.precision, 3)}, recall ${number(macro.recall, 3)}, F1 ${number(macro.f1, 3)}`
    + `; weighted by their samples: F1 ${number(weighted?.f1, 3)}.`) : null);
}

function scoreOf(name, label, counts) {
  const predicted = counts.reduce((sum, row) => sum + row[label], 0);
  const support = counts[label].reduce((sum, one) => sum + one, 0);
  const precision = predicted ? counts[label][label] / predicted : 0;
  const recall = support ? counts[label][label] / support : 0;
  return { name, precision, recall, f1: precision + recall ? (2 * precision * recall) / (precision + recall) : 0, support };
}
