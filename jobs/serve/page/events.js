// What counts as an event in what /api/curve answers, by the rule of the server (pipeline/search/events.py).
const HYSTERESIS_LOGITS = 1; // an event lasts until its logit falls this far below that of the threshold
const MERGE_GAP_S = 0.2;

const logit = (probability) => Math.log(probability / (1 - probability));
export const probability = (curve, score) => 1 / (1 + Math.exp(-curve.logit_scale * score - curve.logit_bias));

/** The score at which an event begins, that down to which it lasts, and the scores of a gap that is closed. */
function readRules({ logit_scale, logit_bias, frame_s, step_frames }, threshold) {
  const toScore = (below) => (logit(threshold) - below - logit_bias) / logit_scale;
  return [toScore(0), toScore(HYSTERESIS_LOGITS), Math.round(MERGE_GAP_S / (frame_s * step_frames))];
}

/** Whether what is found in a curve may go on before its beginning, and behind its end. */
export function findCuts(curve, threshold) {
  const [, off, gap] = readRules(curve, threshold);
  const edges = [curve.scores.slice(0, gap + 1), curve.scores.slice(-gap - 1)];
  return edges.map((scores) => scores.some((score) => score >= off));
}

/** Events of a curve, in order of time; none ends after `duration_s`. */
export function findEvents(curve, threshold, duration_s = Infinity) {
  const [on, off, gap] = readRules(curve, threshold);
  const { scores, first_frame, step_frames, frame_s } = curve;
  const spans = [];
  for (let first = 0; first < scores.length; first += 1) {
    if (scores[first] < off) continue;
    let [begin, stop] = [-1, first];
    for (; stop < scores.length && scores[stop] >= off; stop += 1) if (begin < 0 && scores[stop] >= on) begin = stop;
    const last = spans.at(-1);
    if (begin >= 0 && last && begin - last[1] <= gap) last[1] = stop;
    else if (begin >= 0) spans.push([begin, stop]);
    first = stop;
  }
  const seconds = (k) => Math.min((first_frame + k * step_frames) * frame_s, duration_s);
  return spans.map(([first, stop]) => {
    let peak = first;
    for (let frame = first; frame < stop; frame += 1) if (scores[frame] > scores[peak]) peak = frame;
    const [start_s, end_s, peak_s] = [first, stop, peak + 0.5].map(seconds);
    return { start_s, end_s, peak_s, score: scores[peak], probability: probability(curve, scores[peak]) };
  });
}

/** How many seconds two spans share; below zero: how far they lie apart. */
export const share_s = (a, b) => Math.min(a.end_s, b.end_s) - Math.max(a.start_s, b.start_s);

/** The event that holds most of a span; undefined if none touches it. */
export const findOverlap = (events, span) =>
  events.filter((one) => share_s(one, span) > 0).sort((a, b) => share_s(b, span) - share_s(a, span))[0];
