// One audio element for the page. Times are those of the file; the server cuts and, for ultrasound, stretches.
import { request, server, url } from "./api.js";
import { $, say } from "./dom.js";

const LONGEST_S = 3600; // of what is played at a time: a WAV has an end
const EXPANSION = 10;

export class Player {
  audio = $("player");
  now = null; // {uri, start_s, end_s, expansion, track}
  state = { speed: "1", loop: false, gain: 0 };

  constructor() {
    this.audio.addEventListener("ended", () => this.stop());
    this.audio.addEventListener("error", () => {
      if (!this.now) return;
      const [{ uri }, { at }] = [this.now, server];
      this.stop();
      const asked = uri ? request(this.audio.src, { headers: { Range: "bytes=0-99" } }) : Promise.resolve();
      const unplayed = () => at === server.at && say("The browser cannot play this sound", true); // else: a newer state
      asked.then(unplayed, ({ message }) => say(message, true));
    });
    this.audio.addEventListener("playing", () => this.#follow(this.now));
  }

  /** Where playback is, in seconds of the file. */
  get t() {
    return this.now.start_s + this.audio.currentTime / this.now.expansion;
  }

  /** Play a stretch of a file; `track.setPlayhead` is told where it is. */
  play(uri, start_s, stop_s, track = null) {
    this.stop();
    const expansion = this.state.speed === "x10" ? EXPANSION : 1;
    const end_s = Math.min(stop_s, start_s + LONGEST_S / expansion);
    const address = url("audio", { uri, start_s: start_s.toFixed(3), end_s: end_s.toFixed(3), expand: expansion });
    this.#start(address, { uri, start_s, end_s, expansion, track });
  }

  playBlob(blob) {
    this.stop();
    this.#start(URL.createObjectURL(blob), { start_s: 0, end_s: Infinity, expansion: 1 });
  }

  stop() {
    this.audio.pause();
    this.now?.track?.setPlayhead(null);
    this.now = null;
  }

  set({ speed, loop, gain }) {
    const isStretched = (speed === "x10") !== (this.state.speed === "x10");
    this.state = { speed, loop, gain };
    this.#apply();
    if (isStretched && this.now?.uri) this.play(this.now.uri, this.t, this.now.end_s, this.now.track);
  }

  #start(address, now) {
    this.now = now;
    URL.revokeObjectURL(this.audio.src); // of a sound that was no file of the index
    this.audio.src = address;
    this.#apply();
    this.audio.play().catch(({ name }) => {
      if (name !== "NotAllowedError" || this.now !== now) return; // the event `error` tells the rest
      this.stop();
      say("The browser plays a sound only after a click or a key: press play again", true);
    });
  }

  #apply() {
    const { speed, loop, gain } = this.state;
    this.audio.defaultPlaybackRate = this.audio.playbackRate = speed === "x10" ? 1 : Number(speed);
    this.audio.loop = loop;
    if (gain && this.now && !this.amplifier) {
      const context = new AudioContext(); // only once it is needed: without it, the element plays by itself
      this.amplifier = context.createGain();
      context.createMediaElementSource(this.audio).connect(this.amplifier).connect(context.destination);
    }
    if (!this.amplifier) return;
    this.amplifier.gain.value = 10 ** (gain / 20);
    this.amplifier.context.resume(); // it is silent until a click or a key
  }

  #follow(now) {
    cancelAnimationFrame(this.frame); // each pause ends with another `playing`
    if (!now || this.now !== now) return;
    now.track?.setPlayhead(this.t);
    this.frame = requestAnimationFrame(() => this.#follow(now));
  }
}
