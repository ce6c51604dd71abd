// What stands above all parts: the run's name and how it goes, its main numbers, notes, and commands to copy.

import { button, copy, fill, h, said, uid, visible } from "relume/dom.js";
import { duration, moment, number } from "relume/format.js";
import { bestText, mainMetrics, sparkline } from "relume/run/metrics.js";
import { Notes } from "relume/run/notes.js";

const TILES = 5;
const FIRST = ["resume", "pack", "export the weights", "reproduce"]; // commands that stand outside of the list of all

export class Head {
  #tiles = new Map();

  constructor(page) {
    this.page = page;
    this.title = h("h1", {}, said(page.name));
    this.status = h("div", { class: "run-status" });
    this.progress = h("progress", { max: 1, "aria-label": "Progress" });
    this.bar = h("div", { class: "run-progress" }, this.progress, this.progressText = h("span", { class: "dim" }));
    this.line = h("ul", { class: "run-line" });
    this.tiles = h("ul", { class: "tiles", "aria-label": "Main metrics" });
    this.notes = new Notes(page);
    this.commands = h("div", { class: "commands" });
    this.problems = h("ul", { class: "run-problems error" });
    this.element = h("header", { class: "card run-head" },
      h("div", { class: "run-title" }, this.title, this.status, this.notes.buttons), this.bar, this.line, this.problems,
        this.notes.element, this.tiles, this.commands);
  }

  // Beside the first part all is there; above the others the head is low, so that what they show is seen at once.
  show(part) {
    this.isWhole = part === "overview";
    this.draw();
  }

  unmount() { this.notes.unmount(); }

  draw() {
    const { facts } = this.page;
    fill(this.status, status(facts), facts.archived ? h("span", { class: "chip" }, "archived") : null);
    this.#drawProgress(facts);
    fill(this.line, lineOf(facts).map((text) => h("li", {}, text)));
    this.problems.hidden = !facts.problems?.length;
    fill(this.problems, (facts.problems ?? []).map((text) => h("li", {}, said(text))));
    this.notes.draw();
    this.#drawTiles(facts.metrics ?? {});
    this.#drawCommands(facts.commands ?? []);
  }

  #drawProgress({ status: state, share = null, left_seconds: left }) {
    this.bar.hidden = state !== "running" || share === null;
    if (this.bar.hidden) return;
    this.progress.value = share;
    const rest = left === null || left === undefined ? "" : ` · ${duration(left)} left`;
    this.progressText.textContent = `${Math.floor(100 * share)} %${rest}`;
  }

  // Tiles that stay are kept: a link in one does not lose the focus, and curves do not flicker.
  #drawTiles(metrics) {
    const names = mainMetrics(metrics, TILES);
    this.tiles.hidden = !names.length || !this.isWhole;
    if (this.tiles.hidden) return;
    for (const [name, tile] of this.#tiles) if (!names.includes(name)) { tile.element.remove(); this.#tiles.delete(name); }
    names.forEach((name, place) => {
      if (!this.#tiles.has(name)) this.#tiles.set(name, new Tile(this.page, name));
      const tile = this.#tiles.get(name);
      if (this.tiles.children[place] !== tile.element) this.tiles.insertBefore(tile.element, this.tiles.children[place] ?? null);
      tile.draw(metrics[name]);
    });
  }

  #drawCommands(commands) {
    const text = JSON.stringify([commands, this.isWhole]);
    if (text === this.drawn) return;
    this.drawn = text;
    this.commands.hidden = !commands.length;
    const shown = h("pre", { id: uid("command"), class: "command", tabindex: "0", hidden: true,
      "aria-label": "The command that was copied" });
    const [first, more] = this.isWhole ? [commands.filter(isFirst), commands.filter((one) => !isFirst(one))] : [[], commands];
    const buttons = (some) => some.map((one) => this.#command(one, shown));
    fill(this.commands, first.length ? [h("span", { class: "dim" }, "Copy the command to"), buttons(first)] : null,
      more.length ? h("details", { class: "commands-more" },
        h("summary", { class: "button" }, first.length ? "more" : "Copy a command"),
        h("div", { class: "commands" }, buttons(more))) : null, shown);
  }

  // Copies the command and shows it; one that is not to be had says why.
  #command({ label, command, note }, shown) {
    const made = button(visible(label), async () => {
      shown.hidden = false;
      fill(shown, command ? said(command) : null, note ? h("span", { class: "dim" }, `${command ? "\n# " : ""}${visible(note)}`)
        : null);
      if (command) await copy(command, made);
      this.page.app.announce(command ? `Copied: ${command}` : visible(note));
    }, { title: visible(command || note), "aria-describedby": shown.id });
    return made;
  }
}

function isFirst({ label }) { return FIRST.includes(label); }

function status({ status: state = "damaged", reason }) {
  return h("span", {}, h("span", { class: `status status-${state}` }, state),
    reason ? h("span", { class: "run-reason" }, " — ", said(reason)) : null);
}

function lineOf({ epoch, epochs, step, seconds, created, seed }) {
  const has = (value) => value !== null && value !== undefined;
  return [
    (epoch > 0 || epochs > 0) && `epoch ${number(epoch ?? 0, 3)}${epochs ? ` of ${number(epochs)}` : ""}`,
    has(step) && `step ${number(step)}`,
    has(seconds) && duration(seconds),
    has(created) && `started ${moment(created)}`,
    has(seed) && `seed ${seed}`,
  ].filter(Boolean);
}

class Tile {
  constructor(page, name) {
    this.page = page;
    this.name = name;
    this.last = h("span", { class: "tile-last" });
    this.best = h("span", { class: "tile-best dim" });
    this.curve = h("span", { class: "tile-curve" });
    const link = page.app.state.link("charts", null, { runs: [page.name], metric: name });
    this.element = h("li", { class: "tile" }, h("a", { href: link, title: visible(name) },
      h("span", { class: "tile-name" }, said(name)), this.last, this.curve, this.best));
  }

  async draw(metric) {
    this.last.textContent = number(metric.last);
    this.best.textContent = bestText(metric);
    this.best.hidden = !this.best.textContent;
    if (metric.count === this.count) return;
    this.count = metric.count;
    try {
      const line = sparkline(await this.page.source.series({ run: [this.page.name], metric: this.name, buckets: 60 }));
      fill(this.curve, line);
    } catch { /* the number stands without its curve */ }
  }
}
