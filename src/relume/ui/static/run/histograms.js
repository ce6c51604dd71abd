// How a distribution changed: ridges one behind the other, all over each other, or a map of shades.

import { fill, h, svg, visible } from "relume/dom.js";
import { number, toNumber } from "relume/format.js";
import { empty, switches, whereOf } from "relume/run/parts.js";
import { saving } from "relume/run/saving.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [900, 460, 64, 20, 16, 34];

export class Histograms {
  static ofAllSteps = true;
  #items = [];
  #chosen = [0, 0];

  constructor(panel) {
    this.panel = panel;
    this.readout = h("p", { class: "readout", role: "status" });
    this.drawing = h("div", { class: "scroll" });
    this.modes = switches("Drawn as", [["ridges", "Ridges"], ["overlay", "Overlaid"], ["map", "Heatmap"]], this.#mode,
      (mode) => { panel.page.app.state.set({ shape: mode === "ridges" ? null : mode }); this.#draw(); });
    this.element = h("div", { class: "histograms" }, h("div", { class: "bar" }, this.modes,
      saving(`${panel.one.name}-histograms`, { drawing: () => this.drawing.querySelector("svg"), rows: () => this.#rows() })),
        this.readout, this.drawing);
  }

  get #mode() {
    const wanted = this.panel.page.app.state.get("shape");
    return wanted === "overlay" || wanted === "map" ? wanted : "ridges";
  }

  show({ items = [] }) {
    this.#items = items.filter((item) => item.counts?.length && item.edges?.length === item.counts.length + 1)
      .map((item) => ({ ...item, edges: item.edges.map(toNumber), counts: item.counts.map(toNumber) }));
    this.#chosen = [this.#items.length - 1, 0];
    this.readout.textContent = "Point at the drawing, or choose a step with the up and down keys and a bin with left and right.";
    this.#draw();
  }

  #draw() {
    const items = this.#items;
    if (!items.length) return fill(this.drawing, empty("There are no histograms."));
    const low = Math.min(...items.map((item) => item.edges[0]));
    const high = Math.max(...items.map((item) => item.edges.at(-1)));
    const x = (value) => LEFT + ((WIDTH - LEFT - RIGHT) * (value - low)) / (high - low || 1);
    const scene = { items, x, low, high, density: items.map(densities) };
    scene.most = Math.max(...scene.density.map((values) => Math.max(...values)), 1e-300);
    const drawn = svg("svg", { class: `histogram ${this.#mode}`, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: "0", role: "img",
      "aria-label": `${visible(this.panel.one.name)}: ${items.length} histograms, `
        + `values from ${number(low)} to ${number(high)}` },
    { ridges, overlay, map }[this.#mode](scene), axis(scene));
    drawn.addEventListener("pointermove", (event) => this.#point(event, drawn, scene));
    drawn.addEventListener("keydown", (event) => this.#key(event));
    return fill(this.drawing, drawn);
  }

  #point(event, drawn, { items, low, high }) {
    const box = drawn.getBoundingClientRect();
    const [px, py] = [((event.clientX - box.left) / box.width) * WIDTH, ((event.clientY - box.top) / box.height) * HEIGHT];
    const value = low + ((px - LEFT) / (WIDTH - LEFT - RIGHT)) * (high - low);
    const row = this.#mode === "overlay" ? this.#chosen[0] : rowAt(py, items.length, this.#mode);
    const bin = items[row].edges.findIndex((edge, place) => value >= edge && value < (items[row].edges[place + 1] ?? Infinity));
    this.#say(row, Math.min(Math.max(0, bin), items[row].counts.length - 1));
  }

  #key(event) {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    const row = Math.min(this.#items.length - 1, Math.max(0, this.#chosen[0] + down));
    this.#say(row, Math.min(this.#items[row].counts.length - 1, Math.max(0, this.#chosen[1] + right)));
  }

  #say(row, bin) {
    this.#chosen = [row, bin];
    const item = this.#items[row];
    const beside = [item.nan && `${number(item.nan)} NaN`,
      item.infinite && `${number(item.infinite)} infinite`].filter(Boolean).join(", ");
    this.readout.textContent = `${whereOf(item)}: ${number(item.counts[bin])} values `
      + `from ${number(item.edges[bin])} to ${number(item.edges[bin + 1])}`
      + ` of ${number(item.counts.reduce((sum, count) => sum + count, 0))}${beside ? ` (and ${beside})` : ""}`;
    this.drawing.querySelectorAll(".chosen").forEach((one) => one.classList.remove("chosen"));
    this.drawing.querySelector(`[data-row="${row}"]`)?.classList.add("chosen");
  }

  #rows() {
    return [["step", "epoch", "from", "to", "count"], ...this.#items.flatMap((item) => item.counts.map((count, bin) =>
      [item.step, item.epoch, item.edges[bin], item.edges[bin + 1], count]))];
  }
}

// Share of the values over the bin's width: bins of different steps are of different widths.
function densities({ edges, counts }) {
  const sum = counts.reduce((all, count) => all + count, 0) || 1;
  return counts.map((count, bin) => count / sum / (edges[bin + 1] - edges[bin] || 1));
}

// Each ridge is as high as its own range allows and the highest of all is full: so that narrow ones do not flatten the rest,
// heights are the square root of the density.
function outline({ edges }, density, x, base, height, most) {
  const points = density.map((value,
    bin) => `L${x((edges[bin] + edges[bin + 1]) / 2).toFixed(1)} ${(base - height * Math.sqrt(value / most)).toFixed(1)}`);
  return `M${x(edges[0]).toFixed(1)} ${base.toFixed(1)}${points.join("")}L${x(edges.at(-1)).toFixed(1)} ${base.toFixed(1)}`;
}

const RIDGE = 110;

function baseOf(row, count) {
  const first = TOP + RIDGE;
  const last = HEIGHT - BOTTOM;
  return count === 1 ? last : first + ((last - first) * row) / (count - 1);
}

function rowAt(y, count, mode) {
  if (mode === "map") return Math.min(count - 1, Math.max(0, Math.floor(((y - TOP) / (HEIGHT - TOP - BOTTOM)) * count)));
  const share = (y - TOP - RIDGE * 0.7) / (HEIGHT - BOTTOM - TOP - RIDGE * 0.85);
  return Math.min(count - 1, Math.max(0, Math.round(share * (count - 1))));
}

function ridges({ items, x, density, most }) {
  const every = Math.max(1, Math.ceil(items.length / 14));
  const height = items.length === 1 ? HEIGHT - TOP - BOTTOM : RIDGE;
  return items.map((item, row) => svg("g", {},
    svg("path", { class: "ridge", "data-row": row, d: outline(item, density[row], x, baseOf(row, items.length), height, most),
      "fill-opacity": 0.35 + (0.6 * (row + 1)) / items.length }),
    row % every === 0 || row === items.length - 1 ? svg("text",
      { x: LEFT - 8, y: baseOf(row, items.length) + 4, "text-anchor": "end" }, number(item.step)) : null));
}

function overlay({ items, x, density, most }) {
  return items.map((item, row) => svg("path", { class: "line", "data-row": row,
    d: outline(item, density[row], x, HEIGHT - BOTTOM, HEIGHT - TOP - BOTTOM, most),
    "stroke-opacity": 0.15 + (0.85 * (row + 1)) / items.length }));
}

function map({ items, x, density, most }) {
  const high = (HEIGHT - TOP - BOTTOM) / items.length;
  const every = Math.max(1, Math.ceil(items.length / 14));
  return items.map((item, row) => svg("g", { "data-row": row, class: "map-row" },
    density[row].map((value, bin) => (value ? svg("rect", { class: "shade",
    x: x(item.edges[bin]).toFixed(1), y: (TOP + row * high).toFixed(1),
      width: Math.max(0.6, x(item.edges[bin + 1]) - x(item.edges[bin])).toFixed(1), height: (high + 0.3).toFixed(1),
    "fill-opacity": (0.05 + 0.95 * Math.sqrt(value / most)).toFixed(3) }) : null)),
  row % every === 0 ? svg("text", { x: LEFT - 8, y: TOP + (row + 0.5) * high + 4, "text-anchor": "end" }, number(item.step))
    : null));
}

function axis({ x, low, high }) {
  const y = HEIGHT - BOTTOM;
  return svg("g", { class: "ticks" }, svg("path", { class: "rule", d: `M${LEFT} ${y}H${WIDTH - RIGHT}` }),
    [0, 0.25, 0.5, 0.75, 1].map((share) => { const value = low + share * (high - low);
      return svg("text", { x: x(value), y: y + 18, "text-anchor": share === 0 ? "start" : share === 1 ? "end" : "middle" },
        number(value, 3)); }),
    svg("text", { x: 6, y: 12 }, "step"));
}
