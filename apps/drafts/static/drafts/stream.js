// Follows a draft over its socket. The server keeps every chunk, so whatever goes wrong is mended
// by coming back with the number of the last one that was shown.

const FIRST_WAIT_S = 0.5;
const LONGEST_WAIT_S = 8;
const PING_S = 10; // the server speaks at least so often
const STALL_S = 2 * PING_S;
const GONE = 4404;

export class DraftStream {
  // `on` takes text(piece, num_tokens), reset(), state(message), lost(), gone(), mismatch() and ended(message).
  constructor(path, on) {
    this.path = path;
    this.on = on;
    this.attempt = 0;
    this.seq = 0;
    this.shown = [];
    this.failures = 0;
    this.isOver = this.hasAskedAgain = false;
    this.listening = new AbortController();
  }

  start() {
    const { signal } = this.listening;
    // A network that is back, or a lid that was opened: do not wait for timers that slept as well.
    addEventListener("online", () => this.comeBack(), { signal });
    document.addEventListener("visibilitychange", () => this.isOverdue() && this.comeBack(), { signal });
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const cursor = `${this.attempt}.${this.seq}`;
    const socket = new WebSocket(`${scheme}://${location.host}${this.path}?after=${cursor}`);
    this.socket = socket;
    this.wasHeard = false;
    socket.onmessage = ({ data }) => socket === this.socket && this.receive(JSON.parse(data));
    socket.onclose = ({ code }) => socket === this.socket && this.closed(code);
    this.watch();
  }

  receive(message) {
    this.failures = 0;
    this.wasHeard = true;
    this.watch();
    if (message.type === "reset") this.startOver(message.attempt);
    if (message.type === "chunk") this.take(message);
    if (message.type === "state") this.show(message);
  }

  startOver(attempt) {
    this.attempt = attempt;
    this.seq = 0;
    this.shown = [];
    this.on.reset();
  }

  take({ attempt, first, seq, text, num_tokens }) {
    this.attempt ||= attempt;
    if (attempt === this.attempt && seq <= this.seq) return;
    if (attempt !== this.attempt || first !== this.seq + 1) return this.lose();
    this.seq = seq;
    this.shown.push(text);
    this.on.text(text, num_tokens);
  }

  show(message) {
    this.attempt ||= message.attempt;
    if (["queued", "writing"].includes(message.state)) return this.on.state(message);
    this.isOver = true;
    this.drop();
    return this.end(message);
  }

  async end(message) {
    if (await this.differs(message)) {
      if (!this.hasAskedAgain) return this.askAgain();
      this.on.mismatch();
    }
    this.listening.abort();
    this.on.ended(message);
  }

  // Whether the shown text is not the stored one. An edited draft has another hash than its stream.
  async differs({ content_sha256, revision }) {
    if (!content_sha256 || revision !== 1) return false;
    const shown = await sha256(this.shown.join(""));
    return shown !== null && shown !== content_sha256;
  }

  askAgain() {
    this.hasAskedAgain = true;
    this.isOver = false;
    this.startOver(this.attempt);
    this.open();
  }

  closed(code) {
    this.drop();
    // Whoever was let in a moment ago may have signed in afresh since; the door tells.
    if (code === GONE && !this.wasHeard) return this.turnAway();
    this.on.lost();
    this.failures += 1;
    this.retry = setTimeout(() => this.open(), 1000 * jittered(this.failures));
  }

  turnAway() {
    this.isOver = true;
    this.listening.abort();
    this.on.gone();
  }

  lose() {
    this.closed(0);
  }

  comeBack() {
    if (this.isOver) return;
    this.drop();
    this.open();
  }

  drop() {
    clearTimeout(this.stall);
    clearTimeout(this.retry);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  watch() {
    this.heardAt = Date.now();
    clearTimeout(this.stall);
    this.stall = setTimeout(() => this.lose(), STALL_S * 1000);
  }

  isOverdue() {
    const silence_s = (Date.now() - this.heardAt) / 1000;
    return document.visibilityState === "visible" && (!this.socket || silence_s > PING_S);
  }
}

// Full jitter: a thousand browsers that lost the same server do not come back in one second.
function jittered(failures) {
  const longest = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** failures);
  return FIRST_WAIT_S + Math.random() * (longest - FIRST_WAIT_S);
}

// Browsers offer it to https and localhost only; elsewhere nothing is compared.
async function sha256(text) {
  if (!globalThis.crypto?.subtle) return null;
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
