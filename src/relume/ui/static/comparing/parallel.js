// Parallel coordinates: an axis for each setting and the result, a line for each run, limits drawn with the pointer.

import { h, said, svg, visible } from "relume/dom.js";
import { scaleOf } from "relume/comparing/scales.js";
import { range, tint } from "relume/comparing/tint.js";
import { title, trimmed } from "relume/tables/columns.js";
import { isMissing } from "relume/tables/order.js";

const HEIGHT = [314, 338]; // without and with the place for runs that have no value
const TOP = 52;
const BOTTOM = 300;
const NONE = 322; // where runs pass that have no value
const NARROWEST = 118;

// does: {limit(key, [low, high] or null), hover(name or null), link(name)}
export function parallel(rows, axes, shares, brushes, width, does) {
  const wide = Math.max(width, axes.length * NARROWEST);
  const side = 62;
  const made = axes.map((column, place) => {
    const x = axes.length === 1 ? wide / 2 : side + (place * (wide - 2 * side)) / (axes.length - 1);
    const scale = scaleOf(rows, column);
    return { column, x, scale, none: passing(rows, column, scale) };
  });
  const inside = new Set(kept(rows, made, brushes).map((row) => row.name));
  const height = HEIGHT[Number(made.some((axis) => axis.none))];
  const drawing = svg("svg", {
    class: "parallel",
    viewBox: `0 0 ${wide} ${height}`,
    width: wide,
    height,
    role: "img",
    "aria-label": `A line for each of ${rows.length} runs over ${axes.map(title).join(", ")}. Limits can be given below.`,
  });
  for (const row of ordered(rows, shares))
    drawing.append(curve(row, made, shares.get(row.name), inside.has(row.name), does));
  made.forEach((axis) => drawing.append(drawnAxis(axis, brushes.get(axis.column.key), does)));
  return { drawing, axes: made, inside };
}

// What runs have that pass below an axis.
function passing(rows, column, scale) {
  const values = rows.map((row) => column.value(row)).filter((value) => down(scale, value) === NONE);
  return values.length === 0 ? "" : values.every(isMissing) ? "none" : "other";
}

// The runs whose values lie within all limits.
export function kept(rows, axes, brushes) {
  return rows.filter((row) =>
    axes.every(({ column, scale }) => {
      const limit = brushes.get(column.key);
      return !limit || scale.isWithin(column.value(row), limit[0], limit[1]);
    }),
  );
}

// The best last: they lie on top.
function ordered(rows, shares) {
  return [...rows].sort((a, b) => (shares.get(a.name) ?? -1) - (shares.get(b.name) ?? -1));
}

function down(scale, value) {
  const at = isMissing(value) ? null : scale.at(value);
  return at === null || at === undefined || Number.isNaN(at) ? NONE : BOTTOM - at * (BOTTOM - TOP);
}

function curve(row, axes, share, isInside, does) {
  const points = axes.map(({ column, x, scale }) => [x, down(scale, column.value(row))]);
  const path = smooth(points);
  const enter = () => does.hover(row.name);
  const leave = () => does.hover(null);
  return svg(
    "g",
    { class: `run-line${isInside ? "" : " outside"}`, "data-run": row.name, onpointerenter: enter, onpointerleave: leave },
    svg("title", {}, visible(row.name)),
    svg("path", {
      class: "reach",
      d: path,
      onclick: () => {
        location.hash = does.link(row.name);
      },
    }),
    svg("path", { class: "line", d: path, stroke: tint(share) }),
  );
}

function smooth(points) {
  let path = `M${points[0].map((one) => one.toFixed(1)).join(" ")}`;
  for (let place = 1; place < points.length; place += 1) {
    const [[x0, y0], [x1, y1]] = [points[place - 1], points[place]];
    const bend = (x1 - x0) * 0.35;
    path += `C${[x0 + bend, y0, x1 - bend, y1, x1, y1].map((one) => one.toFixed(1)).join(" ")}`;
  }
  return points.length === 1 ? `${path}h1` : path;
}

