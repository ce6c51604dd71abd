// One drawn chart: uPlot keeps canvas, axes, cursor and selection; lines, bands and marks are drawn into it here, as each run
// has its own places on the x axis (one table for all would be as wide as runs and as long as all their points together).

import { ink } from "relume/colors.js";
import { axisStyle, drawLines, projection } from "relume/charts/draw.js";
import { bands, drawBands, drawMarks, drawn } from "relume/charts/marks.js";
import { texts, ticks } from "relume/charts/ticks.js";
import { Tooltip, valuesAt, where } from "relume/charts/tooltip.js";
import { h } from "relume/dom.js";
import uPlot from "relume/vendor/uplot.js";

// How near a mark must be to the cursor to be described, in pixels.
const NEAR = 7;

// The room that the axis's name needs beside its numbers, in pixels.
const LEAST = { step: 20, time: 22, epoch: 26 };

// Only the cursor is shared: what a drag chooses goes to the other charts by the link.
const isMove = (type) => type === "mousemove" || type === "mouseleave";
const SYNC = { scales: ["x", null], setSeries: false, filters: { pub: isMove, sub: isMove } };

export class Plot {
  #u = null;
  #shown;
  #tooltip;
  #sizes;
  #frame = 0;

  // `told`: {select(low, high), hover(text | null), drawn(lines), reset(), point(run)}.
  constructor(place, shown, told, sync) {
    this.#shown = { hovered: null, band: true, ...shown };
    this.told = told;
    this.sync = sync;
    this.place = h("div", { class: "plot" });
    place.append(this.place);
    this.#build();
    this.#tooltip = new Tooltip(this.place);
    this.#sizes = new ResizeObserver(() => this.#fit());
    this.#sizes.observe(this.place);
  }

