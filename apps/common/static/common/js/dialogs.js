// `data-open="ID"` opens the dialog of that id, `data-close` inside it closes it;
// `data-open-now` is for a dialog that comes back with an error in it.

export function startDialogs() {
  document.querySelector("dialog[data-open-now]")?.showModal();
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]");
    if (opener) document.getElementById(opener.dataset.open).showModal();
    if (event.target.closest("[data-close]") || event.target.matches("dialog")) event.target.closest("dialog").close();
  });
}
