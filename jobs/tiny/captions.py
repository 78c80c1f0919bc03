"""Captions of the synthetic sounds: sentences around phrases, a training half and a held-out half of each.

Held-out captions pair phrases and templates that training never sees; their words for sounds occur in other phrases.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Captions:
    """Texts for one class: a training half and a held-out half."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


TEMPLATES = Captions(
    ("{}", "{}", "{}.", "the sound of {}", "{} can be heard", "{} in the background", "we hear {}", "there is {}",
     "{} is playing", "a clip with {}", "this is {}", "an audio recording with {}", "listen to {}", "one hears {} here",
     "a short recording, {}", "somewhere {} is heard", "find {}", "when can you hear {}", "a recording of {}",
     "listen, {}", "here one can hear {}"),
    ("here is the sound of {}", "an audio clip of {}", "somewhere one can hear {}"),
)  # fmt: skip
"""Sentences around a phrase. They say nothing about the sound, and the captions of unknown sounds use them too."""

_PHRASES: dict[str, Captions] = {
    "low_tone": Captions(
        ("low tone", "a low tone", "a deep steady tone", "a low pitched tone", "a steady low beep",
         "a constant low note", "a low frequency sine wave", "a deep note", "a deep low pitched note",
         "a low steady sine tone", "a low note", "a deep beep"),
        ("a constant deep tone", "a low sine note", "a deep steady beep"),
    ),
    "high_tone": Captions(
        ("high tone", "a high tone", "a shrill steady tone", "a high pitched tone", "a steady high beep",
         "a constant high note", "a high frequency sine wave", "a shrill beep", "a shrill high pitched note",
         "a high steady sine tone", "a high note", "a shrill note"),
        ("a constant shrill tone", "a high sine note", "a shrill steady beep"),
    ),
    "rising_sweep": Captions(
        ("rising sweep", "a rising sweep", "a tone sweeping upwards", "a tone that goes up", "an ascending glide",
         "a pitch sliding up", "an upward sweep", "a sweep from low to high", "a rising pitch that goes up",
         "a glide sweeping upwards", "a rising tone", "an ascending sweep", "a glide from low to high",
         "a tone moving upward"),
        ("a pitch sweeping upwards", "an upward glide", "a sweep that goes up"),
    ),
    "falling_sweep": Captions(
        ("falling sweep", "a falling sweep", "a tone sweeping downwards", "a tone that goes down", "a descending glide",
         "a pitch sliding down", "a downward sweep", "a sweep from high to low", "a falling pitch that goes down",
         "a glide sweeping downwards", "a falling tone", "a descending sweep", "a glide from high to low",
         "a tone moving downward"),
        ("a pitch sweeping downwards", "a downward glide", "a sweep that goes down"),
    ),
    "noise": Captions(
        ("noise", "white noise", "a hissing noise", "a burst of static", "a loud hiss", "hissing steam", "static",
         "a noise burst", "radio static", "hissing white static", "a burst of hissing noise", "hiss", "steam"),
        ("loud white noise", "a hiss of steam", "a burst of radio static"),
    ),
    "clicks": Captions(
        ("clicks", "clicking", "a series of clicks", "rapid clicks", "a ticking sound", "fast ticking",
         "a clicking train of ticks", "short dry clicks", "a series of rapid ticks", "short fast clicking", "ticks",
         "a click", "quick ticks", "a train of clicks", "dry ticking"),
        ("a series of short ticks", "rapid dry clicking", "a train of fast clicks"),
    ),
    "siren": Captions(
        ("siren", "a siren", "a wailing siren", "an emergency siren", "a police siren", "an ambulance siren",
         "an alarm wailing up and down", "an emergency vehicle", "the wailing alarm of an ambulance",
         "a police vehicle with its siren", "sirens", "an alarm", "an ambulance"),
        ("an ambulance siren wailing", "the alarm of a police vehicle", "an emergency alarm"),
    ),
    "bell": Captions(
        ("bell", "a bell", "a bell ringing", "a church bell", "a ringing chime", "a metal bell struck once",
         "a chime", "a bell toll", "a metal chime ringing", "a church bell struck", "bells", "bells ringing"),
        ("a church bell ringing", "a metal chime struck once", "the toll of a bell"),
    ),
    "buzz": Captions(
        ("buzz", "a buzz", "a square wave", "a harsh buzzer", "a buzzing square wave", "a harsh electronic buzz",
         "a buzzer", "a raspy electronic buzzing", "a harsh electronic square wave", "a raspy buzzer", "buzzing"),
        ("a harsh raspy buzz", "electronic buzzing", "the buzz of a square wave"),
    ),
    "hum": Captions(
        ("hum", "a pulsing hum", "a throbbing hum", "an amplitude modulated hum", "a fluttering hum",
         "a humming that throbs", "a pulsating drone", "a tremolo hum", "a throbbing pulsating hum",
         "a fluttering drone with tremolo", "humming", "a drone"),
        ("a pulsing drone", "a hum with tremolo", "a fluttering throbbing hum"),
    ),
    "rumble": Captions(
        ("rumble", "an engine", "an engine rumbling", "a motor running", "a low engine rumble",
         "an idling truck engine", "a rumbling motor", "a car engine idling", "the rumble of a motor idling",
         "a truck motor running", "engine", "rumbling", "a motor"),
        ("a truck engine rumbling", "the low rumble of a motor", "a car engine running"),
    ),
    "chirps": Captions(
        ("chirps", "birds chirping", "a bird", "bird song", "a chirping bird", "tweeting birds", "a bird calling",
         "chirping", "a small bird tweeting", "a small bird chirping", "the tweeting song of birds", "birds",
         "a chirp"),
        ("small birds tweeting", "the song of a chirping bird", "birds calling"),
    ),
    "drum": Captions(
        ("drum", "a drum", "a drum beat", "drumming", "a bass drum", "drum hits", "a kick drum thumping",
         "a thumping drum", "the beat of a kick drum", "a thumping bass drum beat", "drums", "a kick drum"),
        ("a thumping kick drum", "bass drum hits", "the beat of drums"),
    ),
    "silence": Captions(
        ("silence", "complete silence", "nothing", "no sound at all", "a silent recording", "quiet without any sound",
         "total silence", "dead quiet", "total quiet, nothing at all", "a silent clip without sound", "quiet",
         "complete quiet"),
        ("dead silence", "a quiet clip without sound", "no sound, total silence"),
    ),
}  # fmt: skip

