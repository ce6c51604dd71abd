// Which runs are compared, and what stands there while there are too few.

import { button, h, said, visible } from "relume/dom.js";
import { plural } from "relume/format.js";
import { MOST } from "relume/comparing/wanted.js";

export function ask(view) {
  const newest = [...view.answer.runs]
    .filter((row) => !row.archived && row.status !== "damaged")
    .sort((a, b) => b.created - a.created)
    .slice(0, 10)
    .map((row) => row.name);
  const some = view.names.length ? { runs: view.names } : {};
  return h(
    "div",
    { class: "card empty" },
    h("h1", {}, "Compare runs"),
    h(
      "p",
      {},
      view.names.length
        ? ["Only ", said(view.names[0]), " is picked: a comparison needs two runs at least."]
        : "Pick two runs or more in the table, then press Compare.",
    ),
    h(
      "p",
      {},
      h("a", { class: "button", href: view.app.state.link("runs", null, some) }, "Pick runs"),
      " ",
      newest.length > 1
        ? h(
            "a",
            { class: "button", href: view.app.state.link("compare", null, { runs: newest }) },
            `Compare the newest ${newest.length}`,
          )
        : null,
    ),
  );
}

export function head(view) {
  const { state } = view.app;
  const asked = new Set(state.all("runs")).size;
  const chips = view.rows.map((row) =>
    h(
      "li",
      {
        class: "chip run-chip",
        "data-run": row.name,
        onpointerenter: () => view.does.hover(row.name),
        onpointerleave: () => view.does.hover(null),
      },
      h("span", { class: "swatch", "aria-hidden": "true", dataset: { place: row.place ?? 0 } }),
      h(
        "a",
        {
          href: state.link("run", row.name),
          class: "cut",
          title: visible(row.name),
          onfocus: () => view.does.hover(row.name),
          onblur: () => view.does.hover(null),
        },
        said(row.name),
      ),
      button("×", () => view.remove(row.name), { class: "quiet small", "aria-label": `Leave ${visible(row.name)} out` }),
    ),
  );
  return h(
    "div",
    { class: "compare-head" },
    h(
      "div",
      { class: "bar" },
      h("h1", {}, `${plural(view.names.length, "run")} compared`),
      h("span", { class: "space" }),
      h("a", { class: "button", href: state.link("charts", null, { runs: view.names }) }, "Curves of these runs"),
      h("a", { class: "button", href: state.link("runs", null, { runs: view.names }) }, "Pick others"),
    ),
    asked > MOST ? h("p", { class: "dim" }, `The first ${MOST} of ${asked} runs: more cannot be told apart.`) : null,
    h("ul", { class: "chips", "aria-label": "Runs compared" }, chips),
  );
}
