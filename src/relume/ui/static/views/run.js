// One run: its head, and parts of which one is open. A part is loaded when it is opened, and left out where it has no data.

import { fill, h } from "relume/dom.js";
import { Head } from "relume/run/head.js";
import * as checkpoints from "relume/run/checkpoints.js";
import * as config from "relume/run/config.js";
import * as console_ from "relume/run/console.js";
import * as freeze from "relume/run/freeze.js";
import * as media from "relume/run/media.js";
import * as order from "relume/run/order.js";
import * as overview from "relume/run/overview.js";
import * as system from "relume/run/system.js";
import { problem } from "relume/run/problem.js";
import { Tabs } from "relume/run/tabs.js";

const PARTS = [overview, config, checkpoints, freeze, order, system, console_, ...media.PARTS];
const PAUSE = 2500; // between two looks at what changed, in milliseconds

class RunPage {
  #open = null; // the part that is shown, its mounted panel, and its name
  #timer = null;
  #turn = 0;
  #asked = 0;

  constructor(place, app) {
    this.app = app;
    this.source = app.source;
    this.name = app.state.subject;
    this.place = place;
    this.facts = {};
    this.media = [];
  }

  async start() {
    await this.#load();
    this.head = new Head(this);
    this.tabs = new Tabs((part) => this.app.state.set({ part: part === "overview" ? null : part, of: null, at: null }));
    this.panel = h("div", { class: "panel", id: "run-panel", role: "tabpanel", tabindex: "-1" });
    fill(this.place, this.head.element, this.tabs.element, this.panel);
    this.stop = this.source.onChange((change) => {
      if (change.list || change.runs.includes(this.name)) this.#later();
    });
    await this.update();
  }

  // The link has changed: another part, or something within the one that is open.
  async update() {
    const parts = PARTS.filter((part) => part.isThere(this));
    const wanted = this.app.state.get("part", "overview");
    const part = parts.find((one) => one.id === wanted) ?? parts[0];
    this.tabs.fill(parts, part.id);
    this.head.show(part.id);
    this.panel.setAttribute("aria-labelledby", `tab-${part.id}`);
    if (this.#open?.id === part.id) {
      await this.#open.panel?.update?.();
      return;
    }
    this.#close();
    const turn = (this.#turn += 1);
    const opened = { id: part.id, panel: null };
    this.#open = opened;
    const content = h("div", { class: `part-${part.id}` });
    fill(this.panel, content);
    try {
      const panel = await part.mount(content, this);
      if (turn !== this.#turn) panel?.unmount?.();
      else opened.panel = panel ?? {};
    } catch (error) {
      if (turn === this.#turn) fill(content, problem(error));
    }
    this.panel.dataset.shown = part.id;
  }

  unmount() {
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.stop?.();
    this.#close();
    this.head?.unmount();
  }

  // Show an answer that came another way, as that of an edit.
  took(row) {
    this.facts = { ...this.facts, ...row };
    this.head.draw();
  }

  async #load() {
    const nothing = { names: [] };
    const [facts, found] = await Promise.all([this.source.run(this.name), this.source.media(this.name).catch(() => nothing)]);
    this.facts = facts;
    this.media = found.names ?? [];
  }

  #later() {
    if (this.#timer !== null) return;
    this.#timer = setTimeout(() => this.#refresh(), Math.max(0, this.#asked + PAUSE - performance.now()));
  }

  async #refresh() {
    this.#asked = performance.now();
    try {
      await this.#load();
      this.head.draw();
      const shown = this.#open;
      const parts = PARTS.filter((part) => part.isThere(this));
      this.tabs.fill(parts, shown.id);
      if (shown.panel) await shown.panel.refresh?.();
    } catch (error) {
      console.warn(error.message); // the frame says when the server is gone; the page stands as it was
    }
    this.#timer = null;
  }

  #close() {
    this.#open?.panel?.unmount?.();
    this.#open = null;
  }
}

export async function mount(place, app) {
  const page = new RunPage(place, app);
  await page.start();
  return { update: () => page.update(), unmount: () => page.unmount() };
}
