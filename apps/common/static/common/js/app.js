// Loaded on every page.
import htmx from "htmx.org";
import { csrfToken } from "./api.js";
import { startDialogs } from "./dialogs.js";
import { startKeys } from "./keys.js";
import { startThemeSwitch } from "./theme-switch.js";
import { toast, startToasts } from "./toasts.js";
import { words } from "./words.js";

document.addEventListener("htmx:configRequest", ({ detail }) => {
  detail.headers["X-CSRFToken"] = csrfToken();
});
document.addEventListener("htmx:sendError", () => toast(words().offline, "error"));

// A second click while the first is on its way would send the form twice.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented) return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "yes";
});
document.addEventListener("change", ({ target }) => {
  if (target.matches("[data-submit-on-change]")) target.form.requestSubmit();
});
addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});

if (matchMedia("(max-width: 60rem)").matches) {
  for (const details of document.querySelectorAll("[data-fold-on-phone]")) details.open = false;
}
startThemeSwitch();
startToasts();
startDialogs();
startKeys();
htmx.process(document.body);
