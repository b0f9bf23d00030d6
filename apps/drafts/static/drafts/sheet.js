// Draws a growing text. Model output is text and nothing else: it only ever becomes text nodes.

export class Sheet {
  constructor(element) {
    this.element = element;
    this.begin();
  }

  begin() {
    this.waiting = "";
    this.numWords = 0;
    this.endsInWord = false;
    this.block = null;
  }

  // What is long already is neither read nor written again for the next piece.
  append(piece) {
    const isGlued = this.endsInWord && /^\S/.test(piece);
    this.numWords += countWords(piece) - (isGlued ? 1 : 0);
    this.endsInWord = piece ? /\S$/.test(piece) : this.endsInWord;
    this.waiting += piece;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  clear() {
    this.begin();
    this.element.replaceChildren();
  }

  // Line ends at the end wait for what follows: two of them or more are a new paragraph.
  draw() {
    this.frame = 0;
    const [, text, ends] = /^(.*?)(\n*)$/s.exec(this.waiting);
    for (const [index, part] of text.split(/\n{2,}/).entries()) {
      if (index > 0) this.block = null;
      this.write(part);
    }
    this.waiting = ends;
  }

  write(part) {
    if (!part) return;
    this.element.querySelector(".skeleton")?.remove();
    if (!this.block) {
      const paragraph = document.createElement("p");
      this.block = paragraph.appendChild(document.createTextNode(""));
      this.element.append(paragraph);
    }
    this.block.appendData(part);
  }
}

export function countWords(text) {
  return text.split(/\s+/).filter(Boolean).length;
}
