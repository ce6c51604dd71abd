// What stands over the table: search, conditions, groups, columns, and what to do with the runs that are picked.

import { button, fill, h, said, uid, visible } from "relume/dom.js";
import { plural } from "relume/format.js";
import { column, title } from "relume/tables/columns.js";
import { example, groupings } from "relume/tables/wanted.js";

const PAUSE = 300; // ms without a key before a condition is asked for

export class Bar {
  #groups = "";
  #example = "";

  // does: {find(text), where(text), group(key), archived(isShown), columns(), csv()}
  constructor(app, does) {
    this.app = app;
    this.does = does;
    const error = uid("error");
    this.find = h("input", {
      type: "search",
      class: "find",
      placeholder: "Search names, tags, notes",
      "aria-label": "Search names, tags, notes and settings",
      spellcheck: "false",
      oninput: () => does.find(this.find.value),
    });
    this.where = this.#conditions(error);
    this.error = h("p", { class: "error where-error", id: error, role: "alert", hidden: true });
    this.group = h("select", { "aria-label": "Group by", onchange: () => does.group(this.group.value) });
    this.archived = h("input", { type: "checkbox", onchange: () => does.archived(this.archived.checked) });
    this.archivedLabel = h("label", { class: "check" }, this.archived, h("span", {}, "Archived"));
    this.count = h("span", { class: "dim count" });
    this.picked = h("div", { class: "picked" });
    this.trouble = h("p", { class: "error", role: "alert", hidden: true });
    this.element = h(
      "div",
      { class: "table-bar" },
      h(
        "div",
        { class: "bar" },
        this.find,
        this.where,
        this.group,
        this.archivedLabel,
        h("span", { class: "space" }),
        button("Columns", does.columns),
        button("CSV", does.csv, { title: "Download the table as shown, as CSV", "aria-label": "Download CSV" }),
      ),
      this.error,
      this.trouble,
      h("div", { class: "bar second" }, this.count, this.picked),
    );
  }

  show(wanted, answer, rows, total) {
    this.#type(this.find, wanted.find);
    if (this.where) this.#type(this.where, wanted.where);
    this.#drawGroups(answer, wanted.group?.key ?? "");
    this.archived.checked = wanted.archived;
    this.archivedLabel.hidden = !wanted.archived && !answer.runs.some((row) => row.archived);
    this.count.textContent =
      rows.length === total ? plural(total, "run") : `${rows.length.toLocaleString("en-US")} of ${plural(total, "run")}`;
    this.#drawPicked(
      rows.map((row) => row.name).filter((name) => wanted.picked.has(name)),
      wanted.picked.size,
    );
  }

  // What was wrong with the conditions, in a sentence; the table stays as it was.
  fail(text) {
    this.error.hidden = !text;
    this.error.textContent = visible(text ?? "");
    if (text) this.where?.setAttribute("aria-invalid", "true");
    else this.where?.removeAttribute("aria-invalid");
  }

  warn(text) {
    this.trouble.hidden = !text;
    this.trouble.textContent = visible(text ?? "");
  }

  #conditions(error) {
    if (!this.app.source.isLive) return null;
    let timer = null;
    const ask = () => {
      clearTimeout(timer);
      this.does.where(field.value.trim());
    };
    const field = h("input", {
      type: "search",
      class: "where mono",
      "aria-label": "Conditions that runs have to meet",
      "aria-describedby": error,
      spellcheck: "false",
      autocomplete: "off",
      oninput: () => {
        clearTimeout(timer);
        timer = setTimeout(ask, PAUSE);
      },
      onkeydown: (event) => {
        if (event.key === "Enter") ask();
      },
    });
    return field;
  }

  // A field that somebody writes in is left alone.
  #type(field, text) {
    if (document.activeElement !== field && field.value !== text) field.value = text;
  }

  #drawGroups(answer, current) {
    const { own, differing, others } = groupings(answer);
    const key = JSON.stringify([own, differing, others, current]);
    if (key === this.#groups) return;
    this.#groups = key;
    const option = (one) => h("option", { value: one, selected: one === current }, title(column(one, answer)));
    fill(
      this.group,
      h("option", { value: "", selected: current === "" }, "No groups"),
      own.map(option),
      differing.length ? h("optgroup", { label: "Settings that differ" }, differing.map(option)) : null,
      others.length ? h("optgroup", { label: "Other settings" }, others.map(option)) : null,
    );
    this.group.value = current;
    this.#drawExample(answer);
  }

  #drawExample(answer) {
    const text = example(answer);
    if (!this.where || text === this.#example) return;
    this.#example = text;
    this.where.placeholder = visible(text);
    this.where.title =
      "Conditions on settings, metrics (their best values), status, tags, …: with <, <=, ==, !=, ~, in, and, or, not";
  }

  #drawPicked(names, count) {
    const key = JSON.stringify([names, count]);
    if (this.picked.dataset.shown === key) return;
    this.picked.dataset.shown = key;
    const { state } = this.app;
    const link = (view, label) => h("a", { class: "button", href: state.link(view, null, { runs: names }) }, label);
    if (!count) {
      fill(this.picked, h("span", { class: "dim" }, "Pick runs to draw or compare them."));
      return;
    }
    const hidden = count - names.length;
    fill(
      this.picked,
      h("strong", {}, `${count} picked`),
      hidden ? h("span", { class: "dim" }, ` (${hidden} not shown)`) : null,
      names.length ? link("charts", "Charts") : null,
      names.length > 1 ? link("compare", "Compare") : null,
      button("Pick none", () => state.set({ runs: [] }), { class: "quiet" }),
    );
  }
}

// What stands where there are no runs yet: how to make the first.
export function firstRun(root) {
  const lines = ['with relume.Run("first", root="…", config={"lr": 0.1}) as run:', '    run.log({"train/loss": 0.5})'];
  lines[0] = lines[0].replace("…", () => root);
  return h(
    "div",
    { class: "card first-run" },
    h("h2", {}, "No runs here yet"),
    h(
      "p",
      {},
      "Nothing was recorded below ",
      h("code", {}, said(root)),
      " so far. These two lines make a first run, and it appears here while it trains:",
    ),
    h("pre", { tabindex: "0" }, h("code", {}, visible(lines[0]), "\n", visible(lines[1]))),
  );
}
