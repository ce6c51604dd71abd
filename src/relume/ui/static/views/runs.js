// All runs: a table to sort, search, filter, group and pick from, which goes on while they train.

import { fill, h, visible } from "relume/dom.js";
import { saveCsv } from "relume/exports.js";
import { number } from "relume/format.js";
import { Bar, firstRun } from "relume/tables/bar.js";
import { Chooser } from "relume/tables/chooser.js";
import { column, mainMetric, nameColumn, valueOf } from "relume/tables/columns.js";
import { Curves } from "relume/tables/curves.js";
import { edit } from "relume/tables/editing.js";
import { Grid } from "relume/tables/grid.js";
import { asTable, bestOf, grouped, searched, sorted } from "relume/tables/order.js";
import { wanted } from "relume/tables/wanted.js";

const PACE = 2000; // ms between two looks at the server

const OWN = ["columns", "sort", "down", "where", "find", "group", "closed", "archived"];
let kept = {}; // of the link, as it was when the table was left: the way back from a chart leads to the same table

export async function mount(place, app) {
  restore(app.state);
  const table = new Runs(place, app, await app.source.runs());
  await table.start();
  return { update: () => table.update(), unmount: () => table.close() };
}

function restore(state) {
  if (!Object.keys(kept).length || OWN.some((name) => state.has(name))) return;
  history.replaceState(null, "", state.link("runs", null, { runs: state.all("runs"), ...kept }));
}

class Runs {
  #chosen = { where: "", names: null };
  #timer = null;
  #changed = new Set();
  #isAnew = false;
  #last = null; // the run picked last, where a range begins
  #said = "";

  constructor(place, app, answer) {
    this.app = app;
    this.place = place;
    this.answer = answer;
    this.curves = new Curves(app.source);
    this.around = {
      best: new Map(),
      curves: this.curves,
      canEdit: app.source.isLive,
      onEdit: (...about) => this.#edit(...about),
    };
    this.grid = new Grid(
      {
        sort: (one, isReversed) => this.#sort(one, isReversed),
        toggle: (key) => this.#toggle(key),
        pick: (name, isPicked, isRange) => this.#pick(name, isPicked, isRange),
        pickAll: (isPicked) => this.#pickAll(isPicked),
        archive: (name) => this.#archive(name),
        link: (name) => app.state.link("run", name),
      },
      this.around,
    );
    this.chooser = new Chooser((keys) => app.state.set({ columns: keys }));
    this.bar = new Bar(app, {
      find: (text) => app.state.set({ find: text }),
      where: (text) => app.state.set({ where: text }),
      group: (key) => app.state.set({ group: key, closed: null }),
      archived: (isShown) => app.state.set({ archived: isShown ? 1 : null }),
      columns: () =>
        this.chooser.open(
          this.answer,
          wanted(app.state, this.answer).columns.map((one) => one.key),
        ),
      csv: () => this.#csv(),
    });
  }

