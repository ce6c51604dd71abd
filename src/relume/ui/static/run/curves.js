// Precision over recall: a line for each class, and the threshold under the pointer.

import { colour } from "relume/colors.js";
import { fill, h, said, svg, visible } from "relume/dom.js";
import { number, toNumber } from "relume/format.js";
import { saving } from "relume/run/saving.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [620, 420, 52, 44, 12, 14];
const MOST = 20; // classes that are drawn at once

export class Curves {
  #lines = [];
  #hidden = new Set();
  #place = 0;

  constructor(panel) {
    this.panel = panel;
    this.readout = h("p", { class: "readout", role: "status" }, "Point at the curves, or move along them with the arrow keys.");
    this.drawing = h("div");
    this.key = h("ul", { class: "key-list", "aria-label": "Classes" });
    this.element = h("div", { class: "pr" }, h("div", { class: "bar" },
      saving("pr-curve", { drawing: () => this.drawing.querySelector("svg"), rows: () => this.#rows() })), this.readout,
        this.drawing, this.key);
    this.onTheme = () => this.#draw();
    window.addEventListener("themechange", this.onTheme);
  }

  destroy() { window.removeEventListener("themechange", this.onTheme); }

  show(answer) {
    this.thresholds = answer.thresholds.map(toNumber);
    const isMany = Array.isArray(answer.precision[0]);
    const names = answer.classes ?? (isMany ? answer.precision.map((_, place) => String(place)) : ["precision"]);
    const rows = isMany ? answer.precision.map((precision, place) => [precision, answer.recall[place]])
      : [[answer.precision, answer.recall]];
    this.#lines = rows.map(([precision, recall], place) => ({ name: names[place], precision: precision.map(toNumber),
      recall: recall.map(toNumber), place }))
      .map((line) => ({ ...line, average: average(line) }));
    this.#hidden = new Set(this.#lines.slice(MOST).map((line) => line.name));
    this.#draw();
  }

  #draw() {
    if (!this.#lines.length) return;
    const x = (value) => LEFT + (WIDTH - LEFT - RIGHT) * value;
    const y = (value) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value;
    this.cursor = svg("g");
    const shown = this.#lines.filter((line) => !this.#hidden.has(line.name));
    const drawn = svg("svg", { class: "pr-curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: "0", role: "img",
      "aria-label": `Precision over recall. ${shown.map(averageText).join("; ")}` },
    [0, 0.25, 0.5, 0.75, 1].map((at) => [
      svg("path", { class: "rule", d: `M${x(0)} ${y(at)}H${x(1)}M${x(at)} ${y(0)}V${y(1)}` }),
      svg("text", { x: x(0) - 8, y: y(at) + 4, "text-anchor": "end" }, at),
        svg("text", { x: x(at), y: y(0) + 18, "text-anchor": "middle" }, at)]),
    svg("text", { x: x(0.5), y: HEIGHT - 6, "text-anchor": "middle" }, "recall"),
    svg("text", { transform: `translate(14 ${y(0.5)}) rotate(-90)`, "text-anchor": "middle" }, "precision"),
    shown.map((line) => svg("path", { class: "curve", stroke: colour(line.place),
      d: line.recall.map((r, at) => `${at ? "L" : "M"}${x(r).toFixed(1)} ${y(line.precision[at]).toFixed(1)}`).join("") })),
    this.cursor);
    drawn.addEventListener("pointermove", (event) => {
      const box = drawn.getBoundingClientRect();
      this.#mark(this.#nearest(((event.clientX - box.left) / box.width) * WIDTH,
        ((event.clientY - box.top) / box.height) * HEIGHT, x, y), x, y);
    });
    drawn.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by || !shown.length) return;
      event.preventDefault();
      this.#mark({ line: shown[0], at: Math.min(this.thresholds.length - 1, Math.max(0, this.#place + by)) }, x, y);
    });
    fill(this.drawing, drawn);
    fill(this.key, this.#lines.map((line) => h("li", {},
      h("label", {}, h("input", { type: "checkbox", checked: !this.#hidden.has(line.name),
      onchange: (event) => { this.#hidden[event.target.checked ? "delete"
        : "add"](line.name); this.#draw(); this.key.children[line.place]?.querySelector("input")?.focus(); } }),
    h("span", { class: "swatch", style: { background: colour(line.place) } }), said(line.name),
      h("span", { class: "dim" }, ` average precision ${number(line.average, 3)}`)))));
  }

  #nearest(px, py, x, y) {
    let best = { line: null, at: 0, distance: Infinity };
    for (const line of this.#lines) {
      if (this.#hidden.has(line.name)) continue;
      line.recall.forEach((r, at) => {
        const distance = (x(r) - px) ** 2 + (y(line.precision[at]) - py) ** 2;
        if (distance < best.distance) best = { line, at, distance };
      });
    }
    return best;
  }

  #mark({ line, at }, x, y) {
    if (!line) return;
    this.#place = at;
    fill(this.cursor, svg("circle", { class: "dot", cx: x(line.recall[at]), cy: y(line.precision[at]), r: 5,
      fill: colour(line.place) }));
    this.readout.textContent = `${visible(line.name)} at threshold ${number(this.thresholds[at], 3)}: `
      + `precision ${number(line.precision[at], 3)}, recall ${number(line.recall[at], 3)}`;
  }

  #rows() {
    return [["class", "threshold", "precision", "recall"],
      ...this.#lines.flatMap((line) => this.thresholds.map((threshold, at) => [line.name, threshold, line.precision[at],
        line.recall[at]]))];
  }
}

function averageText({ name, average: area }) { return `${visible(name)}: average precision ${number(area, 3)}`; }

// The area under the steps: precision times how much recall it gains.
function average({ precision, recall }) {
  const order = recall.map((_, at) => at).sort((a, b) => recall[a] - recall[b] || b - a);
  let [area, before] = [0, 0];
  for (const at of order) { area += precision[at] * (recall[at] - before); before = recall[at]; }
  return area;
}
