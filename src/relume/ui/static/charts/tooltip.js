// What stands beside the cursor: the nearest values, and what happened there.

import { colour } from "relume/colors.js";
import { fill, h, said } from "relume/dom.js";
import { number } from "relume/format.js";
import { nearest } from "relume/charts/lines.js";
import { clock } from "relume/charts/ticks.js";

const MOST = 8;

// The value of each line nearest to x, best first: those nearest to the cursor's height.
export function valuesAt(lines, x, project, top) {
  const found = [];
  for (const line of lines) {
    const at = nearest(line.x, x);
    if (at < 0) continue;
    const value = line.smooth && Number.isFinite(line.smooth[at]) ? line.smooth[at] : line.y[at];
    const py = Number.isFinite(value) ? project.y(value) : project.y(0);
    // A run that ended long before the cursor is not what is pointed at.
    const aside = Math.abs(project.x(line.x[at]) - project.x(x));
    found.push({ line, at, distance: Math.abs((Number.isFinite(py) ? py : 0) - top) + Math.max(0, aside - 12) * 2, aside });
  }
  const near = found.filter((one) => one.aside < 30);
  return (near.length ? near : found).sort((a, b) => a.distance - b.distance);
}

export function where(axis, x) {
  return axis === "time" ? `after ${clock(x)}` : `${axis} ${number(Math.round(x))}`;
}

export function describe({ line, at }) {
  const parts = [number(line.y[at])];
  if (line.smooth) parts[0] = `${number(line.smooth[at])} (raw ${number(line.y[at])})`;
  if (line.low && line.low[at] !== line.high[at]) parts.push(`${number(line.low[at])} … ${number(line.high[at])}`);
  if (line.nan?.[at]) parts.push(`${line.nan[at]} of ${line.count[at]} NaN`);
  return parts;
}

export function swatch(place) {
  return h("span", { class: "chart-swatch", style: { "background-color": colour(place) } });
}

function row(found, isFirst) {
  const { line, at } = found;
  const [value, ...more] = describe(found);
  const place = [`step ${number(line.step[at])}`, `epoch ${number(line.epoch[at])}`, clock(line.time[at])].join(" · ");
  return h("div", { class: `tip-row${isFirst ? " tip-near" : ""}` },
    swatch(line.place),
    h("span", { class: "tip-run" }, said(line.run), line.branch ? ` (branch ${line.branch})` : ""),
    h("span", { class: "tip-value" }, value),
    h("span", { class: "tip-more" }, [...more, place].join(" · ")));
}

export class Tooltip {
  constructor(place) {
    this.element = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    place.append(this.element);
  }

  // left, top: the cursor in the plot's own pixels, box: where the plot lies in `place`.
  show(heading, values, marks, { left, top, width, height, offset }) {
    const more = values.length - MOST;
    fill(this.element,
      h("div", { class: "tip-head" }, heading),
      values.slice(0, MOST).map((one, place) => row(one, place === 0)),
      more > 0 ? h("div", { class: "tip-more" }, `and ${more} more`) : null,
      marks.slice(0, 4).map((mark) => h("div", { class: "tip-mark" }, said(mark.text || mark.kind))));
    this.element.hidden = false;
    // On the side where there is room, and never beyond the chart.
    const own = this.element.getBoundingClientRect();
    const isLeft = left > width / 2;
    const aside = isLeft ? left - own.width - 14 : Math.min(left + 14, width - own.width + 8);
    const x = offset.left + aside;
    const y = Math.max(-40, Math.min(top - own.height / 2, height - own.height + 30)) + offset.top;
    this.element.style.transform = `translate(${Math.round(Math.max(0, x))}px, ${Math.round(y)}px)`;
  }

  hide() {
    this.element.hidden = true;
  }
}
