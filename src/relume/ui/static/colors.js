// A colour for each run, the same in all views: by its place among all runs. Chosen to be told apart with colour-blind eyes
// and readable on white and on black; with more than ten runs a dash tells the tens apart.

const LIGHT = ["#2f6fde", "#d9622b", "#128a63", "#b8437f", "#8a6d00", "#0e8ba8", "#7a4fd0", "#c23b3b", "#5c7a1f", "#6b6b76"];
const DARK = ["#7fb0ff", "#ff9a66", "#4fd6a5", "#f08dc0", "#e3c14a", "#5fd0ec", "#bda2ff", "#ff8c8c", "#b3d66b", "#b4b4c0"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

export function isDark() {
  const wanted = document.documentElement.dataset.theme;
  return wanted ? wanted === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function colour(place) {
  return (isDark() ? DARK : LIGHT)[((place % 10) + 10) % 10];
}

export function dash(place) {
  return DASHES[Math.floor(Math.max(0, place) / 10) % DASHES.length];
}

// A CSS variable's value, for what is drawn on a canvas.
export function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
