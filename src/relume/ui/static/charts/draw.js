// Lines on the canvas: a faint band from the smallest to the largest value of each bucket, the line of the means, the
// smoothed line above the raw one, and signs at the edge for what has no place on it.

import { colour, ink } from "relume/colors.js";
import { placeOf } from "relume/charts/lines.js";

// From values to pixels of a box {left, top, width, height}.
export function projection([x0, x1], [y0, y1], log, box) {
  const kx = box.width / (x1 - x0);
  const place = log ? Math.log10 : (y) => y;
  const bottom = place(y0);
  const ky = box.height / (place(y1) - bottom);
  const foot = box.top + box.height;
  // Far beyond the box is as good as at its edge; canvases and viewers of SVG dislike huge numbers.
  const bound = (y) => Math.max(box.top - 4 * box.height, Math.min(foot + 4 * box.height, y));
  return {
    x: (x) => box.left + (x - x0) * kx,
    y: (y) => (log && !(y > 0) ? (Number.isNaN(y) ? NaN : bound(Infinity)) : bound(foot - (place(y) - bottom) * ky)),
  };
}

// The places of a line that are needed to draw it between two values of x: one more on each side.
export function portion({ x }, [from, to]) {
  return [Math.max(0, placeOf(x, from) - 1), Math.min(x.length, placeOf(x, to) + 1)];
}

// Calls move and line along the values that can be shown; a NaN, an infinity, and what a log scale cannot show, is a gap.
export function trace(x, y, [first, last], project, log, move, line) {
  let open = false;
  for (let place = first; place < last; place += 1) {
    const value = y[place];
    if (!Number.isFinite(value) || (log && value <= 0)) { open = false; continue; }
    if (open) line(project.x(x[place]), project.y(value));
    else move(project.x(x[place]), project.y(value));
    open = true;
  }
}

export function drawLines(ctx, lines, told, box, ratio) {
  // A run that is not here does not put the others into the shade.
  const shown = lines.some((line) => line.run === told.hovered) ? told : { ...told, hovered: null };
  const project = projection(shown.x, shown.y, shown.log, box);
  const width = (lines.length > 20 ? 1 : 1.6) * ratio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(box.left, box.top, box.width, box.height);
  ctx.clip();
  ctx.lineJoin = "round";
  const isHovered = (line) => line.run === shown.hovered;
  const ordered = shown.hovered === null ? lines : [...lines].sort((a, b) => isHovered(a) - isHovered(b));
  for (const line of ordered) drawLine(ctx, line, shown, project, box, width, ratio);
  ctx.restore();
}

function drawLine(ctx, line, shown, project, box, width, ratio) {
  const part = portion(line, shown.x);
  const isHovered = line.run === shown.hovered;
  const faded = shown.hovered !== null && !isHovered ? 0.3 : 1;
  ctx.strokeStyle = ctx.fillStyle = colour(line.place);
  if (line.low && shown.band && !line.branch) drawBand(ctx, line, part, project, shown, faded * (isHovered ? 1.6 : 1), ratio);
  ctx.setLineDash((line.branch ? [3, 4] : line.dash).map((one) => one * ratio));
  ctx.lineWidth = isHovered ? width * 1.35 : width;
  ctx.globalAlpha = faded * (line.branch ? 0.5 : line.smooth ? 0.28 : 1);
  stroke(ctx, line.x, line.y, part, project, shown.log);
  ctx.setLineDash([]);
  if (line.sparse) dots(ctx, line, part, project, shown.log, 2.2 * ratio);
  if (line.smooth) {
    ctx.globalAlpha = faded;
    ctx.lineWidth = (isHovered ? 2.6 : 2) * ratio;
    ctx.setLineDash(line.dash.map((one) => one * ratio));
    stroke(ctx, line.x, line.smooth, part, project, shown.log);
    ctx.setLineDash([]);
  }
  ctx.globalAlpha = faded;
  for (const sign of signs(line, part, project, box)) drawSign(ctx, sign, ratio);
  ctx.globalAlpha = 1;
}

