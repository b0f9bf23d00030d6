// A page that reports a broken server has no masthead, hence no switch.
export function startThemeSwitch() {
  document.querySelector("[data-theme-switch]")?.addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("galley:theme", theme);
  });
}
