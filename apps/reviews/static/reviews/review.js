// The review page: one text, four views of it, a walk through its changes, a decision.

import { toast } from "../../../common/static/common/js/toasts.js";
import { fill, words } from "../../../common/static/common/js/words.js";

const page = document.querySelector("[data-review]");
const say = words();
const views = [...page.querySelectorAll("[data-view]")];
const hunks = hunkElements();
let current = 0;

function show(name) {
  for (const view of views) view.setAttribute("aria-pressed", view.dataset.view === name);
  for (const pane of page.querySelectorAll("[data-pane]")) pane.hidden = pane.dataset.pane !== name;
  if (name === "edit") page.querySelector("[data-pane=edit]").focus({ preventScroll: true });
}

function nextView() {
  const shown = views.findIndex((view) => view.getAttribute("aria-pressed") === "true");
  const readable = views.filter((view) => view.dataset.view !== "edit");
  show(readable[(shown + 1) % readable.length].dataset.view);
}

// A deletion and the insertion in its place carry one number: a change is all elements of a number.
function hunkElements() {
  const found = new Map();
  for (const element of page.querySelectorAll("[data-pane=changes] [data-hunk]")) {
    found.set(element.dataset.hunk, [...(found.get(element.dataset.hunk) ?? []), element]);
  }
  return [...found.values()];
}

function step(by) {
  show("changes");
  current = current === 0 && by < 0 ? hunks.length : ((current - 1 + by + hunks.length) % hunks.length) + 1;
  for (const element of hunks.flat()) element.classList.remove("is-current");
  for (const element of hunks[current - 1]) element.classList.add("is-current");
  hunks[current - 1][0].scrollIntoView({ block: "center" });
  page.querySelector("[data-hunk-count]").textContent = fill(say.hunk, { n: current, total: hunks.length });
}

// Approving the text as it is while the edited one is on the screen would drop the edit.
function markEdited() {
  const submitted = JSON.parse(document.getElementById("submitted-text").textContent);
  const isEdited = page.querySelector("[data-pane=edit]").value !== submitted;
  page.querySelector("[data-approve]").disabled = isEdited;
  page.querySelector("[data-approve-edited]").disabled = !isEdited;
  page.querySelector("[data-approve-edited]").classList.toggle("button--primary", isEdited);
}

function askForReason(event) {
  const form = event.currentTarget;
  if (event.submitter?.value !== "reject" || form.querySelector("[name=reasons]:checked")) return;
  event.preventDefault();
  form.querySelector("[name=reasons]").focus();
  toast(say.why);
}

for (const view of views) view.addEventListener("click", () => show(view.dataset.view));
for (const button of page.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => step(Number(button.dataset.step)));
}
document.addEventListener("keydown", (event) => {
  const isPlain = event.key === "v" && !event.ctrlKey && !event.metaKey;
  if (isPlain && !event.target.matches("input, textarea, select") && localStorage.getItem("galley:keys") !== "off") nextView();
});
if (!page.hasAttribute("data-read-only")) {
  page.querySelector("[data-pane=edit]").addEventListener("input", markEdited);
  page.querySelector("#decision").addEventListener("submit", askForReason);
  markEdited();
}