function stroke(ctx, x, y, part, project, log) {
  ctx.beginPath();
  trace(x, y, part, project, log, (px, py) => ctx.moveTo(px, py), (px, py) => ctx.lineTo(px, py));
  ctx.stroke();
}

function dots(ctx, line, [first, last], project, log, radius) {
  ctx.beginPath();
  for (let place = first; place < last; place += 1) {
    const y = line.y[place];
    if (!Number.isFinite(y) || (log && y <= 0)) continue;
    const px = project.x(line.x[place]);
    ctx.moveTo(px + radius, project.y(y));
    ctx.arc(px, project.y(y), radius, 0, 2 * Math.PI);
  }
  ctx.fill();
}

// The outline of the band, run by run of buckets that have values: [[x, top, bottom], …].
export function bandParts(line, [first, last], project) {
  const parts = [];
  let open = null;
  for (let place = first; place < last; place += 1) {
    if (Number.isNaN(line.low[place])) { open = null; continue; }
    if (!open) parts.push(open = []);
    open.push([project.x(line.x[place]), project.y(line.high[place]), project.y(line.low[place])]);
  }
  return parts;
}

function drawBand(ctx, line, part, project, shown, strength, ratio) {
  ctx.beginPath();
  for (const points of bandParts(line, part, project)) {
    points.forEach(([x, top], place) => (place ? ctx.lineTo(x, top) : ctx.moveTo(x, top)));
    for (let place = points.length - 1; place >= 0; place -= 1) ctx.lineTo(points[place][0], points[place][2]);
    ctx.closePath();
  }
  ctx.globalAlpha = Math.min(1, 0.2 * strength);
  ctx.fill();
  // A spike of one bucket is a hair wide: the outline keeps it in sight.
  ctx.globalAlpha = Math.min(1, 0.42 * strength);
  ctx.lineWidth = 0.8 * ratio;
  ctx.stroke();
}

// What has no place on the scale: NaN (a cross at the lower edge), infinities (an arrow at the edge they are beyond).
export function signs(line, [first, last], project, box) {
  const found = [];
  let before = -Infinity;
  for (let place = first; place < last; place += 1) {
    const kind = signOf(line, place);
    const x = project.x(line.x[place]);
    if (!kind || x < box.left - 1 || x > box.left + box.width + 1) continue;
    if (x - before < 3 && found.at(-1)?.kind === kind) continue;
    found.push({ kind, x, y: kind === "up" ? box.top : box.top + box.height });
    before = x;
  }
  return found;
}

function signOf({ y, low, high, nan }, place) {
  if (nan ? nan[place] > 0 : Number.isNaN(y[place])) return "nan";
  if ((high ? high[place] : y[place]) === Infinity) return "up";
  return (low ? low[place] : y[place]) === -Infinity ? "down" : null;
}

function drawSign(ctx, { kind, x, y }, ratio) {
  const size = 4 * ratio;
  ctx.lineWidth = 1.6 * ratio;
  ctx.beginPath();
  if (kind === "nan") {
    ctx.moveTo(x - size, y - 2 * size - ratio);
    ctx.lineTo(x + size, y - ratio);
    ctx.moveTo(x + size, y - 2 * size - ratio);
    ctx.lineTo(x - size, y - ratio);
    ctx.stroke();
    return;
  }
  const way = kind === "up" ? 1 : -1;
  ctx.moveTo(x, y + way * ratio);
  ctx.lineTo(x - size, y + way * (2 * size));
  ctx.lineTo(x + size, y + way * (2 * size));
  ctx.closePath();
  ctx.fill();
}

// How the axes of a chart look on a canvas.
export function axisStyle() {
  return {
    stroke: ink("ink-2"), font: "11px system-ui, sans-serif",
    grid: { stroke: ink("line"), width: 1 }, ticks: { stroke: ink("line"), width: 1, size: 4 },
  };
}
