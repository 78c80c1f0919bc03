// A sound to search with: a file that is dropped or chosen, or a recording.

import { $, say } from "./dom.js";
import { Recent } from "./recent.js";

const LONGEST_S = 60;
const AS_HEARD = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** The last sounds of this visit by name, of so many bytes; the address has the name alone. */
export const sounds = new Recent(500e6);

/** `use(name)` is called with each new sound. */
export function watchSounds(use) {
  const take = (file) => {
    if (!file) return;
    sounds.set(file.name, file);
    use(file.name);
  };
  $("choose").onclick = () => $("sound-file").click();
  $("sound-file").onchange = () => {
    take($("sound-file").files[0]);
    $("sound-file").value = "";
  };
  window.ondragover = window.ondrop = (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
    if (event.type === "drop") take(event.dataTransfer.files[0]);
  };
  const record = $("record");
  let recorder = null;
  record.disabled = !navigator.mediaDevices; // browsers record on https and on this machine only
  record.addEventListener("click", async () => {
    if (recorder) return recorder.stop();
    const refused = ({ message }) => say(`No recording: ${message}`, true);
    const stream = await navigator.mediaDevices.getUserMedia({ audio: AS_HEARD }).catch(refused);
    if (!stream) return;
    recorder = new MediaRecorder(stream, { audioBitsPerSecond: 256_000 });
    const timer = setTimeout(() => recorder.stop(), LONGEST_S * 1000);
    recorder.ondataavailable = ({ data }) => {
      take(new File([data], `recording ${new Date().toTimeString().slice(0, 8)}`, { type: data.type }));
    };
    recorder.onstop = () => {
      clearTimeout(timer);
      stream.getTracks().forEach((track) => track.stop());
      recorder = null;
      record.setAttribute("aria-pressed", "false");
    };
    recorder.start();
    record.setAttribute("aria-pressed", "true");
  });
}
