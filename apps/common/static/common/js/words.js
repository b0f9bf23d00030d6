// Sentences that scripts say are written, and translated, in the templates.

export function words() {
  const found = {};
  for (const element of document.querySelectorAll("[data-word]")) {
    found[element.dataset.word] = element.textContent.trim();
  }
  return found;
}

// `fill("Stopped at token {n}", { n: 12 })`
export function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
