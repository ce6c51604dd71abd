// Notes and tags, changed where they stand.

import { fill, h, visible } from "relume/dom.js";

// Turns a cell into a field. Enter and leaving it keep what was written, Escape does not.
export function edit(cell, row, what, onDone) {
  const before = what === "tags" ? (row.tags ?? []).join(", ") : (row.notes ?? "");
  const field = h(what === "tags" ? "input" : "textarea", {
    class: "editing",
    value: before,
    rows: what === "tags" ? null : 3,
    spellcheck: "false",
    maxlength: 10000,
    "aria-label": `${what === "tags" ? "Tags, with commas between them" : "Notes"}, of ${visible(row.name)}`,
    placeholder: what === "tags" ? "tags, with commas" : "notes",
  });
  let isOver = false;
  const finish = (keep, refocus) => {
    if (isOver) return;
    isOver = true;
    delete cell.dataset.editing;
    const after = field.value.trim();
    onDone(keep && after !== before.trim() ? changes(what, after) : null);
    if (refocus) cell.querySelector(".pencil")?.focus();
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      finish(true, true);
    }
    if (event.key === "Escape") {
      event.stopPropagation();
      finish(false, true);
    }
  });
  field.addEventListener("blur", () => finish(true, false));
  cell.dataset.editing = what;
  fill(cell, field);
  field.focus();
  field.select();
}

function changes(what, text) {
  if (what === "notes") return { notes: text };
  return {
    tags: [
      ...new Set(
        text
          .split(",")
          .map((tag) => tag.trim())
          .filter(Boolean),
      ),
    ],
  };
}
