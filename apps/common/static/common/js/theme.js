// Runs before the first paint, so that a dark page never flashes white.
const system = matchMedia("(prefers-color-scheme: dark)");

function apply() {
  let chosen = null;
  try {
    chosen = localStorage.getItem("galley:theme");
  } catch {
    // Storage can be forbidden; then the system decides.
  }
  document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
}

apply();
system.addEventListener("change", apply);
document.documentElement.classList.add("has-script");
