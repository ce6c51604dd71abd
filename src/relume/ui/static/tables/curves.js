// The small curves in the rows: one request for a column, drawn when a row is looked at.

import { h, svg } from "relume/dom.js";
import { number } from "relume/format.js";

const WIDTH = 92;
const HEIGHT = 26;
const BUCKETS = 40;
const LONGEST = 6000; // characters of names in one request; servers and proxies refuse very long addresses

export class Curves {
  #source;
  #asked = new Map(); // metric -> names that were asked for
  #found = new Map(); // metric -> Map(name -> series)
  #shown = new Set();
  #seen;

  constructor(source) {
    this.#source = source;
    this.#seen = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          entry.target.isSeen = entry.isIntersecting;
          if (entry.isIntersecting) this.#draw(entry.target);
        }
      },
      { rootMargin: "200px" },
    );
  }

  // The place where a run's curve comes.
  place(metric, row) {
    const element = h("span", { class: "spark", dataset: { place: row.place ?? 0 } });
    element.asked = { metric, name: row.name };
    this.#shown.add(element);
    this.#seen.observe(element);
    return element;
  }

  // Fetch what is not there yet, and again what has changed.
  async load(metric, names, changed = []) {
    const asked = this.#asked.get(metric) ?? new Set();
    this.#asked.set(metric, asked);
    const wanted = names.filter((name) => !asked.has(name) || changed.includes(name));
    wanted.forEach((name) => asked.add(name));
    for (const part of parts(wanted)) {
      try {
        this.#take(metric, await this.#source.series({ run: part, metric, buckets: BUCKETS }));
      } catch {
        part.forEach((name) => asked.delete(name)); // asked again with the next change
      }
    }
  }

  close() {
    this.#seen.disconnect();
    this.#shown.clear();
  }

  #take(metric, series) {
    const found = this.#found.get(metric) ?? new Map();
    this.#found.set(metric, found);
    const fresh = new Set(series.map((one) => one.run));
    for (const one of series) if (one.branch === 0) found.set(one.run, one);
    for (const element of this.#shown) {
      if (!element.isConnected && element.wasConnected) {
        this.#forget(element);
        continue;
      }
      element.wasConnected ||= element.isConnected;
      if (element.asked.metric === metric && fresh.has(element.asked.name)) this.#draw(element);
    }
  }

  #forget(element) {
    this.#shown.delete(element);
    this.#seen.unobserve(element);
  }

  #draw(element) {
    const { metric, name } = element.asked;
    const one = this.#found.get(metric)?.get(name);
    if (!one || !element.isSeen) return;
    const [low, high] = limits(one);
    element.replaceChildren(drawn(one, low, high));
    const [first, last] = ends(one);
    const scale = `drawn from ${number(low)} to ${number(high)}, each run on its own scale`;
    element.title = `${number(first)} → ${number(last)}; ${scale}`;
  }
}

function parts(names) {
  const found = [];
  let length = Infinity;
  for (const name of names) {
    length += encodeURIComponent(name).length + 5;
    if (length > LONGEST) {
      found.push([]);
      length = 0;
    }
    found.at(-1).push(name);
  }
  return found;
}

function values(one) {
  return one.bucketed ? one.columns.mean : one.columns.value;
}

function ends(one) {
  const found = values(one);
  return [found[0], found[found.length - 1]];
}

// Where nearly all values lie: a spike does not flatten the rest. What is all but constant is not made to look lively.
function limits(one) {
  const all = [...values(one)].filter(Number.isFinite).sort((a, b) => a - b);
  if (!all.length) return [0, 1];
  const at = (share) => all[Math.round(share * (all.length - 1))];
  const [low, high] = [at(0.01), at(0.99)];
  const least = Math.max(Math.abs(low), Math.abs(high)) * 1e-3 || 1;
  return high - low >= least ? [low, high] : [low - least / 2, high + least / 2];
}

function drawn(one, low, high) {
  const x = one.columns.step;
  const span = x[x.length - 1] - x[0] || 1;
  const across = (value) => (2 + ((value - x[0]) / span) * (WIDTH - 4)).toFixed(1);
  const down = (value) => (2 + (1 - Math.min(1, Math.max(0, (value - low) / (high - low)))) * (HEIGHT - 4)).toFixed(1);
  const found = values(one);
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, "aria-hidden": "true" },
    one.bucketed ? svg("path", { class: "band", d: band(one, x, across, down) }) : null,
    found.length === 1
      ? svg("circle", { class: "dot", cx: WIDTH / 2, cy: down(found[0]), r: 2 })
      : svg("path", { class: "line", d: line(x, found, across, down) }),
  );
}

function line(x, y, across, down) {
  let path = "";
  let pen = "M";
  for (let place = 0; place < x.length; place += 1) {
    if (!Number.isFinite(y[place])) {
      pen = "M";
      continue;
    }
    path += `${pen}${across(x[place])} ${down(y[place])}`;
    pen = "L";
  }
  return path;
}

// From the largest to the smallest value of each bucket: what the mean hides.
function band(one, x, across, down) {
  const { min, max } = one.columns;
  const good = [...x.keys()].filter((place) => Number.isFinite(min[place]) && Number.isFinite(max[place]));
  if (!good.length) return "";
  const over = good.map((place) => `${across(x[place])} ${down(max[place])}`);
  const under = good.map((place) => `${across(x[place])} ${down(min[place])}`).reverse();
  return `M${over.join("L")}L${under.join("L")}Z`;
}
