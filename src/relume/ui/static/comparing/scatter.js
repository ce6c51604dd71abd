// Two things of each run as a point; its name comes with the pointer and with the focus.

import { svg, visible } from "relume/dom.js";
import { number } from "relume/format.js";
import { cut } from "relume/comparing/parallel.js";
import { scaleOf } from "relume/comparing/scales.js";
import { tint } from "relume/comparing/tint.js";
import { title } from "relume/tables/columns.js";
import { isMissing } from "relume/tables/order.js";

const HEIGHT = 380;
const EDGE = { left: 76, right: 24, top: 20, bottom: 52 };

// shown: {x, y (columns), xScale, yScale ("", "linear", "log")}; does: {hover(name or null), link(name)}
export function scatter(rows, shown, shares, inside, width, does) {
  const { x, y } = shown;
  const [across, down] = [scaleOf(rows, x, shown.xScale), scaleOf(rows, y, shown.yScale)];
  const place = {
    x: (at) => EDGE.left + 8 + at * (width - EDGE.left - EDGE.right - 16),
    y: (at) => HEIGHT - EDGE.bottom - 8 - at * (HEIGHT - EDGE.top - EDGE.bottom - 16),
  };
  const points = rows.filter((row) =>
    [
      [across, x],
      [down, y],
    ].every(([scale, one]) => isShown(scale, one.value(row))),
  );
  const drawing = svg(
    "svg",
    {
      class: "scatter",
      viewBox: `0 0 ${width} ${HEIGHT}`,
      width,
      height: HEIGHT,
      role: "group",
      "aria-label": `${points.length} runs by ${title(x)} and ${title(y)}`,
    },
    axes(across, down, place, width, x, y),
  );
  for (const row of ordered(points, shares)) {
    drawing.append(
      point(row, place.x(across.at(x.value(row))), place.y(down.at(y.value(row))), width, shown, shares, inside, does),
    );
  }
  return { drawing, missing: rows.length - points.length };
}

function isShown(scale, value) {
  const at = isMissing(value) ? null : scale.at(value);
  return at !== null && at !== undefined && !Number.isNaN(at);
}

function ordered(rows, shares) {
  return [...rows].sort((a, b) => (shares.get(a.name) ?? -1) - (shares.get(b.name) ?? -1));
}

function axes(across, down, place, width, x, y) {
  const [left, right, top, bottom] = [EDGE.left, width - EDGE.right, EDGE.top, HEIGHT - EDGE.bottom];
  const room = Math.max(6, Math.floor((right - left) / Math.max(1, across.ticks.length) / 8.5));
  return svg(
    "g",
    { class: "axes", "aria-hidden": "true" },
    across.ticks.map((tick) => [
      svg("line", { class: "rule", x1: place.x(tick.at), x2: place.x(tick.at), y1: top, y2: bottom }),
      svg(
        "text",
        { class: "tick", x: place.x(tick.at), y: bottom + 17, "text-anchor": anchor(tick, across) },
        cut(visible(tick.label), room),
      ),
    ]),
    down.ticks.map((tick) => [
      svg("line", { class: "rule", x1: left, x2: right, y1: place.y(tick.at), y2: place.y(tick.at) }),
      svg(
        "text",
        { class: "tick", x: left - 8, y: place.y(tick.at), "text-anchor": "end", "dominant-baseline": "middle" },
        cut(visible(tick.label), 9),
      ),
    ]),
    svg("line", { x1: left, x2: right, y1: bottom, y2: bottom }),
    svg("line", { x1: left, x2: left, y1: top, y2: bottom }),
    svg("text", { class: "axis-name", x: (left + right) / 2, y: HEIGHT - 10, "text-anchor": "middle" }, cut(title(x), 40)),
    svg(
      "text",
      { class: "axis-name", "text-anchor": "middle", transform: `translate(14 ${(top + bottom) / 2}) rotate(-90)` },
      cut(title(y), 40),
    ),
  );
}

// Names at the ends do not go beyond the drawing.
function anchor(tick, scale) {
  if (scale.kind !== "names" || scale.ticks.length < 2) return "middle";
  return tick.at < 0.01 ? "start" : tick.at > 0.99 ? "end" : "middle";
}

function point(row, left, top, width, { x, y }, shares, inside, does) {
  const about = `${visible(row.name)}: ${title(x)} ${x.text(row)}, ${title(y)} ${y.text(row)}`;
  const onRight = left < width / 2;
  const label = svg(
    "text",
    {
      class: "label",
      x: left + (onRight ? 10 : -10),
      y: top,
      "text-anchor": onRight ? "start" : "end",
      "dominant-baseline": "middle",
      "aria-hidden": "true",
    },
    `${cut(visible(row.name), Math.max(12, Math.floor(width / 26)))} · ${brief(y, row)}`,
  );
  return svg(
    "a",
    {
      class: `point${inside.has(row.name) ? "" : " outside"}`,
      href: does.link(row.name),
      "aria-label": about,
      "data-run": row.name,
      onpointerenter: () => does.hover(row.name),
      onpointerleave: () => does.hover(null),
      onfocus: () => does.hover(row.name),
      onblur: () => does.hover(null),
    },
    svg("circle", { class: "halo", cx: left, cy: top, r: 13 }),
    svg("circle", { class: "spot", cx: left, cy: top, r: 5.5, fill: tint(shares.get(row.name)) }),
    label,
  );
}

function brief(column, row) {
  const value = column.value(row);
  return typeof value === "number" ? column.text(row) || number(value) : cut(visible(column.text(row)), 20);
}
