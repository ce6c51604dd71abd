// What happened during the runs, as the source tells it.

// The marks of all charts on a page, asked for once: for each app one store.
class Marks {
  #told = Object.create(null);
  #asking = new Set();
  #stale = new Set();
  #listeners = new Set();
  #timer = null;

  constructor(source) {
    this.source = source;
    source.onChange(({ runs, anew }) => {
      for (const name of anew ? Object.keys(this.#told) : runs ?? []) if (this.#told[name]) this.#stale.add(name);
      // A checkpoint is there a little later than its numbers; nobody waits for its triangle.
      if (this.#stale.size && this.#timer === null && this.#listeners.size) this.#timer = setTimeout(() => this.#renew(), 3000);
    });
  }

  get told() { return this.#told; }

  want(names) {
    const missing = names.filter((name) => !this.#told[name] && !this.#asking.has(name));
    if (missing.length) this.#ask(missing);
  }

  on(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #renew() {
    this.#timer = null;
    const names = [...this.#stale];
    this.#stale.clear();
    this.#ask(names);
  }

  async #ask(names) {
    names.forEach((name) => this.#asking.add(name));
    try {
      const { runs } = await this.source.marks(names);
      for (const name of names) this.#told[name] = runs[name] ?? { marks: [] };
      for (const listener of [...this.#listeners]) listener();
    } catch {
      // A chart without marks is still a chart.
      for (const name of names) this.#told[name] ??= { marks: [] };
    }
    names.forEach((name) => this.#asking.delete(name));
  }
}

const stores = new WeakMap();
export function marksOf(source) {
  if (!stores.has(source)) stores.set(source, new Marks(source));
  return stores.get(source);
}
