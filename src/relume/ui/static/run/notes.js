// Tags and notes of a run, and whether it is archived: the only things that the page changes.

import { button, fill, h, said, uid } from "relume/dom.js";

export class Notes {
  constructor(page) {
    this.page = page;
    this.element = h("div", { class: "notes" });
    this.buttons = h("span", { class: "notes-buttons" });
    this.isEditing = false;
  }

  unmount() { this.isEditing = false; }

  // What a person is typing is left as it is.
  draw() {
    if (this.isEditing) return;
    const { facts, source } = this.page;
    const { tags = [], notes = "", archived = false } = facts;
    const state = JSON.stringify([tags, notes, archived]);
    if (state === this.drawn) return;
    this.drawn = state;
    const canEdit = source.isLive && facts.status !== "damaged";
    this.element.hidden = !tags.length && !notes;
    fill(this.element,
      tags.length ? h("ul", { class: "tags", "aria-label": "Tags" }, tags.map((tag) => h("li", { class: "chip" }, said(tag))))
        : null,
      notes ? h("p", { class: "notes-text", dir: "auto" }, said(notes)) : null);
    fill(this.buttons, canEdit ? [this.open = button(tags.length || notes ? "Edit tags and notes" : "Add tags and notes",
      () => this.#edit(), { class: "quiet" }),
      button(archived ? "Take out of the archive" : "Archive", () => this.#save({ archived: !archived }), { class: "quiet" })]
        : null);
  }

  #edit() {
    this.isEditing = true;
    this.element.hidden = false;
    this.buttons.replaceChildren();
    const { tags = [], notes = "" } = this.page.facts;
    const [tagsId, notesId] = [uid("tags"), uid("notes")];
    const tagsField = h("input", { id: tagsId, value: tags.join(", "), autocomplete: "off" });
    const notesField = h("textarea", { id: notesId, rows: 4, value: notes });
    const wanted = () => ({ tags: tagsField.value.split(",").map((one) => one.trim()).filter(Boolean), notes: notesField.value });
    this.problem = h("p", { class: "error", role: "alert" });
    fill(this.element, h("form", { class: "notes-form", onsubmit: (event) => { event.preventDefault(); this.#save(wanted()); },
      onkeydown: (event) => { if (event.key === "Escape") this.#close(); } },
      h("label", { for: tagsId }, "Tags, with commas between them"), tagsField,
      h("label", { for: notesId }, "Notes"), notesField,
      h("div", { class: "bar" }, h("button", { class: "primary" }, "Save"), button("Cancel", () => this.#close())),
        this.problem));
    tagsField.focus();
  }

  #close() {
    this.isEditing = false;
    this.drawn = null;
    this.draw();
    this.open?.focus();
  }

  async #save(changes) {
    try {
      const row = await this.page.source.edit(this.page.name, changes);
      this.isEditing = false;
      this.drawn = null;
      this.page.took(row);
      this.open?.focus();
      this.page.app.announce("Saved.");
    } catch (error) {
      if (this.isEditing) fill(this.problem, said(error.message));
      else this.page.app.announce(error.message);
    }
  }
}
