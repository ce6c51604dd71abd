// Of a comparison of many runs that of some: a report holds one of all its runs.

export function onlyOf(found, names) {
  if (String(found.names) === String(names)) return found;
  const places = names.map((name) => found.names.indexOf(name)).filter((place) => place >= 0);
  const some = (values) => places.map((place) => values[place]);
  const entry = (one) => ({
    ...one,
    values: some(one.values),
    differs: new Set(some(one.values).map((value) => JSON.stringify(value))).size > 1,
  });
  const metric = (one) => {
    return {
      ...one,
      best: some(one.best),
      last: some(one.last),
      best_step: some(one.best_step ?? []),
      winner: winner(one.mode, some(one.best)),
    };
  };
  return {
    names: some(found.names),
    config: found.config.map(entry),
    code: found.code.map(entry),
    environment: found.environment.map(entry),
    metrics: found.metrics.map(metric),
  };
}

// As the server tells it: none where the best value is that of several.
function winner(mode, values) {
  const known = values.filter((value) => typeof value === "number");
  if (!mode || known.length < 2) return null;
  const best = Math[mode](...known);
  return known.filter((value) => value === best).length === 1 ? values.indexOf(best) : null;
}
