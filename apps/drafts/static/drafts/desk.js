// The writing desk: candidates that stream, one of them being edited.

import htmx from "htmx.org";
import { call } from "../../../common/static/common/js/api.js";
import { toast } from "../../../common/static/common/js/toasts.js";
import { fill, words } from "../../../common/static/common/js/words.js";
import { Editor } from "./editor.js";
import { Sheet, countWords } from "./sheet.js";
import { DraftStream } from "./stream.js";

const say = words();

function start(candidate) {
  if (candidate.dataset.stream) follow(candidate);
  if (candidate.querySelector("[data-editor]")) prepareEditing(candidate);
}

// --- streaming

function follow(candidate) {
  const sheet = new Sheet(candidate.querySelector("[data-manuscript]"));
  const line = candidate.querySelector("[data-line]");
  const speed = new Speed();
  const stream = new DraftStream(candidate.dataset.stream, {
    text(piece, num_tokens) {
      sheet.append(piece);
      candidate.classList.add("is-writing");
      showCount(candidate, sheet.numWords);
      line.textContent = tokensLine(num_tokens, speed.of(num_tokens));
    },
    reset() {
      sheet.clear();
      speed.restart();
    },
    state(message) {
      setState(candidate, message);
      line.textContent = stateLine(message, speed.of(message.num_tokens));
    },
    lost() {
      line.textContent = say.lost;
    },
    gone() {
      candidate.classList.remove("is-writing");
      line.textContent = say.gone;
    },
    mismatch() {
      toast(say.mismatch, "error");
    },
    async ended(message) {
      setState(candidate, message);
      candidate.classList.remove("is-writing");
      await refresh(candidate);
      announce(say.finished);
    },
  });
  stream.start();
  candidate.querySelector("[data-stop]")?.addEventListener("submit", stopOnce);
}

function stateLine(message, speed) {
  if (message.position !== null) return placeInLine(message.position, message.expected_wait_s);
  return message.num_tokens ? tokensLine(message.num_tokens, speed) : say.begins;
}

function tokensLine(tokens, speed) {
  return fill(speed === null ? say.written : say.writing, { tokens, speed });
}

function placeInLine(position, seconds) {
  if (seconds === null) return fill(say.queued, { position });
  if (seconds < 100) return fill(say.queued_seconds, { position, seconds });
  return fill(say.queued_minutes, { position, minutes: Math.round(seconds / 60) });
}

// Tokens a second since this page began to look: what came before it is not its to measure.
class Speed {
  constructor() {
    this.restart();
  }

  restart() {
    this.first = null;
  }

  of(tokens) {
    this.first ??= { tokens, at: performance.now() };
    const seconds = (performance.now() - this.first.at) / 1000;
    return seconds > 0.5 ? Math.round((tokens - this.first.tokens) / seconds) : null;
  }
}

async function stopOnce(event) {
  event.preventDefault();
  const form = event.currentTarget;
  form.querySelector("button").disabled = true;
  try {
    await call("POST", `/drafts/${form.closest("[data-draft]").dataset.draft}/cancel`);
  } catch (error) {
    toast(error.message, "error");
    form.querySelector("button").disabled = false;
  }
}

function setState(candidate, { state, state_label }) {
  const chip = candidate.querySelector(".chip");
  candidate.dataset.state = chip.dataset.state = state;
  chip.textContent = state_label;
  tabOf(candidate)?.querySelector(".dot").setAttribute("data-state", state);
}

function showCount(candidate, count) {
  candidate.querySelector("[data-count]").textContent = fill(say.count, { count, target: candidate.dataset.target });
}

// The finished candidate as the server shows it: stored text, checks, passport.
async function refresh(candidate) {
  const target = `#${candidate.id}`;
  await htmx.ajax("GET", `/drafts/${candidate.dataset.draft}/`, { source: target, target, select: target, swap: "outerHTML" });
  const fresh = document.getElementById(candidate.id);
  // Its own page shows it; here another tab may have been chosen, perhaps only since we asked.
  fresh.hidden = tabOf(fresh)?.getAttribute("aria-selected") === "false";
  start(fresh);
}

function tabOf(candidate) {
  return document.getElementById(`tab-${candidate.dataset.draft}`);
}

// A screen reader hears that a draft is finished, not the letters as they fall.
function announce(text) {
  document.querySelector("[data-announce]").textContent = text;
}

// --- editing

function prepareEditing(candidate) {
  const textarea = candidate.querySelector("[data-editor]");
  const manuscript = candidate.querySelector("[data-manuscript]");
  const button = candidate.querySelector("[data-edit]");
  const editor = new Editor({
    draft: candidate.dataset.draft,
    revision: Number(candidate.dataset.revision),
    textarea,
    say: (word, message) => showSaving(candidate, word, message),
  });
  const isEditing = () => !textarea.hidden;

  function open() {
    textarea.hidden = false;
    manuscript.hidden = true;
    button.textContent = say.done;
    button.setAttribute("aria-pressed", "true");
    textarea.focus({ preventScroll: true });
  }

  async function close() {
    if (!(await editor.save())) return;
    if (editor.revision !== Number(candidate.dataset.revision)) return refresh(candidate);
    textarea.hidden = true;
    manuscript.hidden = false;
    button.textContent = say.edit;
    button.setAttribute("aria-pressed", "false");
  }

  button.addEventListener("click", () => (isEditing() ? close() : open()));
  textarea.addEventListener("input", () => showCount(candidate, countWords(textarea.value)));
  textarea.addEventListener("keydown", (event) => event.key === "Escape" && close());
  candidate.querySelector("[data-submit]").addEventListener("submit", (event) => submitSaved(event, editor));
  if (editor.restore()) {
    open();
    toast(say.restored);
  }
}

function showSaving(candidate, word, message) {
  const line = candidate.querySelector("[data-save]");
  line.textContent = say[word] ?? message;
  line.dataset.save = word;
}

// Nothing is submitted that has not been stored, and the stored revision is what is submitted.
async function submitSaved(event, editor) {
  const form = event.currentTarget;
  form.revision.value = editor.revision;
  // Decided before any await: a form that is being submitted ignores requestSubmit.
  if (!editor.isDirty) return;
  event.preventDefault();
  if (await editor.save()) form.requestSubmit();
}

// --- candidates

function startTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab, tabs));
    tab.addEventListener("keydown", (event) => walk(event, tab, tabs));
  }
}

function select(tab, tabs) {
  for (const each of tabs) {
    const isChosen = each === tab;
    each.setAttribute("aria-selected", isChosen);
    each.tabIndex = isChosen ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = !isChosen;
  }
}

function walk(event, tab, tabs) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs.at((tabs.indexOf(tab) + step) % tabs.length);
  select(next, tabs);
  next.focus();
}

for (const candidate of document.querySelectorAll("[data-draft]")) start(candidate);
startTabs();
