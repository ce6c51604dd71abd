// The graph of a model: modules that open and close, to move about in, to search, with what each node is.

import { button, fill, h, said, svg, uid, visible } from "relume/dom.js";
import { number, plural } from "relume/format.js";
import { labelOf, place, treeOf } from "relume/run/layers.js";
import { facts } from "relume/run/parts.js";
import { saving } from "relume/run/saving.js";

const HIDDEN = new Set(["parameter", "buffer"]);
const MARGIN = 24;
const MOST_DRAWN = 1500; // nodes at once: more are not legible, and slow

export class Graph {
  #open = new Set();
  #nodes = [];
  #tree = null;
  #chosen = null;
  #view = null; // what of the drawing is seen: x, y, width, height
  #found = { text: "", at: -1 };

  constructor(panel) {
    this.panel = panel;
    const find = uid("find");
    this.search = h("input", { id: find, type: "search", placeholder: "Find a node",
      onkeydown: (event) => { if (event.key === "Enter") this.#find(); } });
    this.said = h("span", { class: "dim", role: "status" });
    this.place = h("div", { class: "graph-place" });
    this.details = h("aside", { class: "graph-details", "aria-label": "Node" });
    const own = h("label", { class: "check" }, this.showOwn = h("input", { type: "checkbox", onchange: () => this.#rebuild() }),
      "parameters");
    this.element = h("div", {}, h("div", { class: "bar" }, h("label", { class: "announcement", for: find }, "Find a node"),
      this.search,
      button("Find", () => this.#find()), button("Open all", () => this.#openAll()),
        button("Close all", () => { this.#open.clear(); this.#draw(true); }), own,
      button("+", () => this.#zoom(0.8), { "aria-label": "Larger" }),
        button("−", () => this.#zoom(1.25), { "aria-label": "Smaller" }),
      button("Fit", () => this.#fit()), saving(panel.one.name, { drawing: () => this.place.querySelector("svg") }), this.said),
    h("div", { class: "graph-both" }, this.place, this.details));
  }

  show({ nodes = [], problem_of_graph: problem, shown, total }) {
    this.#nodes = nodes;
    this.problem = problem ? `Only its modules are known, not how they are joined: ${problem}` : "";
    this.left = total > shown ? `${number(shown)} of ${number(total)} nodes are shown.` : "";
    this.#rebuild();
  }

  #rebuild() {
    const own = new Map(this.#nodes.filter((node) => HIDDEN.has(node.kind)).map((node) => [node.id, node]));
    const nodes = this.showOwn.checked ? this.#nodes : this.#nodes.filter((node) => !own.has(node.id));
    this.own = own;
    this.#tree = treeOf(nodes);
    this.#chosen = null;
    this.#draw(true);
    fill(this.details, h("p", { class: "dim" }, "Choose a node to see what it is. A module opens with Enter or a click."),
      this.problem ? h("p", { class: "error" }, said(this.problem)) : null,
        this.left ? h("p", { class: "dim" }, this.left) : null);
  }

  #openAll() {
    for (const [id] of this.#tree.groups) this.#open.add(id);
    this.#draw(true);
  }

  #draw(isNew = false) {
    const { root } = this.#tree;
    const wanted = new Set(this.#open);
    let count = 0;
    place(root, this.#tree, (group) => {
      if (!wanted.has(group.id) || count + group.children.length > MOST_DRAWN) return false;
      count += group.children.length;
      return true;
    });
    this.said.textContent = count + root.children.length >= MOST_DRAWN
      ? "Not all modules are open: there would be too many nodes." : plural(this.#tree.leaves.size, "node");
    const [width, height] = [root.width + 2 * MARGIN, root.height + 2 * MARGIN];
    this.whole = { x: -width / 2, y: -MARGIN, width, height };
    const arrow = uid("arrow");
    this.shown = [];
    this.drawing = svg("svg", { class: "graph", role: "group", "aria-label": "Graph of the model" },
      svg("defs", {}, svg("marker", { id: arrow, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7,
        orient: "auto" },
        svg("path", { class: "head", d: "M0 0L8 4L0 8z" }))),
      this.#level(root, 0, 0, arrow));
    fill(this.place, this.drawing);
    this.#listen();
    if (isNew || !this.#view) this.#fit();
    else this.#show(this.#view);
    this.#mark();
  }

  #level(group, x, y, arrow) {
    return [group.edges.map((edge) => line(edge, x, y, arrow)),
      group.children.map((child) => this.#one(child, x + child.x, y + child.y, arrow))];
  }

  #one(one, x, y, arrow) {
    one.at = { x, y };
    const what = one.isGroup ? plural(one.size, "node") : `${visible(one.node.kind ?? "")} ${shapeText(one.node.shape)}`;
    const said = `${visible(one.id)}, ${what}`;
    const sort = one.isGroup ? "group" : `leaf kind-${String(one.node.kind ?? "").replace(/[^a-z0-9_]/gi, "")}`;
    const element = svg("g",
      { class: `node ${sort}${one.isOpen ? " open" : ""}`,
      role: "button", tabindex: this.shown.length ? "-1" : "0", "aria-label": said,
        "aria-expanded": one.isGroup ? String(one.isOpen) : null,
        onclick: (event) => { event.stopPropagation(); this.#choose(one); } },
    svg("title", {}, said),
    svg("rect", { x: x - one.width / 2, y, width: one.width, height: one.height, rx: one.isOpen ? 10 : 7 }),
    svg("text", { x: one.isOpen ? x - one.width / 2 + 12 : x, y: y + 19, "text-anchor": one.isOpen ? "start" : "middle",
      direction: "ltr" },
      `${one.isGroup ? (one.isOpen ? "− " : "+ ") : ""}${visible(labelOf(one))}`));
    this.shown.push({ one, element });
    return one.isOpen ? [element, svg("g", {}, this.#level(one, x, y, arrow))] : element;
  }

  // A module opens or closes, and what was chosen stays where it is on the screen.
  #choose(one) {
    this.#chosen = one.id;
    if (one.isGroup) {
      const before = { ...one.at, isOpen: one.isOpen };
      if (!this.#open.delete(one.id)) this.#open.add(one.id);
      this.#draw();
      const view = this.#view;
      this.#show({ ...view, x: view.x + one.at.x - before.x, y: view.y + one.at.y - before.y });
    }
    this.#mark();
    this.#tell(one);
    this.shown.find(({ one: other }) => other.id === one.id)?.element.focus({ preventScroll: true });
  }

  #mark() {
    const chosen = this.shown.find(({ one }) => one.id === this.#chosen) ?? this.shown[0];
    for (const { one, element } of this.shown) {
      element.classList.toggle("chosen", one.id === this.#chosen);
      element.setAttribute("tabindex", element === chosen?.element ? "0" : "-1");
    }
  }

  #tell(one) {
    const leaves = one.isGroup ? this.#nodes.filter((node) => String(node.id).startsWith(`${one.id}/`)) : [];
    const owned = (one.isGroup ? leaves : [...new Set(one.node.inputs
      ?? [])].map((id) => this.own.get(id)).filter(Boolean)).filter((node) => HIDDEN.has(node.kind));
    const used = one.isGroup ? [] : this.#nodes.filter((node) => node.inputs?.includes(one.id)).map((node) => node.id);
    const values = owned.reduce((sum, node) => sum + (node.shape ?? []).reduce((product, side) => product * side, 1), 0);
    const list = (names) => h("ul", { class: "lines" }, names.slice(0, 40).map((name) => h("li", {}, said(name))),
      names.length > 40 ? h("li", { class: "dim" }, `and ${names.length - 40} more`) : null);
    const inputs = one.isGroup ? [] : (one.node.inputs ?? []).filter((id) => !this.own.has(id));
    fill(this.details, h("h3", {}, said(one.id)), facts([
      ["kind", one.isGroup ? "module" : one.node.kind], ["nodes", one.isGroup ? number(one.size) : null],
      ["shape", one.isGroup ? null : shapeText(one.node.shape)],
      ["parameters", values ? number(values) : one.node?.parameters ? number(one.node.parameters) : null]]),
    owned.length ? [h("h4", {}, "Parameters"), list(owned.map((node) => `${node.id} ${shapeText(node.shape)}`))] : null,
    inputs.length ? [h("h4", {}, "From"), list(inputs)] : null, used.length ? [h("h4", {}, "To"), list(used)] : null);
  }

  // The next node whose name holds the text: what is around it is opened.
  #find() {
    const text = this.search.value.trim().toLowerCase();
    if (!text) return;
    const hits = [...this.#tree.leaves.values()].filter((leaf) => leaf.id.toLowerCase().includes(text)
      || String(leaf.node.kind).toLowerCase().includes(text));
    if (!hits.length) { this.said.textContent = "No node has this in its name."; return; }
    const at = this.#found.text === text ? (this.#found.at + 1) % hits.length : 0;
    this.#found = { text, at };
    const hit = hits[at];
    for (let one = hit.parent; one; one = one.parent) this.#open.add(one.id);
    this.#chosen = hit.id;
    this.#draw();
    this.#centre(hit, 760);
    this.#tell(hit);
    this.said.textContent = `${at + 1} of ${hits.length}: ${visible(hit.id)}`;
  }

  #centre(one, width) {
    if (!one.at) return;
    const height = (width * this.place.clientHeight) / Math.max(1, this.place.clientWidth);
    this.#show({ x: one.at.x - width / 2, y: one.at.y - height / 2, width, height });
  }

  // All of it where that is legible, else its upper part at a size that can be read.
  #fit() {
    const [across, down] = [Math.max(1, this.place.clientWidth), Math.max(1, this.place.clientHeight)];
    const scale = Math.min(1.25, Math.max(0.6, Math.min(across / this.whole.width, down / this.whole.height)));
    const [width, height] = [across / scale, down / scale];
    const isTall = this.whole.height > height;
    this.#show({ x: this.whole.x + this.whole.width / 2 - width / 2,
      y: isTall ? this.whole.y : this.whole.y + this.whole.height / 2 - height / 2, width, height });
  }

  #zoom(by, at = { x: 0.5, y: 0.5 }) {
    const view = this.#view;
    const width = Math.min(20 * this.whole.width, Math.max(120, view.width * by));
    const height = (view.height * width) / view.width;
    this.#show({ x: view.x + (view.width - width) * at.x, y: view.y + (view.height - height) * at.y, width, height });
  }

  #show(view) {
    this.#view = view;
    this.drawing.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
  }

  #listen() {
    let from = null;
    const { drawing } = this;
    drawing.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; });
    drawing.addEventListener("pointermove", (event) => {
      if (!from || !event.buttons) { from = null; return; }
      const scale = this.#view.width / drawing.clientWidth;
      this.#show({ ...this.#view, x: this.#view.x - (event.clientX - from[0]) * scale,
        y: this.#view.y - (event.clientY - from[1]) * scale });
      from = [event.clientX, event.clientY];
    });
    drawing.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !drawing.contains(document.activeElement)) return; // else the page scrolls, as everywhere
      event.preventDefault();
      const box = drawing.getBoundingClientRect();
      this.#zoom(event.deltaY < 0 ? 0.88 : 1.14, { x: (event.clientX - box.left) / box.width,
        y: (event.clientY - box.top) / box.height });
    }, { passive: false });
    drawing.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    const place = this.shown.findIndex(({ element }) => element === document.activeElement);
    const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (place >= 0 && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      this.#choose(this.shown[place].one);
    } else if (by && this.shown[place + by]) {
      event.preventDefault();
      const next = this.shown[place + by];
      this.#chosen = next.one.id;
      this.#mark();
      this.#tell(next.one);
      next.element.focus({ preventScroll: true });
      this.#reveal(next.one);
    } else if (event.key === "+" || event.key === "-") this.#zoom(event.key === "+" ? 0.8 : 1.25);
  }

  #reveal({ at, height }) {
    const view = this.#view;
    const isSeen = at.x > view.x && at.x < view.x + view.width && at.y > view.y && at.y + Math.min(height, 60) < view.y
      + view.height;
    if (!isSeen) this.#show({ ...view, x: at.x - view.width / 2, y: at.y - view.height / 3 });
  }
}

function shapeText(shape) {
  return shape?.length ? shape.join(" × ") : "";
}

function line({ from, to, isBack, shape }, x, y, arrow) {
  const [ax, ay] = [x + from.x, y + from.y + from.height];
  const [bx, by] = [x + to.x, y + to.y - 1];
  const bend = Math.max(14, Math.min(60, Math.abs(by - ay) / 2));
  return svg("g", { class: isBack ? "edge back" : "edge" },
    svg("title", {}, `${visible(from.id)} → ${visible(to.id)} ${shapeText(shape)}`),
    svg("path", { d: `M${ax} ${ay}C${ax} ${ay + bend} ${bx} ${by - bend} ${bx} ${by}`, "marker-end": `url(#${arrow})` }));
}
