// A mesh or a cloud of points, to turn with the pointer or the arrow keys.

import { button, fill, h } from "relume/dom.js";
import { isDark } from "relume/colors.js";
import { number, plural, toNumber } from "relume/format.js";
import { packed, Raster } from "relume/run/raster.js";
import { saving } from "relume/run/saving.js";

const FRONT = { turn: 0.6, tilt: 0.4, zoom: 1 };
const KEYS = { ArrowLeft: ["turn", -0.15], ArrowRight: ["turn", 0.15], ArrowUp: ["tilt", -0.15], ArrowDown: ["tilt", 0.15] };

export class Mesh {
  #shape = null;
  #view = { ...FRONT };
  #raster = null;
  #frame = null;

  constructor(panel) {
    this.panel = panel;
    this.canvas = h("canvas", { class: "mesh", tabindex: "0", role: "img" });
    this.text = h("p", { class: "dim" });
    const zoom = (by) => this.#change({ zoom: Math.min(20, Math.max(0.1, this.#view.zoom * by)) });
    this.zoom = zoom;
    this.element = h("div", {}, h("div", { class: "bar" },
      button("Turn left", () => this.#turn(...KEYS.ArrowLeft)), button("Turn right", () => this.#turn(...KEYS.ArrowRight)),
      button("+", () => zoom(1.25), { "aria-label": "Larger" }), button("−", () => zoom(0.8), { "aria-label": "Smaller" }),
      button("Reset", () => this.#change({ ...FRONT })), saving(panel.one.name, { canvas: () => this.canvas })),
    this.canvas, this.text);
    this.#listen();
    this.watcher = new ResizeObserver(() => this.#later());
    this.watcher.observe(this.canvas);
    this.onTheme = () => this.#later();
    window.addEventListener("themechange", this.onTheme);
  }

  destroy() {
    this.watcher.disconnect();
    window.removeEventListener("themechange", this.onTheme);
    cancelAnimationFrame(this.#frame);
  }

  show({ vertices = [], colors, faces, shown, total, problem }) {
    this.#shape = shapeOf(vertices, colors, faces);
    const counts = total ?? { vertices: vertices.length, faces: faces?.length ?? 0 };
    const what = faces?.length ? `${plural(counts.vertices, "vertex", "vertices")}, ${plural(counts.faces, "face")}`
      : plural(counts.vertices, "point");
    const less = shown ? ` ${number(faces?.length || shown.vertices)} of them are shown.` : "";
    this.canvas.setAttribute("aria-label",
      `${what}. Turn it with the arrow keys; plus and minus change its size, 0 puts it back.`);
    fill(this.text, problem ?? `${what}.${less}`, " Drag, or use the arrow keys, + and −; 0 puts it back.");
    this.#later();
  }

  #listen() {
    let from = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      from = [event.clientX, event.clientY];
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      const [dx, dy] = [event.clientX - from[0], event.clientY - from[1]];
      from = [event.clientX, event.clientY];
      this.#change({ turn: this.#view.turn + dx * 0.01, tilt: this.#view.tilt + dy * 0.01 });
    });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => { from = null; });
    this.canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== this.canvas) return; // the page goes on scrolling until somebody has taken hold of it
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.1 : 0.9);
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      const does = KEYS[event.key] ? () => this.#turn(...KEYS[event.key])
        : { "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(0.8),
          0: () => this.#change({ ...FRONT }) }[event.key];
      if (!does) return;
      event.preventDefault();
      does();
    });
  }

  #turn(name, by) { this.#change({ [name]: this.#view[name] + by }); }

  #change(changes) {
    this.#view = { ...this.#view, ...changes };
    this.#later();
  }

  #later() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const { canvas } = this;
    const sharp = Math.min(2, window.devicePixelRatio || 1);
    const [width, height] = [Math.round(canvas.clientWidth * sharp), Math.round(canvas.clientHeight * sharp)];
    if (!this.#shape || !width || !height) return;
    if (canvas.width !== width || canvas.height !== height || !this.#raster) {
      canvas.width = width;
      canvas.height = height;
      this.#raster = new Raster(width, height);
    }
    paint(this.#raster, this.#shape, this.#view, sharp);
    canvas.getContext("2d").putImageData(this.#raster.image, 0, 0);
    canvas.dataset.drawn = `${this.#view.turn.toFixed(2)},${this.#view.tilt.toFixed(2)},${this.#view.zoom.toFixed(2)}`;
  }
}

// Around its middle, its farthest vertex at 1; without colours the height tells them apart.
function shapeOf(vertices, colors, faces) {
  const count = vertices.length;
  const at = new Float32Array(3 * count);
  const [low, high] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
  vertices.forEach((vertex, place) => vertex.forEach((value, axis) => {
    const x = toNumber(value);
    at[3 * place + axis] = x;
    if (Number.isFinite(x)) { low[axis] = Math.min(low[axis], x); high[axis] = Math.max(high[axis], x); }
  }));
  const middle = low.map((value, axis) => (value + high[axis]) / 2);
  let radius = 0;
  for (let place = 0; place < count; place += 1) {
    for (let axis = 0; axis < 3; axis += 1) at[3 * place + axis] -= middle[axis];
    const far = Math.hypot(at[3 * place], at[3 * place + 1], at[3 * place + 2]);
    if (Number.isFinite(far)) radius = Math.max(radius, far);
  }
  for (let place = 0; place < at.length; place += 1) at[place] /= radius || 1;
  const shade = colors?.length ? colors : vertices.map((_, place) => byHeight(at[3 * place + 1]));
  return { at, count, faces: faces ?? null, shade };
}

function byHeight(y) {
  const share = Number.isFinite(y) ? (y + 1) / 2 : 0;
  return [Math.round(60 + 150 * share), Math.round(110 + 70 * share), Math.round(215 - 120 * share)];
}

function paint(raster, { at, count, faces, shade }, { turn, tilt, zoom }, sharp) {
  raster.clear(isDark() ? packed(18, 21, 26) : packed(238, 242, 248));
  const [sin, cos, up, over] = [Math.sin(turn), Math.cos(turn), Math.sin(tilt), Math.cos(tilt)];
  const scale = 0.44 * Math.min(raster.width, raster.height) * zoom;
  const [x, y, z] = [new Float32Array(count), new Float32Array(count), new Float32Array(count)];
  for (let place = 0; place < count; place += 1) {
    const [a, b, c] = [at[3 * place], at[3 * place + 1], at[3 * place + 2]];
    const side = a * cos + c * sin;
    const deep = c * cos - a * sin;
    z[place] = deep * over + b * up;
    const near = 3.2 / (3.2 - z[place]); // what is nearer is larger
    x[place] = raster.width / 2 + side * scale * near;
    y[place] = raster.height / 2 - (b * over - deep * up) * scale * near;
  }
  if (faces?.length) for (const [a, b, c] of faces) face(raster, x, y, z, a, b, c, shade, scale);
  else for (let place = 0; place < count; place += 1) {
    const light = 0.55 + 0.45 * Math.min(1, Math.max(0, (z[place] + 1) / 2));
    const [red, green, blue] = shade[place];
    raster.point(x[place], y[place], z[place], Math.max(1, Math.min(6, 220 / Math.sqrt(count))) * sharp,
      packed(red * light, green * light, blue * light));
  }
}

// One colour a face, lit from before it: a shape is read from its shades.
function face(raster, x, y, z, a, b, c, shade, scale) {
  if (![x[a], x[b], x[c]].every(Number.isFinite)) return;
  const [ux, uy, uz] = [(x[b] - x[a]) / scale, (y[b] - y[a]) / scale, z[b] - z[a]];
  const [vx, vy, vz] = [(x[c] - x[a]) / scale, (y[c] - y[a]) / scale, z[c] - z[a]];
  const [nx, ny, nz] = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
  const light = 0.35 + (0.65 * Math.abs(nz * 0.85 + nx * 0.35 - ny * 0.4)) / (Math.hypot(nx, ny, nz) || 1);
  const mean = (place) => ((shade[a]?.[place] ?? 0) + (shade[b]?.[place] ?? 0) + (shade[c]?.[place] ?? 0)) / 3;
  raster.triangle(x[a], y[a], z[a], x[b], y[b], z[b], x[c], y[c], z[c],
    packed(mean(0) * light, mean(1) * light, mean(2) * light));
}
