// What the link says of the table.

import { column, differing, nameColumn, usual, valueOf } from "relume/tables/columns.js";

export function wanted(state, answer) {
  const keys = state.has("columns") ? state.all("columns") : usual(answer);
  return {
    keys,
    columns: [...new Set(keys)].map((key) => column(key, answer)).filter(Boolean),
    sort: sortColumn(state.get("sort", "created"), answer),
    descending: state.has("sort") ? state.get("down") === "1" : true,
    where: state.get("where"),
    find: state.get("find"),
    group: column(state.get("group"), answer),
    closed: new Set(state.all("closed")),
    archived: state.get("archived") === "1",
    picked: new Set(state.all("runs")),
  };
}

function sortColumn(key, answer) {
  return key === "name" ? nameColumn : (column(key, answer) ?? column("created", answer));
}

// What groups are made by: how runs stand, and the settings that differ, the others after them.
export function groupings(answer) {
  const first = differing(answer);
  const rest = answer.settings.filter((name) => !first.includes(name));
  return {
    own: ["status", "tags", "seed"],
    differing: first.map((name) => `config:${name}`),
    others: rest.map((name) => `config:${name}`),
  };
}

// A conditions' example with names that these runs have.
export function example(answer) {
  const settings = differing(answer).filter((name) =>
    answer.runs.some((row) => typeof valueOf(row.config, name) === "number"),
  );
  const metric = answer.metrics.find((name) => /acc|f1|auc/i.test(name)) ?? answer.metrics[0];
  const row = answer.runs.find((one) => typeof valueOf(one.config, settings[0]) === "number");
  const parts = [];
  if (settings.length) parts.push(`${spelled(settings[0])} <= ${row.config[settings[0]]}`);
  if (metric) parts.push(`${spelled(metric)} ${/acc|f1|auc/i.test(metric) ? "> 0.9" : "< 0.5"}`);
  return parts.join(" and ") || 'status == "finished"';
}

function spelled(name) {
  return /^[A-Za-z_][\w./@-]*$/.test(name) ? name : `\`${name}\``;
}
