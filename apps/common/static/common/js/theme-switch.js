export function startThemeSwitch() {
  const button = document.querySelector("[data-theme-switch]");
  button.addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("galley:theme", theme);
  });
}
