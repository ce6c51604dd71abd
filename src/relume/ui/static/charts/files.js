// A chart to take along: PNG, SVG, and the numbers as CSV.

import { download, visible } from "relume/dom.js";
import { toSvg } from "relume/charts/vector.js";

// A file's name out of a metric's: other people choose it.
export function fileName(metric, ending) {
  const kept = visible(metric).replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[.-]+/, "").slice(0, 80);
  return `${kept || "chart"}.${ending}`;
}

export function saveSvg(shown, options) {
  download(fileName(options.title, "svg"), "image/svg+xml", toSvg(shown, options));
}

// The SVG, drawn at twice its size: sharp on a slide, and the same on every screen.
export async function savePng(shown, options, scale = 2) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(toSvg(shown, options))}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth * scale;
  canvas.height = image.naturalHeight * scale;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  download(fileName(options.title, "png"), "image/png", blob);
}

const COLUMNS = ["run", "branch", "step", "epoch", "time", "value", "min", "max", "count", "nan"];

// What is shown, a row for each point or bucket; time in seconds since the run began, value is the mean of a bucket.
export function toCsv(shown) {
  const rows = [COLUMNS.join(",")];
  const [from, to] = shown.x;
  for (const line of shown.lines) {
    for (let place = 0; place < line.x.length; place += 1) {
      if (line.x[place] < from || line.x[place] > to) continue;
      const y = line.y[place];
      const where = [line.step[place], line.epoch[place], line.time[place].toFixed(3)];
      const own = line.low
        ? [y, line.low[place], line.high[place], line.count[place], line.nan[place]]
        : [y, y, y, 1, Number.isNaN(y) ? 1 : 0];
      rows.push([quoted(line.run), line.branch, ...where, ...own].join(","));
    }
  }
  return `${rows.join("\r\n")}\r\n`;
}

// A name that begins like a formula must stay text in a spreadsheet.
function quoted(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

export function saveCsv(shown, metric) {
  download(fileName(metric, "csv"), "text/csv", toCsv(shown));
}
