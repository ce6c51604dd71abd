// What stands in a cell, and a text that changes exactly when it does.

import { button, h, said, visible } from "relume/dom.js";
import { duration, moment, number, plural } from "relume/format.js";
import { trimmed, valueOf } from "relume/tables/columns.js";
import { isMissing } from "relume/tables/order.js";

const STATUSES = ["running", "finished", "interrupted", "failed", "killed", "damaged"];

// around: {best: Map(column key -> best value), curves, canEdit, onEdit(row, what, cell)}
export function content(column, row, around) {
  const make = MAKERS[column.kind] ?? other;
  return make(column, row, around);
}

export function signature(column, row, around) {
  if (column.kind === "curve") return String(Boolean(valueOf(row.metrics, column.name)));
  if (column.kind === "status")
    return JSON.stringify([
      row.status,
      row.reason,
      row.epoch,
      row.epochs,
      row.epoch ? 0 : row.step,
      Math.floor((row.share ?? 0) * 100),
      duration(row.left_seconds),
    ]);
  if (column.kind === "tags") return JSON.stringify(row.tags);
  const value = column.value(row);
  if (column.sub) return `${value} ${isBest(column, value, around)} ${valueOf(row.metrics, column.name)?.last}`;
  return String(value);
}

const MAKERS = { status, best: metric, last: metric, curve, tags, notes, created };

function status(column, row) {
  const known = STATUSES.includes(row.status) ? row.status : "damaged";
  const word = h("span", { class: `status status-${known}` }, row.status);
  if (row.status === "running") return [word, ...progress(row)];
  const reason = row.status === "finished" ? null : row.reason;
  return [word, reason ? h("div", { class: "reason", title: visible(reason) }, said(shortened(reason))) : null];
}

// Of a long path only what it ends with: what went wrong comes after it.
function shortened(reason) {
  return reason.replace(/(?:[A-Za-z]:)?(?:[/\\][^\s:/\\]+)+[/\\]([^\s:/\\]+)/g, "…/$1");
}

function progress(row) {
  const parts = [];
  if (row.epochs && row.epoch) parts.push(`epoch ${number(row.epoch)}/${number(row.epochs)}`);
  else if (row.epoch) parts.push(`epoch ${number(row.epoch)}`);
  else parts.push(`step ${number(row.step)}`);
  if (!isMissing(row.left_seconds)) parts.push(`${duration(row.left_seconds)} left`);
  const share = row.share ?? null; // the epoch that is shown goes on: it does not count as done
  return [
    h("div", { class: "reason" }, parts.join(" · ")),
    share === null
      ? null
      : h("div", { class: "progress", "aria-hidden": "true" }, h("span", { style: { width: `${share * 100}%` } })),
  ];
}

function isBest(column, value, around) {
  return !isMissing(value) && around.best.get(column.key) === value;
}

function metric(column, row, around) {
  const entry = valueOf(row.metrics, column.name);
  if (!entry) return null;
  const value = column.value(row);
  const about = [
    `best ${number(entry.best)}`,
    isMissing(entry.best_epoch) ? null : `epoch ${entry.best_epoch}`,
    isMissing(entry.best_step) ? null : `step ${number(entry.best_step)}`,
    `last ${number(entry.last)}`,
    plural(entry.count ?? 0, "value"),
  ]
    .filter(Boolean)
    .join(" · ");
  if (!isBest(column, value, around)) return h("span", { title: about }, trimmed(value));
  return h(
    "strong",
    { class: "best", title: `The best of the runs shown. ${about}` },
    h("span", { "aria-hidden": "true" }, "★ "),
    trimmed(value),
    h("span", { class: "announcement" }, " the best"),
  );
}

function curve(column, row, around) {
  return valueOf(row.metrics, column.name) ? around.curves.place(column.name, row) : null;
}

function created(column, row) {
  return isMissing(row.created)
    ? null
    : h(
        "time",
        { class: "dim", datetime: iso(row.created), title: `${moment(row.created)} (${iso(row.created)})` },
        column.text(row),
      );
}

function iso(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}

function tags(column, row, around) {
  return edited(
    "tags",
    row,
    around,
    (row.tags ?? []).map((tag) => h("span", { class: "chip", title: visible(tag) }, said(tag))),
  );
}

function notes(column, row, around) {
  return edited(
    "notes",
    row,
    around,
    row.notes ? h("span", { class: "cut", title: visible(row.notes) }, said(row.notes)) : null,
  );
}

function edited(what, row, around, shown) {
  if (!around.canEdit || row.status === "damaged") return shown;
  const open = button(
    h("span", { "aria-hidden": "true" }, "✎"),
    (event) => around.onEdit(row.name, what, event.target.closest("td")),
    { class: "quiet pencil", "aria-label": `Edit the ${what} of ${visible(row.name)}`, title: `Edit the ${what}` },
  );
  return h("div", { class: "edited" }, h("div", { class: "values" }, shown), open);
}

function other(column, row) {
  const text = column.text(row);
  if (text === "" || text === null || text === undefined) return null;
  return typeof column.value(row) === "number"
    ? text
    : h("span", { class: "cut", title: visible(text).slice(0, 2000) }, said(text));
}