  get width() { return Math.max(80, (this.#u?.bbox.width ?? 400) / uPlot.pxRatio); }
  get hovered() { return this.#shown.hovered; }

  // {lines, marks, x: [low, high], y: [low, high], log, axis, band}
  show(shown) {
    const before = this.#shown;
    this.#shown = { ...before, ...shown };
    if (before.log !== this.#shown.log || before.axis !== this.#shown.axis) this.#build();
    else this.#redraw();
  }

  emphasise(run) {
    if (this.#shown.hovered === run) return;
    this.#shown.hovered = run;
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#u?.redraw(false, false));
  }

  recolour() { this.#build(); }

  destroy() {
    cancelAnimationFrame(this.#frame);
    this.#sizes.disconnect();
    this.#u?.destroy();
    this.#u = null;
    this.place.remove();
  }

  // Put the cursor at a value of x, as the keyboard does it; null takes it away.
  cursorAt(x) {
    if (x === null) this.#u.setCursor({ left: -10, top: -10 });
    else this.#u.setCursor({ left: this.#u.valToPos(x, "x"), top: this.#u.over.clientHeight / 2 }, true, true);
  }

  values(x, top = this.#u.over.clientHeight / 2) {
    return valuesAt(this.#shown.lines, x, this.#project(), top);
  }

  #size() {
    return { width: Math.max(120, this.place.clientWidth), height: Math.max(120, this.place.clientHeight) };
  }

  #fit() {
    if (!this.#u) return;
    const { width, height } = this.#size();
    if (this.#u.width !== width || this.#u.height !== height) this.#u.setSize({ width, height });
  }

  #build() {
    this.#u?.destroy();
    const { x, log } = this.#shown;
    this.#u = new uPlot({
      ...this.#size(),
      legend: { show: false },
      padding: [8, 12, 0, 0],
      scales: {
        x: { time: false, range: () => this.#shown.x },
        y: { distr: log ? 3 : 1, range: () => this.#shown.y },
      },
      series: [{}, { show: true }],
      axes: [this.#xAxis(), this.#yAxis()],
      cursor: {
        points: { show: false }, y: false, drag: { x: true, y: false, setScale: false, dist: 4 },
        sync: this.sync ? { ...SYNC, key: this.sync } : undefined,
        bind: { dblclick: () => () => { this.told.reset(); return null; } },
      },
      hooks: {
        setSelect: [(u) => this.#selected(u)],
        setCursor: [(u) => this.#pointed(u)],
        drawClear: [(u) => this.#behind(u)],
        draw: [(u) => this.#draw(u)],
      },
    }, [x, [null, null]], this.place);
    this.#u.root.querySelectorAll("canvas").forEach((canvas) => canvas.setAttribute("aria-hidden", "true"));
  }

  #redraw() {
    const [min, max] = this.#shown.x;
    this.#u.batch(() => this.#u.setScale("x", { min, max }));
    this.#u.redraw(false, true);
  }

  #xAxis() {
    const options = () => ({ time: this.#shown.axis === "time", whole: this.#shown.axis !== "time" });
    return {
      ...axisStyle(), size: 28, gap: 3,
      splits: (u) => ticks(...this.#shown.x, Math.max(2, Math.floor((u.width - 60) / 65)), options()),
      values: (u, places) => texts(places, options()),
    };
  }

  #yAxis() {
    return {
      ...axisStyle(), gap: 3, filter: (u, places) => places,
      size: (u, labels) => 14 + Math.ceil(Math.max(LEAST[this.#shown.axis], ...(labels ?? []).map((one) => one.length * 6.3))),
      splits: (u) => ticks(...this.#shown.y, Math.max(2, Math.floor((u.height - 36) / 28)), { log: this.#shown.log }),
      values: (u, places) => texts(places),
    };
  }

  #selected(u) {
    const { left, width } = u.select;
    if (width < 3) return;
    const [low, high] = [u.posToVal(left, "x"), u.posToVal(left + width, "x")];
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.told.select(low, high);
  }

  // In the plot's own pixels, without the screen's ratio.
  #project() {
    const { width, height } = this.#u.bbox;
    const box = { left: 0, top: 0, width: width / uPlot.pxRatio, height: height / uPlot.pxRatio };
    return projection(this.#shown.x, this.#shown.y, this.#shown.log, box);
  }

  #pointed(u) {
    const { left, top } = u.cursor;
    if (!this.#tooltip) return;
    if (left === undefined || left < 0 || !this.#shown.lines.length) {
      this.#tooltip.hide();
      if (this.#isFocus(u)) this.told.point(null);
      return;
    }
    const x = u.posToVal(left, "x");
    const project = this.#project();
    const height = u.over.clientHeight;
    const values = valuesAt(this.#shown.lines, x, project, top < 0 ? height / 2 : top);
    if (this.#isFocus(u) && this.#shown.lines.length > 1) this.told.point(values[0]?.line.run ?? null);
    const marks = drawn(this.#shown.marks, this.#shown).filter((mark) => Math.abs(project.x(mark.x) - left) <= NEAR);
    // On the other charts the cursor is enough: a dozen boxes would hide what they describe.
    if (!this.#isFocus(u)) { this.#tooltip.hide(); return; }
    const offset = { left: u.over.offsetLeft, top: u.over.offsetTop };
    const at = { left, top: top < 0 ? height / 2 : top, width: u.over.clientWidth, height, offset };
    this.#tooltip.show(where(this.#shown.axis, x), values, marks, at);
  }

  // Whether the cursor is in this chart, and not one that follows another's.
  #isFocus(u) {
    return this.place.matches(":hover") || this.place.contains(document.activeElement) || u.cursor.event?.target === u.over
      || this.place.parentElement.matches(":focus-within");
  }

  #behind(u) {
    const phases = bands(drawn(this.#shown.marks, this.#shown), this.#shown.lines);
    const project = projection(this.#shown.x, this.#shown.y, this.#shown.log, u.bbox);
    if (phases.length) drawBands(u.ctx, phases, project, u.bbox, uPlot.pxRatio, this.#shown.x);
  }

  // What the x axis counts, in the corner that the labels of both axes leave free.
  #name({ ctx, bbox }) {
    ctx.save();
    ctx.font = `${11 * uPlot.pxRatio}px system-ui, sans-serif`;
    ctx.fillStyle = ink("ink-2");
    ctx.textAlign = "left";
    ctx.textBaseline = "top";
    ctx.globalAlpha = 0.8;
    ctx.fillText(this.#shown.axis, 0, bbox.top + bbox.height + 7 * uPlot.pxRatio);
    ctx.restore();
  }

  #draw(u) {
    const shown = this.#shown;
    drawLines(u.ctx, shown.lines, shown, u.bbox, uPlot.pxRatio);
    const marks = drawn(shown.marks, shown);
    const project = projection(shown.x, shown.y, shown.log, u.bbox);
    drawMarks(u.ctx, marks, project, u.bbox, uPlot.pxRatio, bands(marks, shown.lines).length > 0);
    this.#name(u);
    this.told.drawn(shown);
  }
}
