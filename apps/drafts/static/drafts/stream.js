// Follows a draft over its socket. The server keeps every chunk, so whatever goes wrong is mended
// by coming back with the last sequence number that was shown.

const FIRST_WAIT_S = 0.5;
const LONGEST_WAIT_S = 8;
const STALL_S = 20; // the server pings every 10
const GONE = 4404;

export class DraftStream {
  // `on` takes text(piece), reset(), state(message), lost() and ended(message).
  constructor(path, on) {
    this.path = path;
    this.on = on;
    this.seq = 0;
    this.attempt = 0;
    this.failures = 0;
    this.isOver = false;
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}${this.path}?after=${this.seq}`);
    this.socket = socket;
    socket.onmessage = ({ data }) => socket === this.socket && this.receive(JSON.parse(data));
    socket.onclose = ({ code }) => socket === this.socket && this.closed(code);
    this.watch();
  }

  receive(message) {
    this.failures = 0;
    this.watch();
    if (message.type === "reset") return this.startOver(message);
    if (message.attempt && this.isOfAnother(message)) {
      // The text started over while we were away: our cursor counts chunks that are gone.
      this.startOver(message);
      return this.reopen();
    }
    if (message.type === "chunk") this.take(message);
    if (message.type === "state") this.show(message);
  }

  isOfAnother({ attempt }) {
    const known = this.attempt;
    this.attempt = attempt;
    return known !== 0 && known !== attempt;
  }

  startOver({ attempt }) {
    this.attempt = attempt;
    this.seq = 0;
    this.on.reset();
  }

  take({ seq, text }) {
    if (seq <= this.seq) return;
    if (seq > this.seq + 1) return this.reopen();
    this.seq = seq;
    this.on.text(text);
  }

  show(message) {
    if (["queued", "writing"].includes(message.state)) return this.on.state(message);
    this.isOver = true;
    clearTimeout(this.stall);
    this.socket.close();
    this.on.ended(message);
  }

  closed(code) {
    if (this.isOver || code === GONE) return;
    clearTimeout(this.stall);
    this.on.lost();
    this.failures += 1;
    setTimeout(() => this.open(), 1000 * jittered(this.failures));
  }

  reopen() {
    const old = this.socket;
    this.socket = null;
    old.close();
    this.closed(0);
  }

  watch() {
    clearTimeout(this.stall);
    this.stall = setTimeout(() => this.reopen(), STALL_S * 1000);
  }
}

// Full jitter: a thousand browsers that lost the same server do not come back in one second.
function jittered(failures) {
  const longest = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** failures);
  return FIRST_WAIT_S + Math.random() * (longest - FIRST_WAIT_S);
}
