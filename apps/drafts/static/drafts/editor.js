// Editing a draft: saved while typing, one request at a time, never over somebody else's text.

import { call } from "../../../common/static/common/js/api.js";

const PAUSE_MS = 800;
const LONGEST_RETRY_MS = 30_000;

export class Editor {
  // `say(word)` shows the state of saving: unsaved, saving, saved, retrying, conflict.
  constructor({ draft, revision, textarea, say }) {
    this.draft = draft;
    this.revision = revision;
    this.textarea = textarea;
    this.say = say;
    this.savedText = textarea.value;
    this.failures = 0;
    this.running = null;
    textarea.addEventListener("input", () => this.changed());
    addEventListener("beforeunload", (event) => this.isDirty && event.preventDefault());
  }

  get isDirty() {
    return this.textarea.value !== this.savedText;
  }

  get journal() {
    return `galley:draft:${this.draft}`;
  }

  // What was typed before a crash, if the stored text is still the one it was typed into.
  restore() {
    const kept = JSON.parse(localStorage.getItem(this.journal) ?? "null");
    if (!kept || kept.revision !== this.revision || kept.text === this.textarea.value) return false;
    this.textarea.value = kept.text;
    this.changed();
    return true;
  }

  changed() {
    if (this.isPaused) return;
    this.say(this.isDirty ? "unsaved" : "saved");
    localStorage.setItem(this.journal, JSON.stringify({ revision: this.revision, text: this.textarea.value }));
    this.later(PAUSE_MS);
  }

  later(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), ms);
  }

  // Resolves to true once everything typed so far is stored.
  async save() {
    clearTimeout(this.timer);
    await this.running;
    if (!this.isDirty) return true;
    if (this.isPaused) return false;
    this.running = this.send(this.textarea.value);
    const isStored = await this.running;
    this.running = null;
    return isStored;
  }

  async send(text) {
    this.say("saving");
    try {
      const { revision } = await call("PATCH", `/drafts/${this.draft}`, { text, revision: this.revision });
      return this.stored(text, revision);
    } catch (error) {
      return this.refused(error);
    }
  }

  stored(text, revision) {
    this.revision = revision;
    this.savedText = text;
    this.failures = 0;
    localStorage.removeItem(this.journal);
    this.say(this.isDirty ? "unsaved" : "saved");
    if (this.isDirty) this.later(PAUSE_MS);
    return true;
  }

  refused(error) {
    if (error.status >= 400 && error.status < 500 && error.status !== 429) {
      this.isPaused = true;
      this.say(error.status === 409 ? "conflict" : "", error.message);
      return false;
    }
    this.failures += 1;
    this.say("retrying");
    this.later(Math.min(LONGEST_RETRY_MS, 1000 * 2 ** this.failures));
    return false;
  }
}
