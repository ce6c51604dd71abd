// Where the views get what they show: from the server, or out of the file that they are in. Both answer alike.

import { decode } from "relume/frames.js";

export class SourceError extends Error {}

class Live {
  isLive = true;
  #listeners = new Set();
  #events = null;
  #timer = null;
  #lost = false;
  #asking = new Map();
  #wasOpen = false;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#listen());
  }

  async runs() {
    const early = window.relumeRuns; // the page asks for them while this script is still on its way
    delete window.relumeRuns;
    return (await this.#fetch("api/runs", {}, early)).json();
  }

  choose(where, sort, descending) { return this.#json("api/choose", { where, sort, descending: descending ? 1 : "" }); }
  // What was added since a step is asked for by all charts of a page at once, and so in one question.
  series(asked) { return asked.since === undefined ? this.#series(asked) : this.#added(asked); }
  marks(runs) { return this.#json("api/marks", { run: runs }); }
  run(name) { return this.#json(`api/run/${encodeURIComponent(name)}`); }
  console(name) { return this.#json(`api/run/${encodeURIComponent(name)}/console`); }
  media(name) { return this.#json(`api/run/${encodeURIComponent(name)}/media`); }
  items(name, media) { return this.#json(`api/run/${encodeURIComponent(name)}/items`, { name: media }); }
  item(name, id) { return this.#json(`api/run/${encodeURIComponent(name)}/media/${id}`); }
  file(name, id, file) { return `api/run/${encodeURIComponent(name)}/media/${id}/${file}`; }
  compare(runs) { return this.#json("api/compare", { run: runs }); }

  async edit(name, changes) {
    const response = await fetch(`api/run/${encodeURIComponent(name)}/edit`, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(changes),
    });
    if (!response.ok) throw new SourceError(await problem(response));
    return response.json();
  }

  // Calls listener({runs: [names whose files grew], list: whether the table changed, lost: whether the server is gone,
  // anew: whether some time passed of which nothing was told}).
  // The server is asked only while somebody looks.
  onChange(listener) {
    this.#listeners.add(listener);
    this.#listen();
    return () => { this.#listeners.delete(listener); this.#listen(); };
  }

  async #series(asked) { return decode(await (await this.#fetch("api/series", asked)).arrayBuffer()).series; }

  #added({ metric, since, ...asked }) {
    const key = JSON.stringify(asked);
    if (!this.#asking.has(key)) this.#asking.set(key, { asked: { ...asked, metric: [], since: [] }, answer: null });
    const together = this.#asking.get(key);
    together.asked.metric.push(metric);
    together.asked.since.push(since);
    together.answer ??= Promise.resolve().then(() => {
      this.#asking.delete(key);
      return this.#series(together.asked);
    });
    return together.answer.then((found) => found.filter((one) => one.metric === metric));
  }

  #listen() {
    const wanted = this.#listeners.size > 0 && document.visibilityState !== "hidden";
    if (!wanted) {
      this.#events?.close();
      this.#events = null;
      clearTimeout(this.#timer);
    } else if (!this.#events) {
      this.#events = new EventSource("api/events");
      this.#events.onopen = () => {
        const anew = this.#wasOpen || this.#lost;
        this.#wasOpen = true;
        this.#tell({ runs: [], list: true, lost: false, anew });
      };
      this.#events.addEventListener("change", (event) => this.#tell({ lost: false, ...JSON.parse(event.data) }));
      this.#events.onerror = () => {
        if (!this.#lost) this.#tell({ runs: [], list: false, lost: true });
        if (this.#events?.readyState === EventSource.CLOSED) {
          this.#events = null;
          this.#timer = setTimeout(() => this.#listen(), 2000);
        }
      };
    }
  }

  #tell(change) {
    this.#lost = change.lost;
    for (const listener of [...this.#listeners]) listener(change);
  }

  async #json(path, query) { return (await this.#fetch(path, query)).json(); }

  async #fetch(path, query = {}, early = undefined) {
    const wanted = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      if (value === null || value === undefined || (value === "" && name !== "metric")) continue;
      for (const one of [value].flat()) wanted.append(name, one);
    }
    let response;
    try {
      response = await (early ?? fetch(wanted.size ? `${path}?${wanted}` : path));
    } catch {
      throw new SourceError("The server does not answer. Is `relume ui` still running?");
    }
    if (!response.ok) throw new SourceError(await problem(response));
    return response;
  }
}

async function problem(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `the server answered ${response.status}`;
  }
}

// A report: everything was put into the file when it was written. `data` holds the answers by what was asked, see ui/report.py.
class Inlined {
  isLive = false;
  #answers;
  #series;

  constructor(answers, frame, files) {
    this.#answers = answers;
    this.#series = new Map();
    for (const one of decode(frame).series) {
      const key = JSON.stringify([one.run, one.metric]);
      this.#series.set(key, [...(this.#series.get(key) ?? []), one]);
    }
    this.files = files;
  }

  get report() { return this.#answers.report; }
  get home() {
    const [only, ...others] = this.#answers.runs.runs;
    return others.length ? "" : `run/${encodeURIComponent(only.name)}`;
  }
  get count() { return this.#answers.runs.runs.length; }
  async runs() { return this.#answers.runs; }
  async choose() { throw new SourceError("A report has no server that could choose."); }
  async marks(runs) { return { runs: chosen(this.#answers.marks.runs, [runs].flat()) }; }
  async run(name) { return this.#of("run", name); }
  async console(name) { return this.#of("console", name); }
  async media(name) { return this.#of("media", name); }
  async items(name, media) { return this.#of("items", `${name}/${media}`); }
  async item(name, id) { return this.#of("item", `${name}/${id}`); }
  file(name, id, file) { return this.files[`${name}/${id}/${file}`] ?? null; }
  async compare(runs) {
    if (!this.#answers.compare) throw new SourceError("There are no two runs here that could be compared.");
    return narrowed(this.#answers.compare, [runs].flat());
  }
  async edit() { throw new SourceError("A report cannot be changed."); }
  onChange() { return () => {}; }

  async series({ run, metric, low, high, axis = "step", branches, relative }) {
    const found = [];
    for (const name of [run].flat()) {
      const begin = relative && axis === "time" ? this.#created(name) : 0;
      const [first, last] = [low, high].map((bound) => (isOpen(bound) ? bound : bound + begin));
      for (const one of this.#series.get(JSON.stringify([name, metric])) ?? []) {
        if (one.branch === 0 || branches) found.push(within(along(one, axis), axis, first, last));
      }
    }
    return found;
  }

  #created(name) { return this.#answers.runs.runs.find((row) => row.name === name)?.created ?? 0; }

  #of(kind, key) {
    const answers = this.#answers[kind] ?? {};
    const found = Object.hasOwn(answers, key) ? answers[key] : undefined;
    if (found === undefined) throw new SourceError("This is not in the report.");
    return found;
  }
}

function chosen(values, names) {
  return Object.fromEntries(names.filter((name) => Object.hasOwn(values, name)).map((name) => [name, values[name]]));
}

// A comparison of all runs, as one of some of them.
function narrowed(all, runs) {
  const places = runs.map((name) => all.names.indexOf(name)).filter((place) => place >= 0);
  const pick = (list) => (Array.isArray(list) ? places.map((place) => list[place]) : list);
  const rows = (list) => (list ?? []).map((row) => {
    const values = pick(row.values);
    return { ...row, values, differs: values.some((value) => JSON.stringify(value) !== JSON.stringify(values[0])) };
  });
  const metrics = all.metrics.map((row) => {
    const best = pick(row.best);
    return { ...row, best, last: pick(row.last), best_step: pick(row.best_step), winner: winner(row.mode, best) };
  }).filter((row) => row.best.some((value) => value !== null));
  return { ...all, names: pick(all.names), status: pick(all.status), config: rows(all.config), code: rows(all.code), environment: rows(all.environment), metrics };
}

function winner(mode, best) {
  const known = best.map((value) => (value === null ? NaN : Number(value)));
  const there = known.filter((value) => !Number.isNaN(value));
  if (!mode || there.length < 2) return null;
  const top = mode === "max" ? Math.max(...there) : Math.min(...there);
  return there.every((value) => value === top) ? null : known.indexOf(top);
}

// Buckets were made along the steps. Along another axis one ends where the next begins.
function along(one, axis) {
  if (!one.bucketed || axis === "step") return one;
  const x = one.columns[axis];
  const last_x = Float64Array.from(x, (value, place) => (place + 1 < x.length ? x[place + 1] : value));
  return { ...one, columns: { ...one.columns, last_x } };
}

function within(one, axis, low, high) {
  if (isOpen(low) && isOpen(high)) return one;
  const x = one.columns[axis];
  let first = 0;
  let last = x.length;
  while (first < x.length && !isOpen(low) && x[first] < low) first += 1;
  while (last > first && !isOpen(high) && x[last - 1] > high) last -= 1;
  first = Math.max(0, first - 1);
  last = Math.min(x.length, last + 1);
  const columns = Object.fromEntries(Object.entries(one.columns).map(([name, column]) => [name, column.subarray(first, last)]));
  return { ...one, columns, length: last - first };
}

function isOpen(bound) {
  return bound === undefined || bound === null;
}

async function unpacked(element) {
  const packed = Uint8Array.from(atob(element.textContent.trim()), (sign) => sign.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

export async function open() {
  const answers = document.getElementById("answers");
  if (!answers) return new Live();
  const [json, frame, files] = await Promise.all(
    ["answers", "numbers", "files"].map((id) => unpacked(document.getElementById(id))));
  const parse = (buffer) => JSON.parse(new TextDecoder().decode(buffer));
  return new Inlined(parse(json), frame, parse(files));
}
