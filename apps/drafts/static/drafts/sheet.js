// Draws a growing text. Model output is text and nothing else: it only ever becomes text nodes.

export class Sheet {
  constructor(element) {
    this.element = element;
    this.text = "";
    this.tail = "";
    this.block = null;
    this.frame = 0;
  }

  append(piece) {
    this.text += piece;
    this.tail += piece;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  clear() {
    this.text = this.tail = "";
    this.block = null;
    this.element.replaceChildren();
  }

  // Only the last paragraph changes; those before it are left alone.
  draw() {
    this.frame = 0;
    const parts = this.tail.split(/\n{2,}/);
    for (const [index, part] of parts.entries()) {
      if (index > 0) this.block = null;
      this.write(part);
    }
    this.tail = parts.at(-1);
  }

  write(part) {
    if (!part) return;
    this.element.querySelector(".skeleton")?.remove();
    if (!this.block) {
      this.block = document.createElement("p");
      this.element.append(this.block);
    }
    this.block.textContent = part;
  }

  async sha256() {
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(this.text));
    return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
}

export function countWords(text) {
  return text.split(/\s+/).filter(Boolean).length;
}
