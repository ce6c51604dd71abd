// What happened during a run, on its curves: resumes, checkpoints, freeze phases, where it stopped.

import { colour, ink } from "relume/colors.js";

export const KINDS = [
  ["checkpoint", "Checkpoints"], ["phase", "Freeze phases"], ["resume", "Resumes"], ["branch", "Dead branches"],
  ["stop", "Stops and ends"],
];
// With more runs the marks would cover the lines: then only those of the run that is pointed at are drawn.
export const MOST_MARKED = 5;
// With more runs they are not asked for.
export const MOST_ASKED = 20;

const GROUP = { best: "checkpoint", end: "stop" };

export function groupOf(kind) {
  return GROUP[kind] ?? kind;
}

// One list for a chart: [{run, place, kind, x, until, text}] in the order of x. A phase lasts until the next one, or the end.
export function placed(rows, told, axis, off) {
  const found = [];
  for (const row of rows) {
    const about = told[row.name];
    if (!about) continue;
    const created = about.created ?? row.created ?? 0;
    const own = (about.marks ?? [])
      .map((mark) => ({ ...mark, run: row.name, place: row.place ?? 0, x: axis === "time" ? mark.time - created : mark[axis] }))
      .filter((mark) => Number.isFinite(mark.x));
    const end = own.findLast((mark) => mark.kind === "end" || mark.kind === "stop")?.x ?? Infinity;
    const phases = own.filter((mark) => mark.kind === "phase").sort((a, b) => a.x - b.x);
    phases.forEach((mark, number) => { mark.until = phases[number + 1]?.x ?? end; mark.number = number; });
    found.push(...own.filter((mark) => !off.includes(groupOf(mark.kind))));
  }
  return found.sort((a, b) => a.x - b.x);
}

// Those that are drawn: of a few runs all, of many only those of the run that is pointed at.
export function drawn(marks, shown) {
  const runs = new Set(marks.map((mark) => mark.run));
  if (runs.size <= MOST_MARKED) return marks;
  return marks.filter((mark) => mark.run === shown.hovered);
}

// Freeze phases as bands behind everything, where all runs shown agree on them; otherwise each begins with a short line at
// the top.
export function bands(marks, lines) {
  const byRun = new Map(lines.map((line) => [line.run, []]));
  for (const mark of marks) {
    if (mark.kind === "phase") byRun.set(mark.run, [...(byRun.get(mark.run) ?? []), mark]);
  }
  const all = [...byRun.values()];
  const key = (phases) => JSON.stringify(phases.map((mark) => [mark.x, mark.text]));
  return all.length && all[0].length && all.every((phases) => key(phases) === key(all[0])) ? all[0] : [];
}

export function drawBands(ctx, phases, project, box, ratio, [, end]) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(box.left, box.top, box.width, box.height);
  ctx.clip();
  ctx.font = `${10.5 * ratio}px system-ui, sans-serif`;
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  for (const mark of phases) {
    const left = Math.max(box.left, project.x(mark.x));
    const right = Math.min(box.left + box.width, project.x(Math.min(mark.until, end)));
    if (right <= left) continue;
    ctx.globalAlpha = mark.number % 2 ? 0.1 : 0.045;
    ctx.fillStyle = ink("accent");
    ctx.fillRect(left, box.top, right - left, box.height);
    ctx.globalAlpha = 0.95;
    ctx.fillStyle = ink("ink-2");
    const text = cut(ctx, phaseLabel(mark.text), right - left - 8 * ratio);
    if (text) ctx.fillText(text, left + 4 * ratio, box.top + 3 * ratio);
  }
  ctx.restore();
}

// "phase 2 of 3 (head: 2 epochs, lr 0.001): 3,202 of …" in short: "2 head". The tooltip has the rest.
export function phaseLabel(text) {
  const [, number, name] = /^phase (\d+) of \d+ \(([^(:]+)/.exec(text) ?? [];
  return name ? `${number} ${name.trim()}` : String(text);
}

function cut(ctx, text, room) {
  if (room < 24) return "";
  let kept = String(text).slice(0, 80);
  if (ctx.measureText(kept).width <= room) return kept;
  while (kept.length && ctx.measureText(`${kept}…`).width > room) kept = kept.slice(0, -1);
  return kept.length > 2 ? `${kept}…` : "";
}

export function drawMarks(ctx, marks, project, box, ratio, banded) {
  ctx.save();
  ctx.lineWidth = 1.2 * ratio;
  for (const mark of marks) {
    const x = project.x(mark.x);
    if (x < box.left - 1 || x > box.left + box.width + 1) continue;
    ctx.strokeStyle = ctx.fillStyle = colour(mark.place);
    DRAW[mark.kind]?.(ctx, x, box, ratio, banded);
  }
  ctx.restore();
}

const DRAW = {
  resume(ctx, x, box, ratio) {
    upright(ctx, x, box.top, box.top + box.height, [5 * ratio, 4 * ratio], 0.8);
    ctx.beginPath();
    ctx.moveTo(x, box.top);
    ctx.lineTo(x + 6 * ratio, box.top + 4 * ratio);
    ctx.lineTo(x, box.top + 8 * ratio);
    ctx.fill();
  },
  stop(ctx, x, box, ratio) {
    upright(ctx, x, box.top, box.top + box.height, [], 0.7);
    ctx.fillRect(x - 4 * ratio, box.top, 8 * ratio, 8 * ratio);
  },
  end(ctx, x, box, ratio) {
    upright(ctx, x, box.top + box.height - 14 * ratio, box.top + box.height, [], 0.9);
  },
  phase(ctx, x, box, ratio, banded) {
    upright(ctx, x, box.top, banded ? box.top + box.height : box.top + 12 * ratio, [2 * ratio, 2 * ratio], banded ? 0.4 : 1);
  },
  checkpoint(ctx, x, box, ratio) { triangle(ctx, x, box.top + box.height, 4 * ratio, false); },
  best(ctx, x, box, ratio) { triangle(ctx, x, box.top + box.height, 5.5 * ratio, true); },
};

function upright(ctx, x, top, bottom, pattern, alpha) {
  ctx.globalAlpha = alpha;
  ctx.setLineDash(pattern);
  ctx.beginPath();
  ctx.moveTo(x, top);
  ctx.lineTo(x, bottom);
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.globalAlpha = 1;
}

function triangle(ctx, x, foot, size, filled) {
  ctx.beginPath();
  ctx.moveTo(x, foot - size * 1.9);
  ctx.lineTo(x + size, foot);
  ctx.lineTo(x - size, foot);
  ctx.closePath();
  if (!filled) {
    ctx.save();
    ctx.fillStyle = ink("card");
    ctx.fill();
    ctx.restore();
  } else ctx.fill();
  ctx.stroke();
}