function drawnAxis({ column, x, scale, none }, limit, does) {
  const name = title(column);
  const labels = lines(column);
  const group = svg(
    "g",
    { class: "axis" },
    svg("title", {}, name),
    labels.map((text, place) =>
      svg("text", { class: place ? "sub" : "axis-name", x, y: place ? 33 : 18, "text-anchor": "middle" }, text),
    ),
    svg("line", { x1: x, x2: x, y1: TOP, y2: BOTTOM }),
    scale.ticks.map((tick) => [
      svg("line", { x1: x - 4, x2: x, y1: BOTTOM - tick.at * (BOTTOM - TOP), y2: BOTTOM - tick.at * (BOTTOM - TOP) }),
      svg(
        "text",
        { class: "tick", x: x + 6, y: BOTTOM - tick.at * (BOTTOM - TOP), "dominant-baseline": "middle" },
        cut(visible(tick.label), 12),
      ),
    ]),
    none && svg("text", { class: "tick none", x: x + 6, y: NONE, "dominant-baseline": "middle" }, none),
  );
  const band = svg("rect", { class: "band", x: x - 9, width: 18, rx: 3, visibility: "hidden" });
  if (limit) spread(band, down(scale, limit[1]), down(scale, limit[0]));
  const area = svg("rect", {
    class: "grip",
    x: x - 14,
    y: TOP - 6,
    width: 28,
    height: BOTTOM - TOP + 12,
    "data-only-page": "",
  });
  group.append(band, area);
  pull(area, band, scale, (values) => does.limit(column.key, values));
  return group;
}

function spread(band, first, last) {
  const [top, bottom] = [Math.min(first, last) - 4, Math.max(first, last) + 4];
  band.setAttribute("y", top);
  band.setAttribute("height", bottom - top);
  band.setAttribute("visibility", "visible");
}

// Drawing along an axis sets its limits; a press takes them away.
function pull(area, band, scale, onLimit) {
  let from = null;
  const at = (event) => {
    const box = area.getBoundingClientRect();
    return Math.min(BOTTOM + 4, Math.max(TOP - 4, TOP - 6 + ((event.clientY - box.top) / box.height) * (BOTTOM - TOP + 12)));
  };
  area.addEventListener("pointerdown", (event) => {
    from = at(event);
    area.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  area.addEventListener("pointermove", (event) => {
    if (from !== null) spread(band, from, at(event));
  });
  area.addEventListener("pointerup", (event) => {
    const to = at(event);
    const share = (y) => (BOTTOM - y) / (BOTTOM - TOP);
    const [low, high] = [share(Math.max(from, to)), share(Math.min(from, to))];
    const isDrawn = Math.abs(to - from) > 4;
    from = null;
    onLimit(isDrawn ? [scale.valueAt(low, "ceil"), scale.valueAt(high, "floor")] : null);
  });
  area.addEventListener("pointercancel", () => {
    from = null;
  });
}

function lines(column) {
  const sub = column.sub || column.hint;
  return [cut(visible(column.label), 16), ...(sub ? [cut(visible(sub), 18)] : [])];
}

export function cut(text, length) {
  const signs = [...text];
  return signs.length > length ? `${signs.slice(0, length - 1).join("")}…` : text;
}

// The colours' meaning: from the worst to the best result. What lies far off has the colour of the end that is nearer.
export function legend(result, rows) {
  const found = range(rows, result);
  if (!found) return null;
  const ends = [`${found.isBelow ? "≤ " : ""}${trimmed(found.low)}`, `${found.isAbove ? "≥ " : ""}${trimmed(found.high)}`];
  if (result.mode === "min") ends.reverse();
  const steps = Array.from({ length: 24 }, (_, place) => h("span", { style: { background: tint(place / 23) } }));
  return h(
    "div",
    { class: "tint" },
    h("span", { class: "cut" }, said(title(result))),
    h("span", { class: "number" }, ends[0]),
    h("span", { class: "ramp", "aria-hidden": "true" }, steps),
    h("span", { class: "number" }, ends[1]),
    result.mode ? h("span", { class: "dim" }, "(the best)") : null,
  );
}
