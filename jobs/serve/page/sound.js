// A sound to search with: a file that is dropped or chosen, or a recording.
import { $, say } from "./dom.js";
import { Recent } from "./data.js";

const [LONGEST_S, FORM_BYTES] = [60, 100_000]; // of a recording; around a sound that is sent
const AS_HEARD = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** The last sounds of this visit by name, of so many bytes; the address has the name alone. */
export const sounds = new Recent(500e6);

/** `use(name)` is called with each new sound. `most()` is how many bytes the server takes. */
export function watchSounds(use, most) {
  const take = ([file, ...others]) => {
    if (!file) return;
    const most_bytes = most() - FORM_BYTES;
    if (file.size > most_bytes) return say(`“${file.name}” exceeds ${most_bytes / 1e6} MB: send a part of it`, true);
    let { name } = file;
    for (let n = 2; sounds.has(name); n += 1) name = `${file.name} (${n})`; // another one than before
    sounds.set(name, file);
    if (others.length) say(`Of ${others.length + 1} files, “${file.name}” is taken`);
    use(name);
  };
  $("choose").onclick = () => $("sound-file").click();
  $("sound-file").onchange = () => (take($("sound-file").files), ($("sound-file").value = ""));
  window.ondragover = window.ondrop = (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
    if (event.type === "drop") take(event.dataTransfer.files);
  };
  const record = $("record");
  let recorder = null;
  record.disabled = !navigator.mediaDevices; // its title says why
  record.onclick = async () => {
    if (recorder) return recorder.stop();
    recorder = { stop: () => {} }; // while the browser asks for permission
    let [tracks, timer] = [[], null];
    const end = (error) => {
      clearTimeout(timer);
      tracks.forEach((track) => track.stop());
      recorder = null;
      record.setAttribute("aria-pressed", "false");
      if (error) say(`No recording: ${error.message}`, true);
    };
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: AS_HEARD });
      tracks = stream.getTracks();
      recorder = new MediaRecorder(stream, { audioBitsPerSecond: 256_000 });
      const name = `recording ${new Date().toTimeString().slice(0, 8)}`;
      recorder.ondataavailable = ({ data }) => take([new File([data], name, { type: data.type })]);
      recorder.onerror = ({ error }) => end(error ?? new Error("it broke off"));
      recorder.onstop = () => end();
      recorder.start();
      record.setAttribute("aria-pressed", "true");
      timer = setTimeout(() => (recorder.stop(), say(`A recording lasts ${LONGEST_S} s at most`)), LONGEST_S * 1000);
    } catch (error) {
      end(error);
    }
  };
}
