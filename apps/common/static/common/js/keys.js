// Keyboard shortcuts. An element names its own keys: `data-key="n"` or `data-key="Ctrl+Enter"`.
// Single letters are dead inside fields and can be switched off in the `?` sheet.

const STORE = "galley:keys";
// Ctrl+Backspace deletes a word in a field, so it is not among them.
const SAFE_WHILE_TYPING = new Set(["Ctrl+Enter", "Ctrl+Shift+Enter"]);

export function startKeys() {
  const choice = document.querySelector("[data-keys-switch]");
  if (choice) {
    choice.checked = localStorage.getItem(STORE) !== "off";
    choice.addEventListener("change", () => localStorage.setItem(STORE, choice.checked ? "on" : "off"));
  }
  document.addEventListener("keydown", onKey);
}

function onKey(event) {
  if (event.defaultPrevented || event.isComposing) return;
  const key = keyName(event);
  if (isTyping(event.target) ? !SAFE_WHILE_TYPING.has(key) : !key.startsWith("Ctrl+") && localStorage.getItem(STORE) === "off") return;
  const scope = document.querySelector("dialog[open]") ?? document;
  const target = [...scope.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key && isUsable(element));
  if (!target) return;
  event.preventDefault();
  target.matches("input, textarea, select") ? target.focus() : target.click();
}

function keyName(event) {
  const chord = [(event.ctrlKey || event.metaKey) && "Ctrl", event.shiftKey && event.key.length > 1 && "Shift"];
  return [...chord, event.key].filter(Boolean).join("+");
}

function isTyping(element) {
  return element.isContentEditable || element.matches("textarea, select, input:not([type=checkbox], [type=radio])");
}

function isUsable(element) {
  return !element.disabled && element.checkVisibility();
}
