// The numbers of one chart on their way from the source: one question for all runs, at most one at a time, what is late is
// dropped. What a running training adds is asked for by itself and put behind what is there.

// The least milliseconds between two questions, for what was added and for all anew; and how many times as long as the last
// answer took, so that a page which looks on does not slow the training that it looks at.
const GROW = 700;
const RENEW = 2000;
const IDLE = 10;

export class Feed {
  #source;
  #tell;
  #question = null;
  #answered = null;
  #series = [];
  #busy = false;
  #wanted = false;
  #grown = new Set();
  #timer = null;
  #asked = -Infinity;
  #took = 0;
  #stopped = false;

  // tell({series, question, error}) is called with each answer.
  constructor(source, tell) {
    this.#source = source;
    this.#tell = tell;
  }

  get series() { return this.#series; }

  // {rows, metric, axis, low, high, buckets, branches}. Asked at once; an answer to an older question is not told.
  ask(question) {
    this.#question = question;
    this.#wanted = true;
    this.#next();
  }

  // Some runs have logged more.
  grow(names) {
    if (!this.#question) return;
    const own = new Set(this.#question.rows.map((row) => row.name));
    for (const name of names) if (own.has(name)) this.#grown.add(name);
    if (this.#grown.size) this.#next();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #next() {
    if (this.#stopped || this.#busy) return;
    clearTimeout(this.#timer);
    if (this.#wanted) {
      this.#wanted = false;
      this.#grown.clear();
      this.#whole(this.#question);
    } else if (this.#grown.size) {
      const since = this.#since();
      const least = since === null ? Math.max(RENEW, IDLE * this.#took) : Math.max(GROW, Math.min(RENEW, IDLE * this.#took));
      const wait = this.#asked + least - performance.now();
      if (wait > 0) this.#timer = setTimeout(() => this.#next(), wait);
      else if (since === null) { this.#grown.clear(); this.#whole(this.#question); }
      else this.#added(this.#question, [...this.#grown], since);
    }
  }

  // The last step that is there of all runs that have grown; null where only a new answer to the whole question will do.
  #since() {
    if (this.#answered !== this.#question) return null;
    let since = Infinity;
    for (const name of this.#grown) {
      const one = this.#series.find((series) => series.run === name && !series.branch);
      const last = one ? lastStep(one, this.#question.axis) : null;
      if (last === null || one.length > 2 * this.#question.buckets) return null;
      since = Math.min(since, last);
    }
    return since;
  }

  #whole(question) {
    return this.#request(question, {}, (series) => {
      this.#series = series;
      this.#answered = question;
    });
  }

  #added(question, names, since) {
    this.#grown.clear();
    const rows = question.rows.filter((row) => names.includes(row.name));
    return this.#request({ ...question, rows, branches: false, low: null, high: null }, { since }, (series) => {
      if (question !== this.#question || this.#answered !== question) return;
      for (const one of series) this.#append(one, question.axis);
    }, question);
  }

  #append(added, axis) {
    const place = this.#series.findIndex((one) => one.run === added.run && !one.branch);
    if (place < 0) return;
    const old = this.#series[place];
    if (added.bucketed && !old.bucketed) return this.ask(this.#question);
    const last = lastStep(old, axis);
    const first = added.columns.step.findIndex((step) => step > last);
    // Steps may come in any order, twice, or again after a resume: then there are other points than those that are here.
    const known = added.before + (first < 0 ? added.length : first);
    if (isWhole(this.#question) && !added.bucketed && known !== old.total) return this.ask(this.#question);
    if (first >= 0) this.#series[place] = joined(old, added, first, axis);
  }

  async #request(asked, more, take, question = asked) {
    this.#busy = true;
    this.#asked = performance.now();
    let error = null;
    try {
      const found = await this.#source.series({ ...wording(asked), ...more });
      if (this.#stopped) return;
      if (question === this.#question) take(found);
    } catch (problem) {
      error = problem;
    }
    this.#took = performance.now() - this.#asked;
    this.#busy = false;
    if (this.#stopped) return;
    if (question === this.#question) this.#tell({ series: this.#series, question, error });
    this.#next();
  }
}

function wording({ rows, metric, axis, low, high, buckets, branches }) {
  const bounded = low !== null && low !== undefined;
  return {
    run: rows.map((row) => row.name), metric, axis, buckets, branches: branches ? 1 : undefined,
    low: bounded ? low : undefined, high: bounded ? high : undefined,
    relative: bounded && axis === "time" ? 1 : undefined,
  };
}

function isWhole({ low }) { return low === null || low === undefined; }

function lastStep({ columns, length, bucketed }, axis) {
  if (!length) return -1;
  if (!bucketed) return columns.step[length - 1];
  return axis === "step" ? columns.last_x[length - 1] : null;
}

// A point behind buckets is a bucket of one.
function joined(old, added, first, axis) {
  const columns = {};
  const rest = added.columns;
  for (const [name, column] of Object.entries(old.columns)) {
    const own = rest[name] ?? asBucket(name, rest, axis);
    columns[name] = new Float64Array(column.length + own.length - first);
    columns[name].set(column);
    columns[name].set(own.subarray(first), column.length);
  }
  const length = columns.step.length;
  return { ...old, columns, length, total: old.total + added.length - first };
}

function asBucket(name, { step, value, ...columns }, axis) {
  if (name === "last_x") return { step, ...columns }[axis];
  if (name === "count") return value.map(() => 1);
  if (name === "nan") return value.map((one) => (Number.isNaN(one) ? 1 : 0));
  return value;
}
