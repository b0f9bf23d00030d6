const SECONDS = 10;

export function toast(text, kind = "info") {
  const item = document.getElementById("toast-template").content.firstElementChild.cloneNode(true);
  item.classList.add(`toast--${kind}`);
  item.querySelector(".toast__text").textContent = text;
  document.querySelector(".toasts").append(item);
  leaveLater(item);
}

export function startToasts() {
  for (const item of document.querySelectorAll(".toasts .toast")) leaveLater(item);
  document.addEventListener("click", (event) => {
    if (event.target.closest(".toast__close")) event.target.closest(".toast").remove();
  });
}

// An error stays until it is read; the rest goes by itself, but not under the pointer.
function leaveLater(item) {
  if (item.classList.contains("toast--error")) return;
  setTimeout(() => (item.matches(":hover, :focus-within") ? leaveLater(item) : item.remove()), SECONDS * 1000);
}
