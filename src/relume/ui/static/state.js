// The view's state is the link: "#/charts?runs=a&runs=b&axis=epoch". Copying the address copies the view.

export class State {
  #listeners = new Set();

  // `home` is where one is without a link: "run/fashion" in a report of one run.
  constructor(home = "") {
    this.home = home;
    window.addEventListener("hashchange", () => this.#tell());
    if (location.protocol === "about:") document.addEventListener("click", follow);
  }

  get view() {
    return this.#path()[0] || "runs";
  }

  // What stands behind the view: the run of "#/run/fashion".
  get subject() {
    const [, ...rest] = this.#path();
    return rest.length ? rest.join("/") : null;
  }

  get(name, otherwise = "") {
    return this.#query().get(name) ?? otherwise;
  }

  all(name) {
    return this.#query().getAll(name);
  }

  has(name) {
    return this.#query().has(name);
  }

  // Change what the link says; null, "" and [] take a name out. `replace` leaves no step for the back button.
  set(changes, { replace = true } = {}) {
    const query = this.#query();
    for (const [name, value] of Object.entries(changes)) {
      query.delete(name);
      if (value === null || value === undefined || value === "") continue;
      for (const one of [value].flat()) query.append(name, one);
    }
    this.#write(this.#path(), query, replace);
  }

  // Go to another view; `keep` names what of the present link goes along.
  go(view, subject = null, changes = {}, keep = ["runs"]) {
    const query = new URLSearchParams();
    for (const name of keep) for (const one of this.all(name)) query.append(name, one);
    for (const [name, value] of Object.entries(changes)) {
      query.delete(name);
      if (value !== null && value !== undefined && value !== "") for (const one of [value].flat()) query.append(name, one);
    }
    this.#write(subject === null ? [view] : [view, subject], query, false);
  }

  link(view, subject = null, changes = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(changes)) for (const one of [value].flat()) query.append(name, one);
    const path = subject === null ? view : `${view}/${encodeURIComponent(subject)}`;
    return `#/${path}${query.size ? `?${query}` : ""}`;
  }

  on(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #path() {
    const path = location.hash.replace(/^#\/?/, "").split("?")[0] || this.home;
    try {
      return path.split("/").map(decodeURIComponent);
    } catch {
      return ["runs"];
    }
  }

  #query() {
    return new URLSearchParams(location.hash.split("?").slice(1).join("?"));
  }

  #write(path, query, replace) {
    const text = [...query].length ? `?${query}` : "";
    const hash = `#/${path.map(encodeURIComponent).join("/")}${text}`;
    if (hash === location.hash) return;
    // The whole address: in a notebook's frame a part of one would be read as a part of the notebook's.
    history[replace ? "replaceState" : "pushState"](null, "", `${location.href.split("#")[0]}${hash}`);
    this.#tell();
  }

  #tell() {
    for (const listener of [...this.#listeners]) listener(this);
  }
}

// A link within a frame that has no address of its own (a report in a notebook's cell) would lead to the notebook's.
function follow(event) {
  const link = event.target instanceof Element ? event.target.closest('a[href^="#"]') : null;
  if (!link || event.defaultPrevented) return;
  event.preventDefault();
  location.hash = link.getAttribute("href");
}