  async start() {
    this.empty = h("div", {});
    this.nothing = h("p", { class: "empty", hidden: true }, "No run is like that.");
    this.full = h("div", {}, this.bar.element, this.grid.element, this.nothing);
    fill(this.place, h("h1", { class: "announcement" }, "Runs"), this.empty, this.full, this.chooser.element);
    this.themed = () => this.grid.paint();
    window.addEventListener("themechange", this.themed);
    this.stop = this.app.source.onChange((change) => this.#onChange(change));
    await this.#choose();
    this.#draw();
  }

  // The link says something else.
  async update() {
    await this.#choose();
    this.#draw();
  }

  close() {
    this.isClosed = true;
    this.stop?.();
    clearTimeout(this.#timer);
    window.removeEventListener("themechange", this.themed);
    this.curves.close();
    this.chooser.element.close();
  }

  // At most one look in two seconds, however often runs change.
  #onChange(change) {
    if (change.lost || (!change.list && !change.runs.length)) return;
    change.runs.forEach((name) => this.#changed.add(name));
    this.#isAnew ||= Boolean(change.anew);
    this.#timer ??= setTimeout(() => this.#refresh(), PACE);
  }

  async #refresh() {
    const changed = [...this.#changed];
    this.#changed.clear();
    try {
      const before = new Map(this.answer.runs.map((row) => [row.name, row]));
      this.answer = await this.app.source.runs();
      if (this.#isAnew) changed.push(...grown(before, this.answer.runs));
      this.#isAnew = false;
      await this.#choose(true);
    } catch {
      /* the frame says that the server is gone; the next change asks again */
    }
    this.#timer = null;
    if (this.isClosed) return;
    this.#draw(changed);
    if (this.#changed.size) this.#onChange({ runs: [], list: true });
  }

  // Which runs meet the conditions: the server says it, by the same rules as on the terminal.
  async #choose(isAgain = false) {
    const where = this.app.source.isLive ? this.app.state.get("where") : "";
    if (where === this.#chosen.where && !isAgain) return;
    this.#chosen.where = where;
    if (!where) {
      this.#chosen.names = null;
      this.bar.fail(null);
      return;
    }
    try {
      const { names } = await this.app.source.choose(where);
      if (where !== this.#chosen.where) return;
      this.#chosen.names = new Set(names);
      this.bar.fail(null);
    } catch (error) {
      if (where === this.#chosen.where) this.bar.fail(error.message);
    }
  }

  #draw(changed = []) {
    if (this.isClosed) return;
    kept = Object.fromEntries(
      OWN.filter((name) => this.app.state.has(name)).map((name) => [name, this.app.state.all(name)]),
    );
    const want = wanted(this.app.state, this.answer);
    const isEmpty = this.answer.runs.length === 0;
    this.full.hidden = isEmpty;
    fill(this.empty, isEmpty ? firstRun(this.answer.root) : null);
    if (isEmpty) return;
    this.rows = this.#rowsOf(want);
    this.around.best = new Map(
      want.columns.map((one) => [one.key, one.sub && this.rows.length > 1 ? bestOf(this.rows, one) : null]),
    );
    this.shown = { ...want, isGrouped: Boolean(want.group), groups: this.#groupsOf(want) };
    this.grid.show(this.shown);
    this.nothing.hidden = this.rows.length > 0;
    this.bar.show(want, this.answer, this.rows, this.answer.runs.filter((row) => want.archived || !row.archived).length);
    this.chooser.update(want.columns.map((one) => one.key));
    this.#loadCurves(want, changed);
    this.#announce();
  }

  #rowsOf(want) {
    const { names } = this.#chosen;
    const rows = this.answer.runs.filter((row) => (want.archived || !row.archived) && (!names || names.has(row.name)));
    return sorted(searched(rows, want.find), want.sort, want.descending);
  }

  #groupsOf(want) {
    if (!want.group) return [{ key: "", rows: this.rows }];
    const main = mainMetric(this.answer);
    const best = main && column(`best:${main}`, this.answer);
    return grouped(this.rows, want.group).map((group) => {
      const value = best ? bestOf(group.rows, best) : null;
      return { ...group, label: want.group.label, summary: value === null ? "" : `best ${main} ${number(value)}` };
    });
  }

  #loadCurves(want, changed) {
    for (const one of want.columns) {
      if (one.kind !== "curve") continue;
      const names = this.rows.filter((row) => valueOf(row.metrics, one.name)).map((row) => row.name);
      this.curves.load(one.name, names, changed);
    }
  }

  #announce() {
    const text = `${this.bar.count.textContent} shown`;
    if (this.#said && text !== this.#said) this.app.announce(text);
    this.#said = text;
  }

  // The first press puts what is best, or newest, or first in the alphabet on top; another one turns it round.
  #sort(one, isReversed) {
    const { sort, descending } = this.shown;
    const first = one.mode === "max" || one.key === "created";
    const down = (sort.key === one.key ? !descending : first) !== isReversed;
    this.app.state.set({ sort: one.key, down: down ? 1 : null });
    this.app.announce(`Sorted by ${visible(one.label)}, ${down ? "descending" : "ascending"}`);
  }

  #toggle(key) {
    const closed = new Set(this.shown.closed);
    if (!closed.delete(key)) closed.add(key);
    this.app.state.set({ closed: [...closed] });
  }

  #pick(name, isPicked, isRange) {
    const names = this.#names();
    const picked = new Set(this.shown.picked);
    const [from, to] = [names.indexOf(isRange && this.#last !== null ? this.#last : name), names.indexOf(name)];
    const range = from < 0 ? [name] : names.slice(Math.min(from, to), Math.max(from, to) + 1);
    for (const one of range)
      if (isPicked) picked.add(one);
      else picked.delete(one);
    this.#last = name;
    this.app.state.set({ runs: this.#inOrder(picked) });
  }

  #pickAll(isPicked) {
    const picked = new Set(this.shown.picked);
    for (const name of this.#names())
      if (isPicked) picked.add(name);
      else picked.delete(name);
    this.app.state.set({ runs: this.#inOrder(picked) });
  }

  #names() {
    return this.shown.groups
      .filter((group) => !this.shown.isGrouped || !this.shown.closed.has(group.key))
      .flatMap((group) => group.rows.map((row) => row.name));
  }

  // As the table shows them: the same picks make the same link, and what is gone is no longer picked.
  #inOrder(picked) {
    return this.answer.runs.map((row) => row.name).filter((name) => picked.has(name));
  }

  #edit(name, what, cell) {
    const row = this.#row(name);
    edit(cell, row, what, (changes) => {
      this.grid.forget(name, what);
      if (changes) this.#save(name, changes);
      else this.#draw();
    });
  }

  #archive(name) {
    const row = this.#row(name);
    this.#save(name, { archived: !row.archived });
    this.app.announce(row.archived ? `${visible(name)} is archived` : `${visible(name)} is back`);
  }

  // Shown at once, and taken back with a sentence when the server does not keep it.
  async #save(name, changes) {
    const before = this.#row(name);
    this.#replace(name, { ...before, ...changes });
    this.bar.warn(null);
    try {
      const after = await this.app.source.edit(name, changes);
      this.#replace(name, { ...this.#row(name), ...pick(after, ["notes", "tags", "archived"]) });
    } catch (error) {
      this.#replace(name, { ...this.#row(name), ...pick(before, Object.keys(changes)) });
      this.bar.warn(`What was changed of ${name} could not be kept: ${error.message}`);
    }
  }

  #row(name) {
    return this.answer.runs.find((row) => row.name === name);
  }

  #replace(name, row) {
    this.answer = { ...this.answer, runs: this.answer.runs.map((one) => (one.name === name ? row : one)) };
    this.#draw();
  }

  #csv() {
    saveCsv(
      asTable(
        this.shown.groups.flatMap((group) => group.rows),
        [nameColumn, ...this.shown.columns],
      ),
      `${this.answer.root}-runs`,
    );
  }
}

// Of which runs more is known than before, where nobody has told it.
function grown(before, rows) {
  const isOther = (row, known) => row.step !== known?.step || row.seconds !== known.seconds;
  return rows.filter((row) => isOther(row, before.get(row.name))).map((row) => row.name);
}

function pick(values, names) {
  return Object.fromEntries(names.map((name) => [name, values[name]]));
}