_UNKNOWN = Captions(
    ("a dog barking", "a man speaking", "a woman singing", "piano music", "a guitar melody", "people talking",
     "a crowd cheering", "footsteps on gravel", "a door closing", "glass breaking", "a baby crying", "a cat meowing",
     "water pouring", "ocean waves", "someone typing on a keyboard", "a horse galloping", "applause", "laughter",
     "a violin", "a choir", "wind in the trees", "a cow mooing", "a rooster", "food frying in a pan", "paper tearing",
     "speech", "music", "a telephone conversation", "an orchestra", "thunder", "a fire crackling", "a person coughing",
     "an announcement at a station", "children playing", "a saxophone", "a lion roaring", "bubbling water", "a sneeze",
     "a sheep bleating", "a trumpet solo", "a child laughing", "someone whispering", "a saw cutting wood",
     "a frog croaking", "a teacher giving a lecture", "coins falling on a table", "a flute melody", "a man snoring"),
    ("a pig grunting", "a cello solo", "a woman laughing", "an audience clapping", "scissors cutting paper",
     "a monkey screaming", "rain on a window", "a harmonica tune", "a boy reading a story", "eggs frying in a pan",
     "a river flowing", "someone sawing wood"),
)  # fmt: skip


def _caption(phrases: Captions) -> Captions:
    halves = (TEMPLATES.train, phrases.train), (TEMPLATES.held_out, phrases.held_out)
    return Captions(*(tuple(dict.fromkeys(t.format(p) for p in some for t in templates)) for templates, some in halves))


CAPTIONS: dict[str, Captions] = {label: _caption(phrases) for label, phrases in _PHRASES.items()}
"""Training and held-out captions of every class: templates times phrases, neither shared between the halves."""

DISTRACTORS = _caption(_UNKNOWN)
"""Captions of sounds that no scene contains."""
